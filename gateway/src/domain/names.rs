//! Names and uids as API servers make them. What a device says and what goes into a request is one of these, or goes
//! nowhere: a name with a `?` or a `/` in it would be another request.

const MAX_NAME: usize = 253;
const MAX_UID: usize = 64;

/// An RFC 1123 subdomain, as the name of every object is: dotted words of small letters, digits and dashes.
pub fn is_object_name(name: &str) -> bool {
    let is_edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= MAX_NAME
        && name.split('.').all(|word| {
            let bytes = word.as_bytes();
            bytes.first().is_some_and(is_edge)
                && bytes.last().is_some_and(is_edge)
                && bytes.iter().all(|byte| is_edge(byte) || *byte == b'-')
        })
}

/// The uid of an object: small hexadecimal digits and dashes.
pub fn is_uid(uid: &str) -> bool {
    (1..=MAX_UID).contains(&uid.len())
        && uid
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_api_server_calls_an_object_is_a_name_and_nothing_else_is() {
        for name in ["a", "say-hi", "say.hi", "0", "a--b", &"a".repeat(253)] {
            assert!(is_object_name(name), "{name}");
        }
        for name in [
            "",
            "?watch=1",
            "say-hi?watch=1",
            "say-hi/status",
            "..",
            "../pods",
            "a..b",
            "-a",
            "a-",
            "A",
            "a_b",
            "a b",
            "a%2fb",
            "a#b",
            "ä",
            "a\n",
            &"a".repeat(254),
        ] {
            assert!(!is_object_name(name), "{name}");
        }
    }

    #[test]
    fn a_uid_is_hexadecimal_with_dashes() {
        for uid in ["0", "6f9619ff-8b86-d011-b42d-00cf4fc964ff", &"a".repeat(64)] {
            assert!(is_uid(uid), "{uid}");
        }
        for uid in ["", "6F96", "g", "a/b", "a b", &"a".repeat(65)] {
            assert!(!is_uid(uid), "{uid}");
        }
    }
}
