//! A session as a text that nobody can read or change without the key.
//!
//! ```text
//! v2.BASE64URL(key id, 4 bytes | nonce, 12 bytes | AES-256-GCM(session) | tag, 16 bytes)
//! ```
//!
//! Version, purpose and key id are authenticated beside it. Nonces are random: with 96 bits, a key that seals for a day
//! is far from two of them being the same.
//!
//! Version 1 had the beginning in whole seconds, and its logouts were recorded for each session. No gateway opens it any
//! more, so an upgrade ends all sessions that began before it.

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Sealed, SessionId,
    keys::{Key, KeyId, Keys},
};
use crate::caller::Token;

const VERSION: &str = "v2.";
const PURPOSE: &[u8] = b"fairlead console session v2";
const ID_LEN: usize = size_of::<KeyId>();

/// Why a text is no session.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenError {
    #[error("it is no session")]
    Malformed,
    /// A rotation, or another cluster.
    #[error("it was sealed with a key that is not known here")]
    UnknownKey,
    #[error("it was changed")]
    Forged,
}

/// Random bytes for one seal.
pub fn nonce() -> [u8; NONCE_LEN] {
    rand::random()
}

/// The session as a text.
pub fn seal(session: &Sealed, key: &Key, nonce: [u8; NONCE_LEN]) -> String {
    let plain = Plain {
        id: hex::encode(session.id.as_bytes()),
        token: session.token.expose().to_owned(),
        issued_at: session.issued_at.as_millisecond(),
        seen_at: session.seen_at.as_second(),
        expires_at: session.expires_at.as_second(),
    };
    let mut bytes = serde_json::to_vec(&plain).expect("texts and numbers can be written");
    key.aead
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad(key.id), &mut bytes)
        .expect("a session is shorter than what AES-GCM takes");
    let mut sealed = Vec::with_capacity(ID_LEN + NONCE_LEN + bytes.len());
    sealed.extend_from_slice(&key.id);
    sealed.extend_from_slice(&nonce);
    sealed.append(&mut bytes);
    format!("{VERSION}{}", URL_SAFE_NO_PAD.encode(sealed))
}

/// The session in a text. Whether it goes on is another question.
///
/// # Errors
/// For everything that was not sealed with one of the keys.
pub fn open(text: &str, keys: &Keys) -> Result<Sealed, OpenError> {
    let encoded = text.strip_prefix(VERSION).ok_or(OpenError::Malformed)?;
    let bytes = URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| OpenError::Malformed)?;
    let (id, rest) = bytes
        .split_first_chunk::<ID_LEN>()
        .ok_or(OpenError::Malformed)?;
    let (nonce, rest) = rest
        .split_first_chunk::<NONCE_LEN>()
        .ok_or(OpenError::Malformed)?;
    let key = keys.by_id(*id).ok_or(OpenError::UnknownKey)?;
    let mut bytes = rest.to_vec();
    let plain = key
        .aead
        .open_in_place(Nonce::assume_unique_for_key(*nonce), aad(*id), &mut bytes)
        .map_err(|_| OpenError::Forged)?;
    let plain: Plain = serde_json::from_slice(plain).map_err(|_| OpenError::Malformed)?;
    plain.session().ok_or(OpenError::Malformed)
}

fn aad(id: KeyId) -> Aad<Vec<u8>> {
    Aad::from([PURPOSE, &id].concat())
}

/// Names are short: a cookie has 4 KiB, and most of that is for the token.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    #[serde(rename = "i")]
    id: String,
    #[serde(rename = "t")]
    token: String,
    /// In milliseconds.
    #[serde(rename = "b")]
    issued_at: i64,
    #[serde(rename = "s")]
    seen_at: i64,
    #[serde(rename = "e")]
    expires_at: i64,
}

