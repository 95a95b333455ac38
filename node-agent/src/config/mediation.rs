//! What the administrator says about asking the person at the device: `[mediation]`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{
    MAX_WORDS, absolute,
    document::{Document, Problem},
};
use crate::mediation::rules::{MAX_REASON_BYTES, Pattern, Rule, Rules, Verdict};

/// Rules: nobody reads more.
const MAX_RULES: usize = 256;
/// Longest name of a user or a group, in bytes.
const MAX_ACCOUNT_BYTES: usize = 64;

/// Who is asked, how, and what is decided without asking.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Mediation {
    /// Absolute. `None`: `agent.sock` in the state folder.
    pub socket: Option<PathBuf>,
    /// Who may answer besides root and the user who runs the agent: users, by name or number,
    pub users: Vec<String>,
    /// and members of groups. The first one owns the socket.
    pub groups: Vec<String>,
    /// An absolute path and its arguments: what is run when something begins to wait for an answer. Empty: nothing.
    pub on_pending: Vec<String>,
    pub rules: Rules,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    socket: Option<Spanned<PathBuf>>,
    users: Option<Spanned<Vec<String>>>,
    groups: Option<Spanned<Vec<String>>>,
    on_pending: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    rule: Vec<Spanned<WrittenRule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    capability: Spanned<String>,
    requester: Option<Spanned<String>>,
    decision: WrittenVerdict,
    reason: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenVerdict {
    Ask,
    Allow,
    Deny,
}

impl Mediation {
    pub(super) fn of(document: &Document, written: Written) -> Result<Self, Problem> {
        let Written {
            socket,
            users,
            groups,
            on_pending,
            rule,
        } = written;
        let has_groups = groups.as_ref().is_some_and(|all| !all.get_ref().is_empty());
        for (key, accounts, is_enough, missing) in [
            (
                "groups",
                &groups,
                socket.is_some(),
                "socket, outside the state folder, which nobody else may look into: \
              socket = \"/run/fairlead/agent.sock\"",
            ),
            (
                "users",
                &users,
                has_groups,
                "groups: the first of them owns the socket, and who is to reach it must be in it",
            ),
        ] {
            if let Some(accounts) = accounts
                && !accounts.get_ref().is_empty()
                && !is_enough
            {
                let message = format!("add {missing}");
                return Err(document.problem(&accounts.span(), key, message));
            }
        }
        if let Some(last) = rule.get(MAX_RULES) {
            let message = format!("give {MAX_RULES} at most");
            return Err(document.problem(&last.span(), "rule", message));
        }
        let rules: Result<Vec<Rule>, Problem> = rule
            .into_iter()
            .map(|rule| to_rule(document, rule.into_inner()))
            .collect();
        Ok(Self {
            socket: socket
                .map(|path| absolute(document, "socket", path))
                .transpose()?,
            users: accounts(document, "users", users)?,
            groups: accounts(document, "groups", groups)?,
            on_pending: command(document, on_pending)?,
            rules: rules?.into(),
        })
    }
}

fn accounts(
    document: &Document,
    key: &str,
    written: Option<Spanned<Vec<String>>>,
) -> Result<Vec<String>, Problem> {
    let Some(written) = written else {
        return Ok(Vec::new());
    };
    let fits = |name: &String| {
        (1..=MAX_ACCOUNT_BYTES).contains(&name.len())
            && !name.contains(|c: char| c.is_control() || matches!(c, ':' | ','))
    };
    if written.get_ref().len() > MAX_WORDS || !written.get_ref().iter().all(fits) {
        let message = format!("give names or numbers, {MAX_WORDS} at most");
        return Err(document.problem(&written.span(), key, message));
    }
    Ok(written.into_inner())
}

fn command(
    document: &Document,
    written: Option<Spanned<Vec<String>>>,
) -> Result<Vec<String>, Problem> {
    let Some(written) = written else {
        return Ok(Vec::new());
    };
    let words = written.get_ref();
    let program = words.first();
    if !program.is_none_or(|program| Path::new(program).is_absolute())
        || words.len() > MAX_WORDS
        || words.iter().any(|word| word.contains('\0'))
    {
        return Err(document.problem(
            &written.span(),
            "on_pending",
            "give the program's path, which begins with /, and then its arguments, 31 at most",
        ));
    }
    Ok(written.into_inner())
}

