//! What a person is asked, and how an answer is tied to it.
//!
//! An answer names the digest of what was shown: of the invocation, the capability, its input and who asks. So nobody can
//! allow one thing and have another one run.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    agent::order::Order, capability::Capability, host::clock::Moment, journal::Uid,
    terminal::printable_within,
};

/// Characters of an input that are shown.
const SHOWN_INPUT: usize = 2048;
/// Letters and digits that cannot be mistaken for each other, five bits each (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters of an ID: 40 bits. Who asks cannot search for two questions with the same one, for the uid, which the
/// cluster draws after the input is fixed, is part of it.
const ID_CHARACTERS: usize = 8;

/// SHA-256 of what is asked.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(order: &Order) -> Self {
        let Order {
            uid,
            capability,
            input,
            requested_by,
            ..
        } = order;
        let mut hasher = Sha256::new();
        for part in [
            uid.as_str().as_bytes(),
            capability.as_bytes(),
            input,
            requested_by.as_bytes(),
        ] {
            // With its length, so that nothing can move from one part into the next.
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// From what its `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Option<Vec<u8>> = text
            .bytes()
            .map(|byte| {
                (byte as char)
                    .to_digit(16)
                    .and_then(|digit| u8::try_from(digit).ok())
            })
            .collect();
        let bytes: Vec<u8> = digits?
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect();
        (text.len() == 64).then(|| bytes.try_into().ok().map(Self))?
    }

    /// What a person types.
    pub fn id(&self) -> Id {
        let mut bits = 0_u64;
        for byte in self.0.iter().take(5) {
            bits = bits << 8 | u64::from(*byte);
        }
        let character = |index: usize| {
            let shift = 5 * (ID_CHARACTERS - 1 - index);
            let five = usize::try_from(bits >> shift & 31).unwrap_or_default();
            ALPHABET.get(five).copied().unwrap_or(b'0') as char
        };
        Id((0..ID_CHARACTERS).map(character).collect())
    }
}

/// Hexadecimal.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Names a question, and is short enough to be typed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Id(String);

impl Id {
    /// Reads what a person typed: case, dashes and letters that look like digits do not matter.
    pub fn parse(text: &str) -> Option<Self> {
        let plain: String = text
            .trim()
            .chars()
            .filter(|c| *c != '-')
            .map(|c| match c.to_ascii_lowercase() {
                'o' => '0',
                'i' | 'l' => '1',
                other => other,
            })
            .collect();
        let fits = plain.len() == ID_CHARACTERS && plain.bytes().all(|b| ALPHABET.contains(&b));
        fits.then_some(Self(plain))
    }
}

/// As it is shown: `7kq2-x9m4`.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second) = self.0.split_at(ID_CHARACTERS / 2);
        write!(f, "{first}-{second}")
    }
}

/// Something that waits for a person's answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    pub order: Arc<Order>,
    pub digest: Digest,
    /// Of the capability, for people; may be empty.
    pub description: String,
    /// What the capability makes of the input, where that reads like something else.
    understood: Option<String>,
}

impl Question {
    /// `capability`: what it is about, where that is still there.
    pub fn of(order: &Arc<Order>, capability: Option<&dyn Capability>) -> Self {
        Self {
            order: Arc::clone(order),
            digest: Digest::of(order),
            description: capability.map_or("", |one| one.description()).to_owned(),
            understood: capability.and_then(|one| one.understood(&order.input)),
        }
    }

    /// As it is shown at `now`.
    pub fn shown(&self, now: Moment) -> Shown {
        let Order {
            uid,
            name,
            capability,
            input,
            deadline,
            requested_by,
            ..
        } = &*self.order;
        let text = match &self.understood {
            Some(understood) => understood.into(),
            None => String::from_utf8_lossy(input),
        };
        Shown {
            id: self.digest.id().to_string(),
            digest: self.digest.to_string(),
            uid: uid.as_str().to_owned(),
            invocation: printable_within(name, 253),
            capability: printable_within(capability, 253),
            description: printable_within(&self.description, 256),
            input: printable_within(&text, SHOWN_INPUT),
            input_bytes: input.len(),
            input_is_cut: text.chars().nth(SHOWN_INPUT).is_some(),
            requested_by: printable_within(requested_by, 253),
            remaining_seconds: deadline.since(now).as_secs(),
        }
    }
}

/// A question as it goes through the socket, and to `on_pending`: everything can be printed. As JSON, its fields stay.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// What a person types.
    pub id: String,
    /// What an answer names. Hexadecimal.
    pub digest: String,
    pub uid: String,
    /// Name of the CapabilityInvocation.
    pub invocation: String,
    pub capability: String,
    pub description: String,
    /// JSON, without what could move a cursor; empty where there is none. Where the capability reads it as something else
    /// than a person would, as that.
    pub input: String,
    /// All of it as it was written, shown or not.
    pub input_bytes: usize,
    /// There is more of it than is shown.
    pub input_is_cut: bool,
    pub requested_by: String,
    pub remaining_seconds: u64,
}

