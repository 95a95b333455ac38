//! The one sequence of bytes that stands for a signed bundle. Numbers are big-endian, lengths count bytes.
//!
//! ```text
//! signed    := version:u8=1  content_length:u16  content  signatures:u8  signature*
//! content   := trust_domain_length:u8  trust_domain  sequence:u64  authorities:u8  authority*
//! authority := length:u16  DER
//! signature := SHA-256 of the signer's SubjectPublicKeyInfo:32 bytes  length:u8  DER
//! ```
//!
//! Authorities are in the strict order of their bytes, signatures in that of their keys. What is encoded in any other way
//! is not read: [`read`] encodes anew and compares.

use rustls::pki_types::CertificateDer;

use super::{Bundle, MAX_AUTHORITIES, MAX_SIGNATURES, NotAccepted, Signature, SignedBundle};
use crate::key::KeyFingerprint;

const VERSION: u8 = 1;

pub(super) fn content(bundle: &Bundle) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, 1, bundle.trust_domain.as_bytes());
    out.extend(bundle.sequence.to_be_bytes());
    out.push(count(bundle.authorities.len()));
    for authority in &bundle.authorities {
        put(&mut out, 2, authority);
    }
    out
}

pub(super) fn signed(signed: &SignedBundle) -> Vec<u8> {
    let mut out = vec![VERSION];
    put(&mut out, 2, &content(&signed.bundle));
    out.push(count(signed.signatures.len()));
    for Signature { by, bytes } in &signed.signatures {
        out.extend(by.as_bytes());
        put(&mut out, 1, bytes);
    }
    out
}

pub(super) fn read(bytes: &[u8]) -> Result<SignedBundle, NotAccepted> {
    let mut rest = Rest(bytes);
    let parts = rest.signed().filter(|_| rest.0.is_empty());
    let (trust_domain, sequence, authorities, signatures) = parts.ok_or(NotAccepted::Unreadable)?;
    let bundle = Bundle::new(&trust_domain, sequence, authorities)?;
    let signed = SignedBundle::new(bundle, signatures)?;
    if signed.to_bytes() == bytes {
        Ok(signed)
    } else {
        Err(NotAccepted::Unreadable)
    }
}

/// `width`: bytes of the length, 1 or 2. What does not fit is cut; the bounds of a bundle are below that.
fn put(out: &mut Vec<u8>, width: usize, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
    out.extend(&length[2 - width..]);
    out.extend(bytes);
}

fn count(items: usize) -> u8 {
    u8::try_from(items).unwrap_or(u8::MAX)
}

type Parts = (String, u64, Vec<CertificateDer<'static>>, Vec<Signature>);

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn signed(&mut self) -> Option<Parts> {
        if self.number(1)? != u64::from(VERSION) {
            return None;
        }
        let mut content = Rest(self.text(2)?);
        let trust_domain = String::from_utf8(content.text(1)?.to_vec()).ok()?;
        let sequence = content.number(8)?;
        let authorities = content.count(MAX_AUTHORITIES)?;
        let authorities = (0..authorities)
            .map(|_| Some(CertificateDer::from(content.text(2)?.to_vec())))
            .collect::<Option<Vec<_>>>()?;
        if !content.0.is_empty() {
            return None;
        }
        let signatures = self.count(MAX_SIGNATURES)?;
        let signatures = (0..signatures)
            .map(|_| {
                Some(Signature {
                    by: KeyFingerprint::from_bytes(self.bytes(32)?.try_into().ok()?),
                    bytes: self.text(1)?.to_vec(),
                })
            })
            .collect::<Option<Vec<_>>>()?;
        Some((trust_domain, sequence, authorities, signatures))
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, width: usize) -> Option<u64> {
        let bytes = self.bytes(width)?;
        Some(
            bytes
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte)),
        )
    }

    fn count(&mut self, most: usize) -> Option<usize> {
        let count = usize::try_from(self.number(1)?).ok()?;
        (count <= most).then_some(count)
    }

    fn text(&mut self, width: usize) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number(width)?).ok()?;
        self.bytes(length)
    }
}