impl Plain {
    fn session(self) -> Option<Sealed> {
        let mut id = [0; 16];
        hex::decode_to_slice(&self.id, &mut id).ok()?;
        Some(Sealed {
            id: SessionId::from_bytes(id),
            token: Token::new(self.token).ok()?,
            issued_at: Timestamp::from_millisecond(self.issued_at).ok()?,
            seen_at: Timestamp::from_second(self.seen_at).ok()?,
            expires_at: Timestamp::from_second(self.expires_at).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn session() -> Sealed {
        Sealed {
            id: SessionId::from_bytes([7; 16]),
            token: Token::new("a-token").unwrap(),
            issued_at: at(0),
            seen_at: at(60),
            expires_at: at(43_200),
        }
    }

    fn keys(current: u8, previous: Option<u8>) -> Keys {
        let key = |of: u8| vec![of; 32];
        Keys::parse(&[key(current), previous.map(key).unwrap_or_default()]).unwrap()
    }

    /// What another implementation (HKDF and AES-GCM of pyca/cryptography) makes of the same.
    #[test]
    fn the_seal_is_the_known_one() {
        let keys = keys(1, None);
        let sealed = seal(&session(), &keys.current, [9; NONCE_LEN]);
        assert_eq!(sealed, KNOWN);
        assert_eq!(open(KNOWN, &keys), Ok(session()));
    }

    const KNOWN: &str = "v2.Ms6MogkJCQkJCQkJCQkJCYUnybIS5rKEg5lMZKsGQ6pYiyuQiOfpiXFYSO9GgJnAKe7TcYNLx5CsHNxQ_6kiHxW9V_zon917sgtRxDbwm-GrJjqidtAORdfEquLm8l1UEElcLH0i-sn5BU97QonAd0pJf1p-E0D08jMPzybEfuLGcyrvBOE";

    /// Sealed by version 1 with the same key.
    #[test]
    fn a_session_of_the_version_before_is_over() {
        let before = "v1.Ms6MogkJCQkJCQkJCQkJCYUnybIS5rKEg5lMZKsGQ6pYiyuQiOfpiXFYSO9GgJnAKe7TcYNLx5CsHNxQ_6kiHxW9V_zon917sgtRxDbwm-GrJjqiasJNS8-GsOjn-l1UEE9cMGl39NGtH0V6So3DdU5KMJigbdFU4Kp-SPTo9KR34EM";
        assert_eq!(open(before, &keys(1, None)), Err(OpenError::Malformed));
    }

    #[test]
    fn no_byte_of_it_can_be_changed() {
        let keys = keys(1, Some(2));
        let sealed = seal(&session(), &keys.current, nonce());
        let raw = URL_SAFE_NO_PAD.decode(&sealed[VERSION.len()..]).unwrap();
        for at in 0..raw.len() {
            for bit in 0..8 {
                let mut changed = raw.clone();
                changed[at] ^= 1 << bit;
                let text = format!("{VERSION}{}", URL_SAFE_NO_PAD.encode(changed));
                assert!(open(&text, &keys).is_err(), "byte {at}");
            }
        }
        for length in 0..raw.len() {
            let text = format!("{VERSION}{}", URL_SAFE_NO_PAD.encode(&raw[..length]));
            assert!(open(&text, &keys).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_key_opens_what_it_sealed_as_long_as_it_is_there() {
        let sealed = seal(&session(), &keys(1, None).current, nonce());
        assert_eq!(open(&sealed, &keys(2, Some(1))), Ok(session()));
        assert_eq!(open(&sealed, &keys(3, Some(2))), Err(OpenError::UnknownKey));
    }

    #[test]
    fn what_one_key_sealed_is_not_passed_off_as_of_the_other() {
        let keys = keys(1, Some(2));
        let sealed = seal(&session(), &keys.current, nonce());
        let mut raw = URL_SAFE_NO_PAD.decode(&sealed[VERSION.len()..]).unwrap();
        raw[..ID_LEN].copy_from_slice(&keys.previous.as_ref().unwrap().id);
        let text = format!("{VERSION}{}", URL_SAFE_NO_PAD.encode(raw));
        assert_eq!(open(&text, &keys), Err(OpenError::Forged));
    }

    #[test]
    fn what_is_no_seal_is_no_session() {
        for text in ["", "v2.", "v1.AAAA", "v3.AAAA", "v2.!!", "v2.AAAA"] {
            assert!(open(text, &keys(1, None)).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_comes_in_a_cookie_panics(text in "(v2\\.)?[ -~]{0,200}") {
            let _ = open(&text, &keys(1, None));
        }
    }
}
