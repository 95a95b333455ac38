//! The name of a key.

use std::{array, fmt, str::FromStr};

use bip39::Language;
use rustls::{CertificateError, pki_types::CertificateDer};
use sha2::{Digest as _, Sha256};

use crate::certificate::parse;

/// Words that a fingerprint is read out as, and the bits that each of them stands for.
const WORDS: usize = 6;
const BITS_OF_WORD: usize = 11;

/// SHA-256 of a DER SubjectPublicKeyInfo: names a device for its life, and pins an authority.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyFingerprint([u8; 32]);

/// A text is no fingerprint.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a key's fingerprint is 64 hexadecimal digits")]
pub struct ParseError;

impl KeyFingerprint {
    /// Of a DER SubjectPublicKeyInfo.
    pub fn of_spki(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// Of the key in a certificate.
    pub fn of_certificate(der: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        Ok(Self::of_spki(parse(der)?.public_key().raw))
    }

    pub(crate) fn from_bytes(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its beginning as English words, for two people who compare it by voice: 66 bits, eleven for each word of the list
    /// of BIP 39, whose words differ in their first four letters. So many that nobody can make another key with the same
    /// ones while a request waits; it is a check between people, and never what a program compares.
    pub fn words(&self) -> [&'static str; WORDS] {
        let list = Language::English.word_list();
        array::from_fn(|word| {
            let bits = word * BITS_OF_WORD..(word + 1) * BITS_OF_WORD;
            let index = bits.fold(0, |index, bit| {
                index << 1 | usize::from(self.0[bit / 8] >> (7 - bit % 8) & 1)
            });
            list[index]
        })
    }
}

impl FromStr for KeyFingerprint {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseError)?;
        Ok(Self(bytes))
    }
}

/// 64 lower-case hexadecimal digits.
impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(digits: &str) -> String {
        let fingerprint: KeyFingerprint = digits.parse().unwrap();
        fingerprint.words().join(" ")
    }

    #[test]
    fn words_are_those_that_others_who_know_the_list_would_say() {
        // Beginnings of what BIP 39's own test vectors say of entropy that begins so.
        for (begins, expected) in [
            ("00", "abandon abandon abandon abandon abandon abandon"),
            ("7f", "legal winner thank year wave sausage"),
            ("80", "letter advice cage absurd amount doctor"),
            ("ff", "zoo zoo zoo zoo zoo zoo"),
        ] {
            assert_eq!(words(&begins.repeat(32)), expected);
        }
        let mixed = format!("9e885d952ad362caeb4efe34a8e91bd2{}", "0".repeat(32));
        assert_eq!(words(&mixed), "ozone drill grab fiber curtain grace");
    }

    #[test]
    fn every_one_of_the_first_66_bits_is_heard_and_no_other() {
        let none = KeyFingerprint([0; 32]);
        for bit in 0..256 {
            let mut bytes = [0; 32];
            bytes[bit / 8] = 0x80 >> (bit % 8);
            let is_heard = KeyFingerprint(bytes).words() != none.words();
            assert_eq!(is_heard, bit < 66, "bit {bit}");
        }
    }
}
