//! Creates that may be sent twice: the name of the object is made of who sent them and of his key, so the second one finds
//! the first, whichever gateway it reaches, for as long as that object exists.

use console_api::problem::ProblemCode;
use sha2::{Digest as _, Sha256};

use super::call::Call;
use crate::problem::{Answer, Fault};

/// Header by which a client says that two requests are one.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Longest key.
const MAX_KEY: usize = 128;
/// Hexadecimal digits of the digest in a name: 128 bits.
const DIGITS: usize = 32;

/// The key of a request.
///
/// # Errors
/// For what is none.
pub fn key(call: &Call) -> Answer<Option<String>> {
    let mut values = call.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    let plain = |text: &&str| {
        !text.is_empty()
            && text.len() <= MAX_KEY
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match text.filter(plain) {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(Fault::field(
            "header.idempotency-key",
            format!("give it once, with 1 to {MAX_KEY} printable ASCII characters"),
        )),
    }
}

/// The name of the object that a key stands for.
pub fn name(prefix: &str, user: &str, key: &str, about: &str) -> String {
    let mut hash = Sha256::new();
    for part in [user, key, about] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hex::encode(hash.finalize());
    format!("{prefix}-{}", &digest[..DIGITS])
}

/// The same name with another spec.
pub fn conflict(name: &str) -> Fault {
    Fault::new(
        ProblemCode::Conflict,
        format!("{name} is there already and asks for something else: use another key or name"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_caller_with_the_same_key_means_the_same_object() {
        let first = name("inv", "ada", "k1", "kitchen.lamp");
        assert_eq!(first, name("inv", "ada", "k1", "kitchen.lamp"));
        for other in [
            name("inv", "bob", "k1", "kitchen.lamp"),
            name("inv", "ada", "k2", "kitchen.lamp"),
            name("inv", "ada", "k1", "kitchen.door"),
            name("inv", "ad", "ak1", "kitchen.lamp"),
        ] {
            assert_ne!(first, other);
        }
        assert!(console_api::id::is_name(&first));
    }
}