impl Shown {
    /// Whether `id` names it.
    pub fn is(&self, id: &Id) -> bool {
        Id::parse(&self.id).as_ref() == Some(id)
    }

    /// What the digest and the uid say; `None` where an agent sent what cannot be either.
    pub fn key(&self) -> Option<(Uid, Digest)> {
        Some((Uid::parse(&self.uid)?, Digest::parse(&self.digest)?))
    }

    pub fn remaining(&self) -> Duration {
        Duration::from_secs(self.remaining_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::order::Sharing,
        capability::{Call, Running},
    };

    fn order() -> Order {
        Order {
            uid: Uid::parse("a").unwrap(),
            name: "open-it".to_owned(),
            capability: "desktop.open_url".to_owned(),
            input: b"{\"url\":\"https://example.org\"}".to_vec(),
            deadline: Moment::from_millis(60_000),
            max_output_bytes: 1_000,
            requested_by: "jane@example.org".to_owned(),
            sharing: Sharing::Alone,
            mediate: true,
            decision: None,
        }
    }

    struct Page(Option<&'static str>);

    impl Capability for Page {
        fn name(&self) -> &'static str {
            "test.page"
        }

        fn description(&self) -> &'static str {
            "opens\ta page"
        }

        fn understood(&self, _input: &[u8]) -> Option<String> {
            self.0.map(str::to_owned)
        }

        fn run(&self, _call: Call) -> Running {
            panic!("a question runs nothing")
        }
    }

    #[test]
    fn the_digest_is_of_everything_that_is_shown_and_decides() {
        let first = Digest::of(&order());
        assert_eq!(first, Digest::of(&order()));
        let changes: [fn(&mut Order); 5] = [
            |order| order.uid = Uid::parse("b").unwrap(),
            |order| order.capability = "desktop.open_path".to_owned(),
            |order| order.input.push(b' '),
            |order| order.requested_by = "joe@example.org".to_owned(),
            // Nothing moves from one part into the next.
            |order| {
                let last = order.capability.pop().unwrap();
                order.input.insert(0, last as u8);
            },
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut other = order();
            change(&mut other);
            assert_ne!(Digest::of(&other), first, "change {index}");
        }
    }

    #[test]
    fn a_digest_is_read_back_and_nothing_else_is_one() {
        let digest = Digest::of(&order());
        let text = digest.to_string();
        assert_eq!(Digest::parse(&text), Some(digest));
        for wrong in [
            "",
            "0",
            &text[1..],
            &format!("{text}00"),
            &"g".repeat(64),
            &"ä".repeat(32),
        ] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_id_may_be_typed_carelessly() {
        let id = Digest(
            [0x08, 0x42, 0x10, 0xff, 0xff]
                .iter()
                .chain(&[0; 27])
                .copied()
                .collect::<Vec<_>>()
                .try_into()
                .unwrap(),
        )
        .id();
        assert_eq!(id.to_string(), "1111-1zzz");
        for typed in ["1111-1zzz", "11111zzz", "iLIl-1ZZZ", " 1111-1zzz "] {
            assert_eq!(Id::parse(typed), Some(id.clone()), "{typed}");
        }
        for wrong in ["", "1111-1zz", "1111-1zzzz", "1111-1zzu", "äää"] {
            assert_eq!(Id::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_is_bounded_and_cannot_move_a_cursor() {
        let mut odd = order();
        odd.input = format!("\"{}\u{1b}[2J\u{202e}{}\"", "é", "x".repeat(40_000)).into_bytes();
        odd.requested_by = "jane\nroot".to_owned();
        let question = Question::of(&Arc::new(odd.clone()), Some(&Page(None)));
        let shown = question.shown(Moment::from_millis(50_500));
        assert_eq!(shown.remaining_seconds, 9);
        assert_eq!(shown.input.chars().count(), SHOWN_INPUT);
        assert!(
            shown.input.starts_with("\"é [2J xxx"),
            "{}",
            &shown.input[..20]
        );
        assert!(shown.input_is_cut);
        assert_eq!(shown.input_bytes, odd.input.len());
        assert_eq!(
            (shown.requested_by.as_str(), shown.description.as_str()),
            ("jane root", "opens a page")
        );
        assert!(shown.is(&question.digest.id()));
        assert_eq!(shown.key(), Some((odd.uid, question.digest)));
        assert!(
            !Question::of(&Arc::new(order()), None)
                .shown(Moment::default())
                .input_is_cut
        );
    }

    #[test]
    fn what_the_capability_makes_of_the_input_is_what_is_shown() {
        let order = Arc::new(order());
        for (understood, expected) in [
            (
                Some("{\"url\":\"https://xn--x/\"}"),
                "{\"url\":\"https://xn--x/\"}",
            ),
            (None, "{\"url\":\"https://example.org\"}"),
        ] {
            let question = Question::of(&order, Some(&Page(understood)));
            assert_eq!(question.shown(Moment::default()).input, expected);
            // What is allowed stays what was asked for.
            assert_eq!(question.digest, Digest::of(&order));
        }
    }
}
