//! Certificates, good and bad.

use std::path::Path;

use pairing::key::KeyFingerprint;
use proto::SERVER_NAME;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub const TRUST_DOMAIN: &str = "home.example";

/// A chain, leaf first, and the key of its leaf.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Verifiers look for a root by its name first.
    pub fn new(name: &str) -> Self {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
        }
    }

    pub fn certificate(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn server(&self) -> (Identity, KeyPair) {
        let name = SanType::DnsName(SERVER_NAME.try_into().unwrap());
        self.sign(vec![name], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A device of our trust domain.
    pub fn device(&self, name: &str) -> Identity {
        self.client(&format!("spiffe://{TRUST_DOMAIN}/ns/kitchen/device/{name}"))
    }

    pub fn client(&self, uri: &str) -> Identity {
        let name = SanType::URI(uri.try_into().unwrap());
        self.sign(vec![name], ExtendedKeyUsagePurpose::ClientAuth).0
    }

    /// A chain for a key that a device has, leaf first, PEM.
    pub fn renewed(&self, key: &DeviceKey) -> String {
        let leaf = named("leaf").signed_by(&key.0, &self.issuer).unwrap();
        format!("{}{}", certificate_pem(leaf.der()), self.pem())
    }

    /// A device whose certificate expires then.
    pub fn brief_device(&self, name: &str, not_after: time::OffsetDateTime) -> Identity {
        let uri = format!("spiffe://{TRUST_DOMAIN}/ns/kitchen/device/{name}");
        let mut params = named("leaf");
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = not_after;
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            chain: vec![leaf.der().clone(), self.certificate()],
            key: private(&key),
        }
    }

    pub fn client_of_two_names(&self) -> Identity {
        let names = ["one", "two"].map(|name| {
            let uri = format!("spiffe://{TRUST_DOMAIN}/ns/kitchen/device/{name}");
            SanType::URI(uri.as_str().try_into().unwrap())
        });
        self.sign(names.to_vec(), ExtendedKeyUsagePurpose::ClientAuth)
            .0
    }

    fn sign(&self, names: Vec<SanType>, purpose: ExtendedKeyUsagePurpose) -> (Identity, KeyPair) {
        let mut params = named("leaf");
        params.subject_alt_names = names;
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (
            Identity {
                chain: vec![leaf.der().clone(), self.certificate()],
                key: private(&key),
            },
            key,
        )
    }

    /// What the operator mounts for a gateway.
    pub fn write(&self, folder: &Path) {
        let (identity, key) = self.server();
        let chain: String = identity
            .chain
            .iter()
            .map(|der| certificate_pem(der))
            .collect();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("ca.crt"), self.pem()).unwrap();
        std::fs::write(folder.join("tls.crt"), chain).unwrap();
    }
}

/// The key that a device makes for itself.
pub struct DeviceKey(KeyPair);

impl DeviceKey {
    pub fn generate() -> Self {
        Self(KeyPair::generate().unwrap())
    }

    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::of_spki(&self.0.subject_public_key_info())
    }

    pub fn self_signed(&self) -> Identity {
        let certificate = named("enrollee").self_signed(&self.0).unwrap();
        Identity {
            chain: vec![certificate.der().clone()],
            key: private(&self.0),
        }
    }

    /// PKCS#10, DER.
    pub fn signing_request(&self) -> Vec<u8> {
        CertificateParams::default()
            .serialize_request(&self.0)
            .unwrap()
            .der()
            .to_vec()
    }
}

/// Its subject is its issuer, but another key signed it.
pub fn pretends_to_be_self_signed() -> Identity {
    let params = named("enrollee");
    let signer = KeyPair::generate().unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = params
        .signed_by(&key, &Issuer::from_params(&params, &signer))
        .unwrap();
    Identity {
        chain: vec![leaf.der().clone()],
        key: private(&key),
    }
}

pub fn certificate_pem(der: &CertificateDer<'_>) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let lines: Vec<String> = STANDARD
        .encode(der)
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}
