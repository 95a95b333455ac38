//! The authorities that a device trusts, signed by an authority that the device already holds.
//!
//! The operator signs a [`Bundle`]; resources and gateways carry the [`SignedBundle`]; the device verifies it. A carrier can
//! withhold a bundle, but it can neither change one nor make one. `docs/design/2026-11-30-signed-bundle.md` has the reasons.
//!
//! - [`SignedBundle::verify`]: the decision, pure but for the arithmetic of signatures;
//! - `encoding`: the one sequence of bytes that stands for a bundle.

mod encoding;

pub use rustls::pki_types::CertificateDer;
use rustls::{crypto::aws_lc_rs, pki_types::alg_id};

use crate::{certificate::parse, key::KeyFingerprint};

/// Longest [`SignedBundle`], in bytes.
pub const MAX_BYTES: usize = 12 * 1024;
/// Most authorities in one bundle: those of a rotation, and some to spare.
pub const MAX_AUTHORITIES: usize = 8;
/// Most signatures of one bundle.
pub const MAX_SIGNATURES: usize = 4;
/// Largest sequence: 2^53 - 1, the largest whole number that every reader of JSON reads exactly.
pub const MAX_SEQUENCE: u64 = 9_007_199_254_740_991;

/// Longest certificate of an authority, in bytes of DER.
const MAX_CERTIFICATE_BYTES: usize = 4096;
/// Longest ECDSA signature over P-256, in bytes of DER (RFC 3279, section 2.2.3).
const MAX_SIGNATURE_BYTES: usize = 72;
/// Longest trust domain, as in [`crate::spiffe`].
const MAX_TRUST_DOMAIN_BYTES: usize = 253;
/// Stands before the content in what is signed, so that no signature for another purpose counts as one of a bundle.
const PURPOSE: &[u8] = b"fairlead signed trust bundle v1\0";
/// The SubjectPublicKeyInfo of an uncompressed P-256 key, up to the point (RFC 5480, section 2).
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Why a bundle is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAccepted {
    #[error("the signed trust bundle is missing")]
    Missing,
    #[error("the signed trust bundle is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("the signed trust bundle cannot be read")]
    Unreadable,
    #[error("a certificate in the signed trust bundle is not a certificate authority's")]
    NotAnAuthority,
    #[error("the trust bundle is not signed by an authority that this device trusts")]
    NotSigned,
    #[error("a signature of the trust bundle does not hold")]
    FalseSignature,
    #[error("the trust bundle is for another trust domain")]
    AnotherTrustDomain,
    #[error("the trust bundle is older than the one that this device holds")]
    Older,
    #[error("the trust bundle contradicts the one of the same sequence that this device holds")]
    Contradicts,
}

/// Which authorities to trust. One value has one encoding: the authorities are in order, each once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bundle {
    trust_domain: String,
    sequence: u64,
    authorities: Vec<CertificateDer<'static>>,
}

impl Bundle {
    /// Fails where there are no authorities or too many, where a certificate is not an authority's, and where the name or
    /// the sequence is out of bounds (1 to [`MAX_SEQUENCE`]).
    pub fn new(
        trust_domain: &str,
        sequence: u64,
        mut authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, NotAccepted> {
        authorities.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        authorities.dedup();
        if !(1..=MAX_AUTHORITIES).contains(&authorities.len())
            || !(1..=MAX_TRUST_DOMAIN_BYTES).contains(&trust_domain.len())
            || !(1..=MAX_SEQUENCE).contains(&sequence)
        {
            return Err(NotAccepted::Unreadable);
        }
        if !authorities.iter().all(is_authority) {
            return Err(NotAccepted::NotAnAuthority);
        }
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            sequence,
            authorities,
        })
    }

    /// Grows with each change of the authorities.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// 1 to [`MAX_AUTHORITIES`], in the order of their bytes.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// What an authority signs with ECDSA over P-256 and SHA-256.
    pub fn to_be_signed(&self) -> Vec<u8> {
        [PURPOSE, &encoding::content(self)].concat()
    }
}

/// A signature of one authority.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signature {
    /// The authority's key.
    pub by: KeyFingerprint,
    /// DER (RFC 3279, section 2.2.3).
    pub bytes: Vec<u8>,
}

/// A bundle and its signatures. Nothing can be read of the bundle before [`SignedBundle::verify`] accepts it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedBundle {
    bundle: Bundle,
    /// By key, each key once.
    signatures: Vec<Signature>,
}

/// What a device trusts when a bundle reaches it.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// Of the device's own certificate.
    pub trust_domain: &'a str,
    /// 0 where the device never held a signed bundle.
    pub sequence: u64,
    pub authorities: &'a [CertificateDer<'static>],
}