fn to_rule(document: &Document, written: WrittenRule) -> Result<Rule, Problem> {
    let WrittenRule {
        capability,
        requester,
        decision,
        reason,
    } = written;
    let pattern = |key, written: &Spanned<String>| {
        Pattern::parse(written.get_ref())
            .map_err(|message| document.problem(&written.span(), key, message))
    };
    let reason = match reason {
        Some(reason)
            if reason.get_ref().len() > MAX_REASON_BYTES
                || reason.get_ref().chars().any(char::is_control) =>
        {
            let message = format!("give one line of {MAX_REASON_BYTES} bytes at most");
            return Err(document.problem(&reason.span(), "reason", message));
        }
        Some(reason) => reason.into_inner(),
        None => String::new(),
    };
    Ok(Rule {
        capability: pattern("capability", &capability)?,
        requester: requester.as_ref().map_or_else(
            || Ok(Pattern::any()),
            |written| pattern("requester", written),
        )?,
        verdict: match decision {
            WrittenVerdict::Ask => Verdict::Ask,
            WrittenVerdict::Allow => Verdict::Allow,
            WrittenVerdict::Deny => Verdict::Deny,
        },
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mediation::rules::Ruling;

    #[derive(Deserialize)]
    struct File {
        mediation: Written,
    }

    fn read(text: &str) -> Result<Mediation, Problem> {
        let document = Document::of(Path::new("agent.toml"), text.to_owned());
        Mediation::of(&document, document.parse::<File>()?.mediation)
    }

    #[test]
    fn rules_are_read_in_order_and_a_requester_may_be_left_out() {
        let mediation = read(
            "[mediation]\n[[mediation.rule]]\ncapability = \"desktop.*\"\ndecision = \"allow\"\n\
             [[mediation.rule]]\ncapability = \"*\"\nrequester = \"jane\"\ndecision = \"deny\"\nreason = \"not her\"\n",
        )
        .unwrap();
        let ruling = |requester| mediation.rules.ruling("desktop.open_url", requester, true);
        assert!(matches!(ruling("joe"), Ruling::Allowed(_)));
        let Ruling::Denied(decision) = ruling("jane") else {
            unreachable!("she is denied");
        };
        assert_eq!(decision.by, "rule 2: deny * for jane");
        assert_eq!(decision.reason, "not her");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line() {
        let long = "x".repeat(600);
        let long = format!(
            "[[mediation.rule]]\ncapability = \"*\"\ndecision = \"deny\"\nreason = \"{long}\""
        );
        for (text, line, says) in [
            ("[mediation]\nsocket = \"agent.sock\"", 2, "begins with /"),
            ("[mediation]\ngroups = [\"desk\"]", 2, "add socket"),
            (
                "[mediation]\nsocket = \"/run/a/b\"\nusers = [\"jane\"]",
                3,
                "add groups",
            ),
            (
                "[mediation]\nsocket = \"/run/a/b\"\ngroups = [\"a:b\"]",
                3,
                "names or numbers",
            ),
            ("[mediation]\non_pending = [\"ask\"]", 2, "begins with /"),
            (
                "[[mediation.rule]]\ncapability = \"\"\ndecision = \"ask\"",
                2,
                "capability: give",
            ),
            (
                "[[mediation.rule]]\ncapability = \"*\"\nrequester = \"\"\ndecision = \"ask\"",
                3,
                "requester: give",
            ),
            (
                "[[mediation.rule]]\ncapability = \"*\"\ndecision = \"maybe\"",
                3,
                "maybe",
            ),
            (&long, 4, "reason: give one line"),
        ] {
            let problem = read(text).unwrap_err();
            assert_eq!(problem.line, Some(line), "{text}: {problem}");
            assert!(problem.message.contains(says), "{text}: {problem}");
        }
        read("[[mediation.rule]]\ncapability = \"*\"").unwrap_err();
        assert_eq!(
            read("[mediation]\non_pending = []").unwrap(),
            Mediation::default()
        );
    }
}
