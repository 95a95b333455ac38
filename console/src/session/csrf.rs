//! The token that shows that a request was made by a page that could read the session, and not by another site.
//!
//! `HMAC-SHA-256(session id, "fairlead console csrf v1")`: it belongs to one session, needs no memory, and stays the same
//! when keys are rotated. Whoever knows it does not know the session id, and so not how to forge another.

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::SessionId;

const PURPOSE: &[u8] = b"fairlead console csrf v1";

/// The token of a session.
pub fn token(id: &SessionId) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, id.as_bytes());
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, PURPOSE))
}

/// Whether that is it, in a time that does not tell how much of it is right.
pub fn is_right(id: &SessionId, given: &[u8]) -> bool {
    verify_slices_are_equal(token(id).as_bytes(), given).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `hmac.new(bytes(range(16)), b"fairlead console csrf v1", "sha256")` of another implementation.
    #[test]
    fn the_token_is_the_known_one() {
        let id = SessionId::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        assert_eq!(token(&id), "qNCBKQzxl29gNh0_MMyJN5Ju2415YfSmZltILPMH4wU");
    }

    #[test]
    fn that_of_another_session_and_any_other_are_wrong() {
        let (ours, other) = (
            SessionId::from_bytes([1; 16]),
            SessionId::from_bytes([2; 16]),
        );
        assert!(is_right(&ours, token(&ours).as_bytes()));
        assert!(!is_right(&ours, token(&other).as_bytes()));
        assert!(!is_right(&ours, b""));
        let right = token(&ours);
        for at in 0..right.len() {
            let mut wrong = right.clone().into_bytes();
            wrong[at] ^= 1;
            assert!(!is_right(&ours, &wrong), "byte {at}");
        }
        assert!(!is_right(&ours, &right.as_bytes()[..42]));
    }
}
