//! The key that is born on this device and never leaves it.

use std::fmt;

use pairing::key::KeyFingerprint;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// ECDSA P-256. Its public half is what this device is.
pub struct DeviceKey(KeyPair);

/// What this device presents in a TLS handshake.
pub struct Credentials {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl DeviceKey {
    pub fn generate() -> Result<Self, rcgen::Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self)
    }

    /// Says what is wrong, and never what was read.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let damaged = || "no PKCS#8 private key in PEM".to_owned();
        let pem = str::from_utf8(pem).map_err(|_| damaged())?;
        KeyPair::from_pem(pem).map(Self).map_err(|_| damaged())
    }

    /// PKCS#8. For the key's file alone.
    pub(super) fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::of_spki(&self.0.subject_public_key_info())
    }

    /// What a device presents before it is paired. Only its key counts, so it never runs out.
    pub fn self_signed(&self) -> Result<Credentials, rcgen::Error> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "fairlead enrollee");
        let certificate = params.self_signed(&self.0)?.der().clone();
        Ok(self.certified([certificate]))
    }

    /// PKCS#10, DER. Proves possession; its names are empty, for they are the operator's to choose.
    pub fn certificate_request(&self) -> Result<Vec<u8>, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        Ok(params.serialize_request(&self.0)?.der().to_vec())
    }

    pub fn certified(
        &self,
        chain: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Credentials {
        Credentials {
            chain: chain.into_iter().collect(),
            key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.0.serialize_der())),
        }
    }
}

/// The public half alone.
impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_and_shows_no_secret() {
        let key = DeviceKey::generate().unwrap();
        let read = DeviceKey::from_pem(key.to_pem().as_bytes()).unwrap();
        assert_eq!(read.fingerprint(), key.fingerprint());
        assert_eq!(
            format!("{key:?}"),
            format!("DeviceKey({})", key.fingerprint())
        );
    }

    #[test]
    fn a_self_signed_certificate_is_read_as_a_strangers() {
        let key = DeviceKey::generate().unwrap();
        let leaf = &key.self_signed().unwrap().chain[0];
        assert_eq!(
            pairing::certificate::Presented::read(leaf).unwrap(),
            pairing::certificate::Presented::SelfSigned {
                key: key.fingerprint()
            }
        );
    }
}