impl SignedBundle {
    /// Fails where there is no signature, too many, or one that is too long, and where the encoding exceeds [`MAX_BYTES`].
    pub fn new(bundle: Bundle, mut signatures: Vec<Signature>) -> Result<Self, NotAccepted> {
        signatures.sort_by_key(|signature| signature.by);
        let is_repeated = signatures.windows(2).any(|pair| pair[0].by == pair[1].by);
        let is_bounded = (1..=MAX_SIGNATURES).contains(&signatures.len())
            && signatures
                .iter()
                .all(|one| (1..=MAX_SIGNATURE_BYTES).contains(&one.bytes.len()));
        if is_repeated || !is_bounded {
            return Err(NotAccepted::Unreadable);
        }
        let signed = Self { bundle, signatures };
        if signed.to_bytes().len() > MAX_BYTES {
            return Err(NotAccepted::TooLong);
        }
        Ok(signed)
    }

    /// Reads the one encoding of a signed bundle.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotAccepted> {
        match bytes.len() {
            0 => Err(NotAccepted::Missing),
            1..=MAX_BYTES => encoding::read(bytes),
            _ => Err(NotAccepted::TooLong),
        }
    }

    /// At most [`MAX_BYTES`].
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::signed(self)
    }

    /// Accepts a bundle that one of the held authorities signed and that does not go back.
    ///
    /// A bundle with a lower sequence is accepted where its authorities are the held ones: it changes nothing, and an
    /// operator that lost its count locks nobody out. The held sequence stays then.
    pub fn verify(&self, held: &Held<'_>) -> Result<Bundle, NotAccepted> {
        self.verify_by(held.authorities)?;
        self.check_trust_domain(held.trust_domain)?;
        let bundle = &self.bundle;
        let is_same = is_same_set(held.authorities, &bundle.authorities);
        if !is_same && bundle.sequence < held.sequence {
            return Err(NotAccepted::Older);
        }
        if !is_same && bundle.sequence == held.sequence {
            return Err(NotAccepted::Contradicts);
        }
        Ok(Bundle {
            sequence: bundle.sequence.max(held.sequence),
            ..bundle.clone()
        })
    }

    /// Accepts the first bundle of a device that knows nothing but the key of its authority. That authority must be in the
    /// bundle and have signed it.
    pub fn verify_pinned(
        &self,
        pin: KeyFingerprint,
        trust_domain: &str,
    ) -> Result<Bundle, NotAccepted> {
        let pinned: Vec<_> = self
            .bundle
            .authorities
            .iter()
            .filter(|der| KeyFingerprint::of_certificate(der) == Ok(pin))
            .cloned()
            .collect();
        self.verify_by(&pinned)?;
        self.check_trust_domain(trust_domain)?;
        Ok(self.bundle.clone())
    }

    fn check_trust_domain(&self, expected: &str) -> Result<(), NotAccepted> {
        if self.bundle.trust_domain == expected {
            Ok(())
        } else {
            Err(NotAccepted::AnotherTrustDomain)
        }
    }

    /// Every signature that names one of these authorities must hold, and at least one must name one. Signatures of others
    /// say nothing to a device that does not hold them.
    fn verify_by(&self, authorities: &[CertificateDer<'static>]) -> Result<(), NotAccepted> {
        let message = self.bundle.to_be_signed();
        let mut is_signed = false;
        for Signature { by, bytes } in &self.signatures {
            let signer = authorities
                .iter()
                .find(|der| KeyFingerprint::of_certificate(der).as_ref() == Ok(by));
            if let Some(signer) = signer {
                if !is_signature(signer, &message, bytes) {
                    return Err(NotAccepted::FalseSignature);
                }
                is_signed = true;
            }
        }
        if is_signed {
            Ok(())
        } else {
            Err(NotAccepted::NotSigned)
        }
    }
}

fn is_same_set(a: &[CertificateDer<'_>], b: &[CertificateDer<'_>]) -> bool {
    a.iter().all(|der| b.contains(der)) && b.iter().all(|der| a.contains(der))
}

/// Whether a certificate says of itself that it may sign others.
fn is_authority(der: &CertificateDer<'static>) -> bool {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return false;
    }
    let Ok(certificate) = parse(der) else {
        return false;
    };
    let Ok(usage) = certificate.key_usage() else {
        return false;
    };
    certificate.is_ca() && usage.is_none_or(|usage| usage.value.key_cert_sign())
}

/// Whether the key in a certificate made an ECDSA signature over P-256 and SHA-256.
fn is_signature(signer: &CertificateDer<'static>, message: &[u8], signature: &[u8]) -> bool {
    let Ok(certificate) = parse(signer) else {
        return false;
    };
    let Some(point) = certificate.public_key().raw.strip_prefix(P256_SPKI) else {
        return false;
    };
    aws_lc_rs::default_provider()
        .signature_verification_algorithms
        .all
        .iter()
        .find(|algorithm| {
            algorithm.public_key_alg_id() == alg_id::ECDSA_P256
                && algorithm.signature_alg_id() == alg_id::ECDSA_SHA256
        })
        .is_some_and(|algorithm| {
            algorithm
                .verify_signature(point, message, signature)
                .is_ok()
        })
}

#[cfg(test)]
mod tests;
