//! Whether the operator may use the authority that it found, or make one. Pure.
//!
//! Another authority than the one that devices and gateways know locks every device out. So the operator makes one only
//! where nothing shows that there ever was one, and uses one only where nothing published contradicts it.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crds::names;
use pairing::key::KeyFingerprint;

/// The Secret of the authority.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    Missing,
    /// It holds no authority of this trust domain; why, for people.
    Damaged(String),
    /// It holds the authority with this key.
    Authority(KeyFingerprint),
}

/// An object that names authorities.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Witness {
    #[default]
    Missing,
    /// Empty where it names none that can be read.
    Names(BTreeSet<KeyFingerprint>),
}

/// What else in the cluster shows which authority there was.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Witnesses {
    /// The ConfigMap of the trust bundle.
    pub published: Witness,
    /// The Secret with the gateways' certificate.
    pub gateways: Witness,
    /// Devices that have a certificate. Looked at only where the other two name no authority.
    pub devices: Witness,
}

/// An authority that an administrator gives up, as `--replace-authority` names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Replaced {
    Pin(KeyFingerprint),
    /// Nothing names the old one any more.
    Unknown,
}

impl FromStr for Replaced {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "unknown" => Ok(Self::Unknown),
            pin => pin.parse().map(Self::Pin).map_err(
                |_| "expected the pin of the old authority (64 hexadecimal digits), or unknown",
            ),
        }
    }
}

impl fmt::Display for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pin(pin) => write!(f, "{pin}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// What follows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    Use,
    Make,
    Refuse(Refusal),
}

/// Why nothing is signed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "the Secret {secret} is missing, and the authority {known} was in use: another one would lock every device out, so \
         the operator signs nothing; restore the Secret from a backup, or give the old authority up with --replace-authority \
         {known} and pair every device again (docs/authority.md)",
        secret = names::CA_SECRET
    )]
    Missing { known: Replaced },
    #[error(
        "the Secret {secret} holds the authority {found}, and the authority {known} is in use: the other one would lock every \
         device out, so the operator does not use it; restore the Secret from a backup, or give the old authority up with \
         --replace-authority {known} and pair every device again (docs/authority.md)",
        secret = names::CA_SECRET
    )]
    Another {
        found: KeyFingerprint,
        known: Replaced,
    },
    #[error(
        "the Secret {secret} is damaged: {why}, so the operator does not use it; restore it from a backup (docs/authority.md)",
        secret = names::CA_SECRET
    )]
    Damaged { why: String },
}

impl Refusal {
    /// For an Event, in one word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "AuthorityMissing",
            Self::Another { .. } => "AuthorityReplaced",
            Self::Damaged { .. } => "AuthorityDamaged",
        }
    }
}

impl Witness {
    pub fn of(authorities: impl IntoIterator<Item = KeyFingerprint>) -> Self {
        Self::Names(authorities.into_iter().collect())
    }

    fn names(&self) -> impl Iterator<Item = KeyFingerprint> {
        match self {
            Self::Missing => None,
            Self::Names(names) => Some(names),
        }
        .into_iter()
        .flatten()
        .copied()
    }
}

impl Witnesses {
    /// The authorities that count: those that are published; only where none is, those of Devices. A Device keeps naming
    /// the authority before a replacement until it is paired again.
    fn known(&self) -> BTreeSet<KeyFingerprint> {
        let published: BTreeSet<_> = self
            .published
            .names()
            .chain(self.gateways.names())
            .collect();
        if published.is_empty() {
            self.devices.names().collect()
        } else {
            published
        }
    }

    /// Whether it takes a look at the Devices to tell.
    pub fn need_devices(&self) -> bool {
        self.known().is_empty()
    }

    fn are_missing(&self) -> bool {
        [&self.published, &self.gateways, &self.devices]
            .iter()
            .all(|witness| **witness == Witness::Missing)
    }
}

