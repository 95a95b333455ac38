//! What a certificate that was issued says.

use jiff::Timestamp;
use pairing::{bundle::CertificateDer, key::KeyFingerprint};
use sha2::{Digest as _, Sha256};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    parse_x509_certificate,
    pem::{Pem, parse_x509_pem},
};

use super::moments::from_x509;

/// The first certificate of a PEM text, read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Leaf {
    /// Empty where there is none.
    pub common_name: String,
    pub dns_names: Vec<String>,
    pub uris: Vec<String>,
    pub key: KeyFingerprint,
    /// Hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub is_authority: bool,
    pub for_clients: bool,
    pub for_servers: bool,
}

/// Reads the first certificate of a PEM text; `None` where there is none.
pub fn leaf(pem: &str) -> Option<Leaf> {
    let der = first(pem)?;
    let certificate = parse(&der)?;
    let names = certificate.subject_alternative_name().ok()?;
    let names = names
        .map(|names| names.value.general_names.as_slice())
        .unwrap_or_default();
    let dns_names = names.iter().filter_map(|name| {
        if let GeneralName::DNSName(name) = name {
            Some((*name).to_owned())
        } else {
            None
        }
    });
    let uris = names.iter().filter_map(|name| {
        if let GeneralName::URI(uri) = name {
            Some((*uri).to_owned())
        } else {
            None
        }
    });
    let purposes = certificate
        .extended_key_usage()
        .ok()?
        .map(|usage| usage.value);
    let common_name = certificate
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok());
    Some(Leaf {
        common_name: common_name.unwrap_or_default().to_owned(),
        dns_names: dns_names.collect(),
        uris: uris.collect(),
        key: KeyFingerprint::of_spki(certificate.public_key().raw),
        serial: hex::encode(certificate.raw_serial()),
        fingerprint: hex::encode(Sha256::digest(&der)),
        not_before: from_x509(certificate.validity().not_before)?,
        not_after: from_x509(certificate.validity().not_after)?,
        is_authority: certificate.is_ca(),
        for_clients: purposes.is_some_and(|purposes| purposes.client_auth),
        for_servers: purposes.is_some_and(|purposes| purposes.server_auth),
    })
}

/// Most certificates that are read of one text.
const MOST: usize = 16;

/// The keys of the authorities' certificates in a PEM text; empty where none can be read.
pub fn authorities(pem: &str) -> Vec<KeyFingerprint> {
    let ders = Pem::iter_from_buffer(pem.as_bytes()).take(MOST);
    ders.filter_map(|pem| {
        let pem = pem.ok().filter(|pem| pem.label == "CERTIFICATE")?;
        let certificate = parse(&pem.contents)?;
        certificate
            .is_ca()
            .then(|| KeyFingerprint::of_spki(certificate.public_key().raw))
    })
    .collect()
}

/// The first certificate of a PEM text, DER.
pub fn der(pem: &str) -> Option<CertificateDer<'static>> {
    first(pem).map(CertificateDer::from)
}

/// Whether the first certificate of `pem` was signed by that of `authority`.
pub fn is_signed_by(pem: &str, authority: &str) -> bool {
    let (Some(leaf), Some(authority)) = (first(pem), first(authority)) else {
        return false;
    };
    let (Some(leaf), Some(authority)) = (parse(&leaf), parse(&authority)) else {
        return false;
    };
    leaf.issuer() == authority.subject()
        && leaf.verify_signature(Some(authority.public_key())).is_ok()
}

fn first(pem: &str) -> Option<Vec<u8>> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    (pem.label == "CERTIFICATE").then_some(pem.contents)
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    match parse_x509_certificate(der) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_has_no_leaf() {
        for wrong in [
            "",
            "garbage",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert_eq!(leaf(wrong), None, "{wrong}");
            assert!(!is_signed_by(wrong, wrong), "{wrong}");
            assert_eq!(authorities(wrong), [], "{wrong}");
        }
    }
}
