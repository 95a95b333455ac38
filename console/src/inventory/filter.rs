//! Which devices are asked for.

use std::str::FromStr;

use console_api::inventory::{ClientKind, Presence, Trust};
use sha2::{Digest as _, Sha256};

use super::{Known, LabelSelector, Rank};
use crate::record;

/// Longest text that is looked for, in characters.
pub const MAX_SEARCH: usize = 100;

/// Every part that is given must hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    pub trust: Option<Trust>,
    /// A device of whose presence nothing is known counts as offline.
    pub presence: Option<Presence>,
    pub client_kind: Option<ClientKind>,
    pub labels: Option<LabelSelector>,
    pub text: Option<SearchText>,
}

/// A text that is looked for in the id, the display name and the host name of a device, whatever its case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SearchText(String);

/// What is not looked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("give 1 to {MAX_SEARCH} characters to look for")]
pub struct InvalidSearch;

impl FromStr for SearchText {
    type Err = InvalidSearch;

    fn from_str(text: &str) -> Result<Self, InvalidSearch> {
        // Lower case may be longer by some characters.
        let is_long = text.chars().nth(MAX_SEARCH).is_some();
        if text.is_empty() || is_long {
            return Err(InvalidSearch);
        }
        Ok(Self(text.to_lowercase()))
    }
}

impl Filter {
    /// Whether it leaves all.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    pub fn matches(&self, device: &Known) -> bool {
        let trust = |trust| device.trust.map(record::trust) == Some(trust);
        let presence = |presence| Rank::asked(presence) == Some(device.rank());
        let client_kind = |kind| record::client_kind(device.client_kind) == kind;
        self.trust.is_none_or(trust)
            && self.presence.is_none_or(presence)
            && self.client_kind.is_none_or(client_kind)
            && self
                .labels
                .as_ref()
                .is_none_or(|selector| selector.matches(&device.labels))
            && self.text.as_ref().is_none_or(|text| text.is_in(device))
    }

    /// Tells questions apart: the cursor of one is none of another. The same at every gateway.
    pub fn digest(&self, scope: Option<&str>) -> [u8; 8] {
        let mut digest = Sha256::new();
        let labels = self.labels.as_ref().map(ToString::to_string);
        for part in [
            scope,
            self.trust.map(Trust::as_str),
            self.presence.map(Presence::as_str),
            self.client_kind.map(ClientKind::as_str),
            labels.as_deref(),
            self.text.as_ref().map(|text| &*text.0),
        ] {
            // Which part is given, and where it ends.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            digest.update(length.to_be_bytes());
            digest.update(part.unwrap_or_default());
        }
        let mut first = [0; 8];
        first.copy_from_slice(&digest.finalize()[..8]);
        first
    }
}

impl SearchText {
    fn is_in(&self, device: &Known) -> bool {
        let (namespace, name) = (&*device.name.namespace, &*device.name.name);
        let shown = device.display_name.as_deref();
        contains(name, &self.0)
            || contains(namespace, &self.0)
            || (self.0.contains('.') && contains(&format!("{namespace}.{name}"), &self.0))
            || shown.is_some_and(|shown| contains(shown, &self.0))
            || device
                .hostname
                .as_deref()
                .is_some_and(|hostname| contains(hostname, &self.0))
    }
}

/// `sought` is in lower case. Nothing is allocated for ASCII, which nearly everything is.
fn contains(text: &str, sought: &str) -> bool {
    if !text.is_ascii() {
        return text.to_lowercase().contains(sought);
    }
    let sought = sought.as_bytes();
    let Some(first) = sought.first() else {
        return true;
    };
    // Most places are told from it by their first byte.
    text.as_bytes()
        .windows(sought.len())
        .any(|part| part[0].to_ascii_lowercase() == *first && part.eq_ignore_ascii_case(sought))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_whatever_its_case() {
        for (text, sought) in [
            ("Lamp.Local", "P.LO"),
            ("Küche", "KÜ"),
            ("lamp", "lamp"),
            ("ÄB", "b"),
        ] {
            let sought: SearchText = sought.parse().unwrap();
            assert!(contains(text, &sought.0), "{text}");
        }
        assert!(!contains("lamp", "lamps"));
        assert!(!contains("lamp", "ü"));
    }

    #[test]
    fn a_text_is_neither_empty_nor_long() {
        assert_eq!("".parse::<SearchText>(), Err(InvalidSearch));
        assert!("ü".repeat(MAX_SEARCH).parse::<SearchText>().is_ok());
        assert!("ü".repeat(MAX_SEARCH + 1).parse::<SearchText>().is_err());
    }

    #[test]
    fn every_part_of_a_question_tells_it_from_others() {
        let mut digests = std::collections::BTreeSet::new();
        let filters = [
            Filter::default(),
            Filter {
                trust: Some(Trust::Revoked),
                ..Filter::default()
            },
            Filter {
                presence: Some(Presence::Stale),
                ..Filter::default()
            },
            Filter {
                client_kind: Some(ClientKind::Cli),
                ..Filter::default()
            },
            Filter {
                labels: Some("a".parse().unwrap()),
                ..Filter::default()
            },
            Filter {
                text: Some("a".parse().unwrap()),
                ..Filter::default()
            },
        ];
        for filter in &filters {
            for scope in [None, Some(""), Some("a")] {
                assert!(digests.insert(filter.digest(scope)), "{filter:?} {scope:?}");
            }
        }
    }
}
