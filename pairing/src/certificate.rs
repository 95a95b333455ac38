//! What a client certificate says, before anybody decides whether to believe it.

use rustls::{CertificateError, pki_types::CertificateDer};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::parse_x509_certificate,
};

use crate::{key::KeyFingerprint, spiffe::SpiffeId};

/// A client certificate, read. A verifier and whoever asks later who was let in must both use this, or they could
/// disagree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Presented {
    /// Signed with its own key: all that is known is the key.
    SelfSigned { key: KeyFingerprint },
    /// Signed by somebody, and names a device. Whether that somebody is our authority is not known yet.
    Device { key: KeyFingerprint, id: SpiffeId },
}

impl Presented {
    /// Fails on what is neither, so that it never reaches anybody who has to decide.
    pub fn read(leaf: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let certificate = parse(leaf)?;
        let key = KeyFingerprint::of_spki(certificate.public_key().raw);
        if is_self_signed(&certificate) {
            return Ok(Self::SelfSigned { key });
        }
        Ok(Self::Device {
            key,
            id: device_of(&certificate)?,
        })
    }

    /// The key that the certificate is for.
    pub fn key(&self) -> KeyFingerprint {
        match self {
            Self::SelfSigned { key } | Self::Device { key, .. } => *key,
        }
    }
}

/// Reads one certificate and nothing after it.
pub(crate) fn parse<'a>(
    der: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, CertificateError> {
    match parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateError::BadEncoding),
    }
}

/// Equal names alone prove nothing: anybody can copy the issuer into the subject.
fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject() == certificate.issuer() && certificate.verify_signature(None).is_ok()
}

/// Exactly one URI, as SPIFFE demands: with two, it would be our choice whom to believe.
fn device_of(certificate: &X509Certificate<'_>) -> Result<SpiffeId, CertificateError> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_| CertificateError::BadEncoding)?;
    let names = extension
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| {
        if let GeneralName::URI(uri) = name {
            Some(*uri)
        } else {
            None
        }
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri
            .parse()
            .map_err(|_| CertificateError::ApplicationVerificationFailure),
        _ => Err(CertificateError::ApplicationVerificationFailure),
    }
}
