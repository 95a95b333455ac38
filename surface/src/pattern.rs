//! Regular expressions of a schema: matched in time that is linear in the text, with a bounded memory.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use regex_lite::{Regex, RegexBuilder};

use crate::work::{Spent, Work};

/// Most memory of one, in bytes; a bounded repetition such as `[a-z]{1,253}` takes some 25 KB.
const MAX_BYTES: usize = 32 * 1024;
const LEAST_BYTES: usize = 256;
/// Each twice the one before: from [`LEAST_BYTES`] to [`MAX_BYTES`].
const SIZES: usize = 8;
/// Longest text whose size is looked for exactly: to read a longer one many times would take long.
const SHORT: usize = 256;
/// Bytes of an expression that the matcher looks at in one step.
const BYTES_PER_STEP: usize = 10;
/// Steps before the first character.
const TO_BEGIN: usize = 16;

/// One expression. Two are equal where their texts are.
#[derive(Clone)]
pub struct Pattern {
    regex: Regex,
    bytes: usize,
}

impl Pattern {
    /// Letters, digits and spaces are those of ASCII, as in ECMA-262; there is no look-around and no back-reference.
    pub fn parse(text: &str) -> Result<Self, String> {
        let built = |bytes| RegexBuilder::new(text).size_limit(bytes).build();
        // Its size cannot be asked for: the least of the sizes that it fits, found by halves.
        let mut regex = None;
        let least = if text.len() > SHORT { SIZES - 2 } else { 0 };
        let (mut low, mut high) = (least, SIZES);
        while low < high {
            let middle = usize::midpoint(low, high);
            match built(LEAST_BYTES << middle) {
                Ok(fitting) => {
                    regex = Some(fitting);
                    high = middle;
                }
                Err(_) => low = middle + 1,
            }
        }
        match regex {
            Some(regex) => Ok(Self {
                regex,
                bytes: LEAST_BYTES << high,
            }),
            None => Err(built(MAX_BYTES)
                .err()
                .map_or_else(|| "it is too large".to_owned(), |error| error.to_string())),
        }
    }

    /// Whether it matches somewhere in the text. The matcher may look at each part of the expression for each character.
    pub fn is_match(&self, text: &str, work: &Work) -> Result<bool, Spent> {
        let of_character = 1 + self.bytes / BYTES_PER_STEP;
        work.spend(TO_BEGIN + of_character * (1 + text.len()))?;
        Ok(self.regex.is_match(text))
    }

    pub fn text(&self) -> &str {
        self.regex.as_str()
    }

    /// Memory that it takes at most: also how much work it is for each character.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text().hash(state);
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_large_or_slow_is_refused() {
        for text in [
            "(a{1000}){1000}",
            "((((a{100}){100}){100}){100}){100}",
            "(a)\\1",
            "(?=a)",
            "(",
            "[a-z]{1,5000}",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
        let evil = Pattern::parse("^(a+)+$").unwrap();
        let work = Work::new(u32::MAX);
        let text = format!("{}b", "a".repeat(30_000));
        assert_eq!(evil.is_match(&text, &work), Ok(false));
    }

    #[test]
    fn usual_ones_are_taken() {
        for (text, matches, not) in [
            ("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", "kiosk-7", "-"),
            ("^\\d{4}-\\d{2}-\\d{2}$", "2026-01-02", "2026-1-2"),
            ("^/", "/dev/sda", "dev"),
            ("a\\/b", "a/b", "ab"),
            ("^[\\w.-]{1,253}$", "host.example", ""),
        ] {
            let pattern = Pattern::parse(text).unwrap();
            let work = Work::new(u32::MAX);
            assert_eq!(pattern.is_match(matches, &work), Ok(true), "{text}");
            assert_eq!(pattern.is_match(not, &work), Ok(false), "{text}");
        }
    }
}