/// Decides.
pub fn standing(found: &Found, witnesses: &Witnesses, replaced: Option<Replaced>) -> Standing {
    let known = witnesses.known();
    // What an administrator has to name to give it up.
    let first = known.first().copied();
    let named = first.map_or(Replaced::Unknown, Replaced::Pin);
    let is_given_up = match replaced {
        Some(Replaced::Pin(pin)) => known.contains(&pin),
        Some(Replaced::Unknown) => known.is_empty(),
        None => false,
    };
    match found {
        Found::Damaged(why) => Standing::Refuse(Refusal::Damaged { why: why.clone() }),
        Found::Authority(pin) if known.is_empty() || known.contains(pin) || is_given_up => {
            Standing::Use
        }
        Found::Authority(pin) => Standing::Refuse(Refusal::Another {
            found: *pin,
            known: named,
        }),
        Found::Missing if witnesses.are_missing() || is_given_up => Standing::Make,
        Found::Missing => Standing::Refuse(Refusal::Missing { known: named }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(name: &str) -> KeyFingerprint {
        KeyFingerprint::of_spki(name.as_bytes())
    }

    fn names(names: &[&str]) -> Witness {
        Witness::of(names.iter().map(|name| pin(name)))
    }

    fn seen(published: Witness, gateways: Witness, devices: Witness) -> Witnesses {
        Witnesses {
            published,
            gateways,
            devices,
        }
    }

    const NONE: Witness = Witness::Missing;

    #[test]
    fn another_authority_is_made_only_where_there_never_was_one() {
        let refused = |known| Standing::Refuse(Refusal::Missing { known });
        let old = Replaced::Pin(pin("old"));
        for (case, witnesses, replaced, expected) in [
            ("a new cluster", Witnesses::default(), None, Standing::Make),
            (
                "a published bundle",
                seen(names(&["old"]), NONE, NONE),
                None,
                refused(old),
            ),
            (
                "a published bundle that cannot be read",
                seen(names(&[]), NONE, NONE),
                None,
                refused(Replaced::Unknown),
            ),
            (
                "a certificate of gateways",
                seen(NONE, names(&["old"]), NONE),
                None,
                refused(old),
            ),
            (
                "devices alone",
                seen(NONE, NONE, names(&["old"])),
                None,
                refused(old),
            ),
            (
                "devices of an earlier version alone",
                seen(NONE, NONE, names(&[])),
                None,
                refused(Replaced::Unknown),
            ),
            (
                "the old one is given up",
                seen(names(&["old"]), NONE, NONE),
                Some(old),
                Standing::Make,
            ),
            (
                "one that nothing names is given up",
                seen(NONE, NONE, names(&[])),
                Some(Replaced::Unknown),
                Standing::Make,
            ),
            (
                "another one is given up",
                seen(names(&["old"]), NONE, NONE),
                Some(Replaced::Pin(pin("older"))),
                refused(old),
            ),
            (
                "an unknown one is given up, but it is known",
                seen(names(&["old"]), NONE, NONE),
                Some(Replaced::Unknown),
                refused(old),
            ),
            (
                "one before the published one is given up",
                seen(names(&["new"]), names(&["new"]), names(&["old"])),
                Some(old),
                refused(Replaced::Pin(pin("new"))),
            ),
        ] {
            assert_eq!(
                standing(&Found::Missing, &witnesses, replaced),
                expected,
                "{case}"
            );
        }
    }

    #[test]
    fn an_authority_that_is_not_the_published_one_signs_nothing() {
        let found = Found::Authority(pin("ours"));
        let refused = |known| {
            Standing::Refuse(Refusal::Another {
                found: pin("ours"),
                known: Replaced::Pin(pin(known)),
            })
        };
        for (case, witnesses, replaced, expected) in [
            ("nothing else", Witnesses::default(), None, Standing::Use),
            (
                "it is published",
                seen(names(&["ours"]), NONE, NONE),
                None,
                Standing::Use,
            ),
            (
                "the ConfigMap was damaged",
                seen(names(&[]), names(&["ours"]), NONE),
                None,
                Standing::Use,
            ),
            (
                "the ConfigMap was changed, and gateways know it",
                seen(names(&["foreign"]), names(&["ours"]), NONE),
                None,
                Standing::Use,
            ),
            (
                "another one is published",
                seen(names(&["old"]), names(&["old"]), NONE),
                None,
                refused("old"),
            ),
            (
                "nothing is published, and devices know another one",
                seen(NONE, NONE, names(&["old"])),
                None,
                refused("old"),
            ),
            (
                "nothing is published, and devices know it",
                seen(NONE, NONE, names(&["old", "ours"])),
                None,
                Standing::Use,
            ),
            (
                "devices of an earlier version",
                seen(NONE, NONE, names(&[])),
                None,
                Standing::Use,
            ),
            (
                "the one before a replacement came back from a backup",
                seen(names(&["new"]), names(&["new"]), names(&["ours", "new"])),
                None,
                refused("new"),
            ),
            (
                "the old one is given up",
                seen(names(&["old"]), names(&["old"]), NONE),
                Some(Replaced::Pin(pin("old"))),
                Standing::Use,
            ),
        ] {
            assert_eq!(standing(&found, &witnesses, replaced), expected, "{case}");
        }
    }

    #[test]
    fn a_damaged_authority_is_not_replaced_whatever_is_given_up() {
        let damaged = Found::Damaged("tls.key is missing".to_owned());
        for replaced in [
            None,
            Some(Replaced::Unknown),
            Some(Replaced::Pin(pin("old"))),
        ] {
            let standing = standing(&damaged, &seen(names(&["old"]), NONE, NONE), replaced);
            assert!(
                matches!(standing, Standing::Refuse(Refusal::Damaged { .. })),
                "{standing:?}"
            );
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let known = Replaced::Pin(pin("old"));
        let missing = Refusal::Missing { known }.to_string();
        assert!(missing.contains("restore the Secret from a backup"));
        assert!(missing.contains(&format!("--replace-authority {}", pin("old"))));
        assert_eq!(known.to_string().parse(), Ok(known));
        assert_eq!("unknown".parse(), Ok(Replaced::Unknown));
        "old".parse::<Replaced>().unwrap_err();
    }
}
