//! What an approver gave this device: its certificate, whom to trust, where to go.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{CertificateError, RootCertStore, pki_types::CertificateDer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use x509_parser::prelude::parse_x509_certificate;

/// `identity.json`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Namespace of the Device.
    pub namespace: String,
    /// Name of the Device.
    pub device: String,
    /// Leaf first.
    pub chain: Vec<Der>,
    /// Authorities that gateways' certificates may come from. Changed only by a bundle that one of them signed.
    pub bundle: Vec<Der>,
    /// Sequence of the signed bundle that they came with. 0 in a file of before there were any.
    #[serde(default)]
    pub bundle_sequence: u64,
    /// `HOST:PORT` of gateways that this device reached and verified, the last one first. In a file of before: as the last
    /// gateway told; they stay until verified ones take their place.
    pub gateways: Vec<String>,
    /// `HOST:PORT` that this device was paired at. Kept for the day when none of the others can be reached.
    pub paired_at: String,
}

impl Identity {
    /// The authorities of the bundle.
    pub fn authorities(&self) -> Vec<CertificateDer<'static>> {
        self.bundle.iter().map(|der| der.0.clone()).collect()
    }

    pub fn chain(&self) -> impl Iterator<Item = CertificateDer<'static>> {
        self.chain.iter().map(|der| der.0.clone())
    }

    /// Whom to trust.
    pub fn roots(&self) -> Result<RootCertStore, rustls::Error> {
        roots_of(self.authorities())
    }

    /// When the certificate holds.
    pub fn life(&self) -> Result<Life, CertificateError> {
        self.chain
            .first()
            .ok_or(CertificateError::BadEncoding)
            .and_then(|leaf| Life::of(&leaf.0))
    }

    /// Every address worth trying, each once.
    pub fn addresses(&self) -> Vec<String> {
        let mut addresses = self.gateways.clone();
        if !addresses.contains(&self.paired_at) {
            addresses.push(self.paired_at.clone());
        }
        addresses
    }
}

pub(crate) fn roots_of(
    certificates: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// From when to when a certificate holds, in seconds since 1970.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Life {
    pub not_before: i64,
    pub not_after: i64,
}

/// Where a moment lies in a life.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum LifeState {
    NotYetValid,
    Valid,
    Expired,
}

impl Life {
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (_, certificate) =
            parse_x509_certificate(certificate).map_err(|_| CertificateError::BadEncoding)?;
        Ok(Self {
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }

    pub fn at(self, now: i64) -> LifeState {
        if now < self.not_before {
            LifeState::NotYetValid
        } else if now > self.not_after {
            LifeState::Expired
        } else {
            LifeState::Valid
        }
    }

    pub fn is_over_at(self, now: i64) -> bool {
        self.at(now) == LifeState::Expired
    }
}

/// A certificate; base64 in the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Der(pub CertificateDer<'static>);

impl Serialize for Der {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Der {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let der = STANDARD
            .decode(text)
            .map_err(|_| de::Error::custom("a certificate is not base64"))?;
        Ok(Self(CertificateDer::from(der)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let identity = Identity {
            namespace: "kitchen".to_owned(),
            device: "lamp".to_owned(),
            chain: vec![Der(CertificateDer::from(vec![1, 2, 3]))],
            bundle: vec![],
            bundle_sequence: 7,
            gateways: vec!["a:1".to_owned()],
            paired_at: "b:1".to_owned(),
        };
        let text = serde_json::to_string(&identity).unwrap();
        assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), identity);
        assert_eq!(identity.addresses(), ["a:1", "b:1"]);
        // Not a certificate: an error, no panic.
        identity.life().unwrap_err();
    }

    #[test]
    fn a_file_of_before_there_were_signed_bundles_is_read() {
        let text = r#"{
            "namespace": "kitchen", "device": "lamp", "chain": ["AQID"], "bundle": ["BAUG"],
            "gateways": ["a:1", "b:1"], "pairedAt": "c:1"
        }"#;
        let identity: Identity = serde_json::from_str(text).unwrap();
        assert_eq!(identity.bundle_sequence, 0);
        assert_eq!(identity.addresses(), ["a:1", "b:1", "c:1"]);
    }

    #[test]
    fn a_life_has_an_end() {
        let life = Life {
            not_before: 10,
            not_after: 20,
        };
        for (now, expected) in [
            (9, LifeState::NotYetValid),
            (10, LifeState::Valid),
            (20, LifeState::Valid),
            (21, LifeState::Expired),
        ] {
            assert_eq!(life.at(now), expected);
        }
    }
}
