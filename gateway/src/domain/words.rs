//! Texts that a device says about itself: one line each, whoever reads them and wherever.
//!
//! They end up in a status, and people read a status in a terminal that obeys control characters, and in windows that
//! obey what turns the direction of writing. [`surface::is_deceptive`] names the characters.
//!
//! | Text | With such a character |
//! |---|---|
//! | `platform.*`, the requested name | refused: they say who asks, and an approver compares them |
//! | a capability's name, version, description and schemas | refused, like anything else that is wrong in a declaration |
//! | an artefact's media type | the artefact is refused |
//! | a failure's message, `mediation.by` and `.reason`, a progress's message | kept, with each of them replaced: a result must not be lost because of how its message is written |
//! | an output | kept as it is: JSON, which escapes control characters, and no text for people |

use surface::is_deceptive;

/// Whether the text shows what it is, on one line.
pub fn is_one_line(text: &str) -> bool {
    !text.chars().any(is_deceptive)
}

/// The text on one line, at most so many characters of it. White space stays white space; other characters that cannot
/// be shown become U+FFFD.
pub fn one_line(text: &str, characters: usize) -> String {
    let shown = |character: char| match character {
        '\t' | '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
        character if is_deceptive(character) => char::REPLACEMENT_CHARACTER,
        character => character,
    };
    text.chars().take(characters).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use proto::node;

    use super::*;
    use crate::domain::{artefact::Claim, register, result::End, underway};

    /// One of each kind: C0, DEL, C1, directions, no width, ends of lines and paragraphs.
    const DECEPTIVE: [char; 29] = [
        '\0', '\u{7}', '\u{8}', '\t', '\n', '\r', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{ad}',
        '\u{61c}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{200e}', '\u{200f}', '\u{2028}',
        '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2060}',
        '\u{2066}', '\u{2067}', '\u{2069}', '\u{feff}',
    ];

    fn text() -> impl Strategy<Value = String> {
        let character = prop_oneof![any::<char>(), select(DECEPTIVE.to_vec()), Just('a')];
        vec(character, 0..12).prop_map(String::from_iter)
    }

    fn registration(text: &str, field: usize) -> node::RegisterRequest {
        let mut platform = node::Platform::default();
        let mut capability = node::Capability {
            name: "door.open".to_owned(),
            ..node::Capability::default()
        };
        let field = match field {
            0 => &mut platform.os,
            1 => &mut platform.arch,
            2 => &mut platform.agent_version,
            3 => &mut platform.hostname,
            4 => &mut capability.name,
            5 => &mut capability.version,
            _ => &mut capability.description,
        };
        text.clone_into(field);
        node::RegisterRequest {
            platform: Some(platform),
            capabilities: vec![capability],
            ..node::RegisterRequest::default()
        }
    }

    fn result(text: &str) -> node::Result {
        node::Result {
            outcome: node::Outcome::Failed.into(),
            failure: Some(node::Failure {
                message: text.to_owned(),
                ..node::Failure::default()
            }),
            mediation: Some(node::Mediation {
                by: text.to_owned(),
                reason: text.to_owned(),
                ..node::Mediation::default()
            }),
            duplicate_of: text.to_owned(),
            ..node::Result::default()
        }
    }

    /// Every text that a device may put into a status.
    fn shown(text: &str) -> Vec<String> {
        let mut shown = Vec::new();
        for field in 0..7 {
            let Ok(declared) = register::read(registration(text, field)) else {
                continue;
            };
            let platform = declared.platform;
            shown.extend([
                platform.os,
                platform.arch,
                platform.agent_version,
                platform.hostname,
            ]);
            for (capability, _) in declared.capabilities {
                shown.push(capability.name);
                shown.extend(
                    [capability.version, capability.description]
                        .into_iter()
                        .flatten(),
                );
            }
        }
        let end = End::reported(&result(text), 1024);
        shown.extend(end.error.map(|error| error.message));
        shown.extend(end.duplicate_of);
        if let Some(mediation) = end.mediation {
            shown.push(mediation.by);
            shown.extend(mediation.reason);
        }
        let progress = node::Progress {
            message: text.to_owned(),
            ..node::Progress::default()
        };
        shown.extend(underway::progress(&progress).message);
        let artefact = node::Artefact {
            sha256: vec![7; 32],
            size_bytes: 1,
            media_type: text.to_owned(),
        };
        shown.extend(Claim::read(&artefact, 10).map(|claim| claim.media_type));
        // The API server may quote what it refuses.
        shown.extend(End::not_storable(text).error.map(|error| error.message));
        shown
    }

    #[test]
    fn no_text_of_a_device_shows_something_else_than_it_is() {
        for character in DECEPTIVE {
            let text = format!("front{character}door");
            for field in 0..7 {
                assert!(
                    register::read(registration(&text, field)).is_err(),
                    "{field}: {text:?}"
                );
            }
            let shown = shown(&text);
            assert!(shown.len() >= 5, "{shown:?}");
            for text in shown {
                assert!(is_one_line(&text), "{text:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_a_device_says_a_status_has_one_line_of_it(text in text()) {
            for text in shown(&text) {
                prop_assert!(is_one_line(&text), "{text:?}");
            }
        }

        #[test]
        fn a_text_without_such_characters_stays_as_it_is(text in "[ -~äöüßéλжд中文🙂]{0,20}") {
            prop_assert_eq!(one_line(&text, 100), text);
        }
    }

    #[test]
    fn a_failure_keeps_its_words() {
        let end = End::reported(&result("no such\n\tdoor\u{1b}[2J"), 1024);
        assert_eq!(end.error.unwrap().message, "no such  door\u{fffd}[2J");
        assert_eq!(end.mediation.unwrap().by, "no such  door\u{fffd}[2J");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(one_line("äöü\n", 3), "äöü");
        assert_eq!(one_line("ä\nü", 2), "ä ");
    }
}
