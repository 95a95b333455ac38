//! The digest of a pairing request's spec, which is the name of a gateway's request: who approves the name approves
//! exactly what it shows.

use sha2::{Digest as _, Sha256};

use crate::v1alpha1::PairingRequestSpec;

/// Prefix of the names of gateways' requests.
const PREFIX: &str = "preq-";
/// Hexadecimal digits of the digest that are in a name: 128 bits, out of reach of a second preimage.
const DIGITS: usize = 32;

/// The spec cannot be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("write the spec as canonical JSON")]
pub struct Error(#[from] serde_json::Error);

/// SHA-256 of the canonical JSON (RFC 8785) of the spec, hexadecimal. Anybody can compute it from what
/// `kubectl get preq NAME -o json` shows.
pub fn of_spec(spec: &PairingRequestSpec) -> Result<String, Error> {
    let canonical = serde_json_canonicalizer::to_vec(spec)?;
    Ok(hex::encode(Sha256::digest(canonical)))
}

/// The name of a gateway's request with that digest.
pub fn request_name(digest: &str) -> String {
    format!("{PREFIX}{}", digest.get(..DIGITS).unwrap_or(digest))
}

#[cfg(test)]
mod tests;
