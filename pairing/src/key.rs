//! The name of a key.

use std::{fmt, str::FromStr};

use rustls::{CertificateError, pki_types::CertificateDer};
use sha2::{Digest as _, Sha256};

use crate::certificate::parse;

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

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
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
