//! What the device's administrator says once, so that nobody is asked each time: who may have which capability run.
//!
//! Pure. A deny wins over an allow, an allow over an ask; where no rule speaks, what is mediated is asked and what is
//! automatic runs.

use crate::terminal::cut;

/// Longest pattern, in bytes: that of a user's name, as the protocol has it.
pub const MAX_PATTERN_BYTES: usize = 253;
/// Longest reason, in bytes, as the protocol has it.
pub const MAX_REASON_BYTES: usize = 512;

/// A text in which `*` stands for any characters, or none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern(String);

impl Pattern {
    /// Fails with what to do.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PATTERN_BYTES {
            return Err(format!(
                "give 1 to {MAX_PATTERN_BYTES} characters; * stands for any"
            ));
        }
        if text.chars().any(char::is_control) {
            return Err("give characters that can be printed".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// What everything matches.
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else {
            return self.0 == text;
        };
        let Some(mut left) = text.strip_prefix(first) else {
            return false;
        };
        let mut pieces: Vec<&str> = rest.split('*').collect();
        let last = pieces.pop().unwrap_or_default();
        // The first place where a piece fits leaves the most for the others.
        for piece in pieces {
            let Some((_, after)) = left.split_once(piece) else {
                return false;
            };
            left = after;
        }
        left.ends_with(last)
    }
}

/// What a rule says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Ask,
    Allow,
    Deny,
}

/// One rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    pub capability: Pattern,
    /// The user who asks, as the cluster knows it.
    pub requester: Pattern,
    pub verdict: Verdict,
    /// Told to who asks. May be empty.
    pub reason: String,
}

/// A word for or against: whose, and why.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Decision {
    /// A user of the device, or a rule.
    pub by: String,
    /// May be empty.
    pub reason: String,
}

/// All rules of a device, in the order of its configuration.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rules(Vec<Rule>);

/// What the rules come to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ruling {
    /// Nobody needs to be asked.
    Run,
    /// A person is asked.
    Ask,
    Allowed(Decision),
    Denied(Decision),
}

impl From<Vec<Rule>> for Rules {
    fn from(rules: Vec<Rule>) -> Self {
        Self(rules)
    }
}

impl Rules {
    /// What becomes of a capability that `requester` wants; `mediated` where a person is asked unless a rule says
    /// otherwise.
    pub fn ruling(&self, capability: &str, requester: &str, mediated: bool) -> Ruling {
        let says = |verdict| {
            let mut numbered = self.0.iter().enumerate();
            numbered.find(|(_, rule)| {
                rule.verdict == verdict
                    && rule.capability.matches(capability)
                    && rule.requester.matches(requester)
            })
        };
        if let Some((index, rule)) = says(Verdict::Deny) {
            Ruling::Denied(rule.decision(index))
        } else if let Some((index, rule)) = says(Verdict::Allow) {
            Ruling::Allowed(rule.decision(index))
        } else if mediated || says(Verdict::Ask).is_some() {
            Ruling::Ask
        } else {
            Ruling::Run
        }
    }
}

impl Rule {
    /// Names itself so that the administrator finds it: by its number, counted from 1, and by what it says.
    fn decision(&self, index: usize) -> Decision {
        let number = index + 1;
        let verdict = match self.verdict {
            Verdict::Ask => "ask",
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        };
        let by = format!(
            "rule {number}: {verdict} {} for {}",
            self.capability.0, self.requester.0
        );
        Decision {
            by: cut(&by, MAX_PATTERN_BYTES).to_owned(),
            reason: self.reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(capability: &str, requester: &str, verdict: Verdict) -> Rule {
        Rule {
            capability: Pattern::parse(capability).unwrap(),
            requester: Pattern::parse(requester).unwrap(),
            verdict,
            reason: String::new(),
        }
    }

    #[test]
    fn a_star_stands_for_anything_and_everything_else_for_itself() {
        for (pattern, text, expected) in [
            ("echo", "echo", true),
            ("echo", "echo2", false),
            ("Echo", "echo", false),
            ("desktop.*", "desktop.open_url", true),
            ("desktop.*", "desktop", false),
            ("desktop.*", "desktop.", true),
            ("*", "", true),
            ("*@example.org", "jane@example.org", true),
            ("*@example.org", "jane@example.org.evil", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            // What begins it cannot end it, too.
            ("ab*ba", "aba", false),
            ("a**b", "ab", true),
            ("system:*:lamp", "system:serviceaccount:kitchen:lamp", true),
        ] {
            let matches = Pattern::parse(pattern).unwrap().matches(text);
            assert_eq!(matches, expected, "{pattern} {text}");
        }
        for wrong in ["", "a\nb", &"x".repeat(254)] {
            Pattern::parse(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_deny_wins_over_an_allow_and_an_allow_over_an_ask() {
        use Verdict::{Allow, Ask, Deny};
        let all = [
            rule("desktop.*", "jane", Ask),
            rule("*", "jane", Allow),
            rule("desktop.open_url", "*", Deny),
        ];
        let kind = |rules: &[Rule], mediated| {
            let rules = Rules::from(rules.to_vec());
            match rules.ruling("desktop.open_url", "jane", mediated) {
                Ruling::Run => "run".to_owned(),
                Ruling::Ask => "ask".to_owned(),
                Ruling::Allowed(decision) | Ruling::Denied(decision) => decision.by,
            }
        };
        let [ask, allow, deny] = all.clone();
        let denied = |number| format!("rule {number}: deny desktop.open_url for *");
        let allowed = |number| format!("rule {number}: allow * for jane");
        for (rules, mediated, expected) in [
            (vec![], true, "ask".to_owned()),
            (vec![], false, "run".to_owned()),
            (vec![ask.clone()], false, "ask".to_owned()),
            (vec![ask.clone(), allow.clone()], true, allowed(2)),
            (vec![allow.clone(), ask], false, allowed(1)),
            (vec![deny.clone(), allow], true, denied(1)),
            (vec![deny], false, denied(1)),
            (all.to_vec(), false, denied(3)),
        ] {
            assert_eq!(kind(&rules, mediated), expected, "{rules:?}");
        }
    }

    #[test]
    fn a_rule_speaks_of_its_capability_and_its_requester_alone() {
        let rules = Rules::from(vec![rule("door.open", "jane", Verdict::Deny)]);
        for (capability, requester) in [("door.open", "joe"), ("door.shut", "jane"), ("", "")] {
            assert_eq!(rules.ruling(capability, requester, false), Ruling::Run);
            assert_eq!(rules.ruling(capability, requester, true), Ruling::Ask);
        }
        assert!(matches!(
            rules.ruling("door.open", "jane", true),
            Ruling::Denied(_)
        ));
    }

    #[test]
    fn a_rule_names_itself_within_bounds() {
        let long = "ä".repeat(120);
        let rules = Rules::from(vec![rule("*", &format!("{long}*"), Verdict::Deny)]);
        let Ruling::Denied(decision) = rules.ruling(&"x".repeat(253), &long, false) else {
            unreachable!("it is denied");
        };
        assert!(decision.by.len() <= 253, "{}", decision.by);
        assert!(decision.by.starts_with("rule 1: deny * for ää"));
    }
}
