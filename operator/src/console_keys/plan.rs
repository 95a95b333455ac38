//! What happens to the console's keys next. Pure.

use crds::names::{
    CONSOLE_KEY_BYTES, CONSOLE_KEY_CURRENT, CONSOLE_KEY_MADE_ANNOTATION, CONSOLE_KEY_PREVIOUS,
    CONSOLE_KEY_SECONDS,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

/// How long a key seals new sessions.
const LIFE: SignedDuration = SignedDuration::from_secs(CONSOLE_KEY_SECONDS);

/// What must happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Plan {
    /// Nothing until then.
    Keep(Timestamp),
    /// The current key becomes the previous one, and another one is drawn.
    Rotate,
    /// What is there is of no use: another key is drawn, and whatever was sealed is lost.
    Replace(Unreadable),
}

/// Why keys are of no use.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unreadable {
    #[error("`current` is missing")]
    NoCurrent,
    #[error("`current` is not 32 bytes long")]
    CurrentLength,
    #[error("`previous` is not 32 bytes long")]
    PreviousLength,
}

/// Decides.
pub fn plan(secret: &Secret, now: Timestamp) -> Plan {
    if let Err(unreadable) = check(secret) {
        return Plan::Replace(unreadable);
    }
    let made_at = secret
        .annotations()
        .get(CONSOLE_KEY_MADE_ANNOTATION)
        .and_then(|made_at| made_at.parse::<Timestamp>().ok());
    match made_at {
        // A moment that lies further ahead than a key lives was written by no clock of ours: by it, the key would stay
        // for ever. Less than that is a clock that was ahead.
        Some(made_at) if now.duration_since(made_at).abs() < LIFE => {
            Plan::Keep(made_at.checked_add(LIFE).unwrap_or(now))
        }
        // Nobody can tell how old it is, so it counts as old; what it sealed can still be opened.
        Some(_) | None => Plan::Rotate,
    }
}

fn check(secret: &Secret) -> Result<(), Unreadable> {
    let length = |key: &str| Some(secret.data.as_ref()?.get(key)?.0.len());
    match length(CONSOLE_KEY_CURRENT) {
        None => return Err(Unreadable::NoCurrent),
        Some(CONSOLE_KEY_BYTES) => {}
        Some(_) => return Err(Unreadable::CurrentLength),
    }
    match length(CONSOLE_KEY_PREVIOUS) {
        None | Some(CONSOLE_KEY_BYTES) => Ok(()),
        Some(_) => Err(Unreadable::PreviousLength),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    const DAY: i64 = CONSOLE_KEY_SECONDS;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// With a current key since second 0.
    fn secret(change: impl FnOnce(&mut Secret)) -> Secret {
        let mut secret = Secret {
            data: Some(BTreeMap::from([(
                CONSOLE_KEY_CURRENT.to_owned(),
                ByteString(vec![1; CONSOLE_KEY_BYTES]),
            )])),
            ..Secret::default()
        };
        made(&mut secret, &at(0).to_string());
        change(&mut secret);
        secret
    }

    fn made(secret: &mut Secret, at: &str) {
        secret
            .annotations_mut()
            .insert(CONSOLE_KEY_MADE_ANNOTATION.to_owned(), at.to_owned());
    }

    fn put(secret: &mut Secret, key: &str, bytes: usize) {
        let data = secret.data.get_or_insert_default();
        data.insert(key.to_owned(), ByteString(vec![2; bytes]));
    }

    #[test]
    fn a_key_is_kept_for_a_day_and_not_a_second_less() {
        let first = secret(|_| {});
        let second = secret(|secret| put(secret, CONSOLE_KEY_PREVIOUS, CONSOLE_KEY_BYTES));
        for secret in [first, second] {
            for now in [0, 1, DAY / 2, DAY - 1] {
                assert_eq!(plan(&secret, at(now)), Plan::Keep(at(DAY)), "{now}");
            }
            for now in [DAY, DAY + 1, 100 * DAY] {
                assert_eq!(plan(&secret, at(now)), Plan::Rotate, "{now}");
            }
        }
    }

    #[test]
    fn a_clock_that_was_ahead_is_no_reason_but_a_moment_out_of_reach_is() {
        assert_eq!(plan(&secret(|_| {}), at(-60)), Plan::Keep(at(DAY)));
        assert_eq!(plan(&secret(|_| {}), at(-DAY)), Plan::Rotate);
        for moment in ["", "yesterday", "9999-12-31T00:00:00Z"] {
            let secret = secret(|secret| made(secret, moment));
            assert_eq!(plan(&secret, at(1)), Plan::Rotate, "{moment}");
        }
        let unknown = secret(|secret| secret.metadata.annotations = None);
        assert_eq!(plan(&unknown, at(1)), Plan::Rotate);
    }

    #[test]
    fn keys_that_are_none_are_replaced() {
        for (secret, expected) in [
            (secret(|secret| secret.data = None), Unreadable::NoCurrent),
            (
                secret(|secret| put(secret, CONSOLE_KEY_CURRENT, 0)),
                Unreadable::CurrentLength,
            ),
            (
                secret(|secret| put(secret, CONSOLE_KEY_CURRENT, CONSOLE_KEY_BYTES + 1)),
                Unreadable::CurrentLength,
            ),
            (
                secret(|secret| put(secret, CONSOLE_KEY_PREVIOUS, 31)),
                Unreadable::PreviousLength,
            ),
        ] {
            for now in [1, 100 * DAY] {
                assert_eq!(plan(&secret, at(now)), Plan::Replace(expected));
            }
        }
    }
}
