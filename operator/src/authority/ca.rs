//! The authority's certificate and key, and what it signs. No I/O and no clock; randomness for serials and new keys.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use pairing::{
    bundle::{Bundle, NotAccepted, Signature, SignedBundle},
    key::KeyFingerprint,
    spiffe::SpiffeId,
};
use rand_core::{OsRng, RngCore as _};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SigningKey as _,
};
use sha2::{Digest as _, Sha256};

use super::{
    chain,
    csr::DeviceKey,
    moments::{to_rcgen, whole_second},
};

/// The name that every gateway's certificate carries, whatever address it is reached at. Devices expect it; `proto` has
/// the same one, and the operator must not depend on that.
pub const GATEWAY_NAME: &str = "gateway.fairlead.internal";

/// Ten years: rotation is staged and takes a person, so it must be rare.
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// How far behind a device's clock may be.
const BACKDATED: SignedDuration = SignedDuration::from_mins(5);

/// What keeps the authority from working.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("make the certificate")]
    Rcgen(#[from] rcgen::Error),
    #[error("the certificate is no authority's, or cannot be read")]
    Certificate,
    #[error("the key is not that of the certificate")]
    AnotherKey,
    #[error("the authority is of another trust domain: {0:?}")]
    AnotherTrustDomain(String),
    #[error("the key is not of the kind ECDSA P-256")]
    AnotherKindOfKey,
    #[error("the name cannot stand in a certificate")]
    Name(#[from] pairing::spiffe::ParseError),
    #[error("make the signed trust bundle")]
    Bundle(#[from] NotAccepted),
}

/// The authority: it signs what it is told to. Its key is never shown.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    not_after: Timestamp,
    pin: KeyFingerprint,
    trust_domain: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({}, {})", self.trust_domain, self.pin)
    }
}

/// A certificate that was just signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Issued {
    /// PEM, leaf first, the authority's own certificate last: a device that knows nothing but a pin looks for it there.
    pub chain: String,
    /// Hexadecimal.
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Authority {
    /// Makes an authority: its certificate and its key, PEM.
    pub fn generate(trust_domain: &str, now: Timestamp) -> Result<(String, String), Error> {
        let key = new_key()?;
        let now = whole_second(now);
        let mut params = params(now - BACKDATED, now + AUTHORITY_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Verifiers find a root by its name first: two authorities must not share one.
        params
            .distinguished_name
            .push(DnType::CommonName, common_name(trust_domain));
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Fairlead");
        let certificate = params.self_signed(&key)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Reads an authority back, and checks that it is one and of this trust domain.
    pub fn from_pem(certificate: &str, key: &str, trust_domain: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key).map_err(|_| Error::AnotherKey)?;
        if !key.is_compatible(&PKCS_ECDSA_P256_SHA256) {
            return Err(Error::AnotherKindOfKey);
        }
        let root = chain::leaf(certificate).ok_or(Error::Certificate)?;
        if !root.is_authority {
            return Err(Error::Certificate);
        }
        let pin = KeyFingerprint::of_spki(&key.subject_public_key_info());
        if root.key != pin {
            return Err(Error::AnotherKey);
        }
        if root.common_name != common_name(trust_domain) {
            return Err(Error::AnotherTrustDomain(root.common_name));
        }
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(certificate, key)?,
            certificate: certificate.to_owned(),
            not_after: root.not_after,
            pin,
            trust_domain: trust_domain.to_owned(),
        })
    }

    /// What a pairing URI carries.
    pub fn pin(&self) -> KeyFingerprint {
        self.pin
    }

    /// PEM: what devices and gateways verify each other with.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// PEM, for the Secret that the authority lives in and for nothing else.
    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    pub(super) fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Signs that devices trust this authority and no other.
    pub fn sign_bundle(&self, sequence: u64) -> Result<SignedBundle, Error> {
        let own = chain::der(&self.certificate).ok_or(Error::Certificate)?;
        let bundle = Bundle::new(&self.trust_domain, sequence, vec![own])?;
        let signature = Signature {
            by: self.pin,
            bytes: self.issuer.key().sign(&bundle.to_be_signed())?,
        };
        Ok(SignedBundle::new(bundle, vec![signature])?)
    }

    /// Signs for a device. Of its request, only the key is used; its name is the Device's.
    pub fn sign_device(
        &self,
        key: &DeviceKey,
        namespace: &str,
        device: &str,
        ttl: SignedDuration,
        now: Timestamp,
    ) -> Result<Issued, Error> {
        let id = SpiffeId::new(&self.trust_domain, namespace, device)?.to_string();
        let name = SanType::URI(id.as_str().try_into()?);
        #[cfg(debug_assertions)]
        let ttl = super::brief::life(ttl);
        self.sign(
            key,
            vec![name],
            ExtendedKeyUsagePurpose::ClientAuth,
            ttl,
            now,
        )
    }

    /// Signs for the gateways, which share one key.
    pub fn sign_gateway(
        &self,
        key: &KeyPair,
        dns_names: &[String],
        ttl: SignedDuration,
        now: Timestamp,
    ) -> Result<Issued, Error> {
        let names = std::iter::once(GATEWAY_NAME)
            .chain(dns_names.iter().map(String::as_str))
            .map(|name| Ok(SanType::DnsName(name.try_into()?)))
            .collect::<Result<_, rcgen::Error>>()?;
        self.sign(key, names, ExtendedKeyUsagePurpose::ServerAuth, ttl, now)
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        purpose: ExtendedKeyUsagePurpose,
        ttl: SignedDuration,
        now: Timestamp,
    ) -> Result<Issued, Error> {
        let now = whole_second(now);
        let not_before = now - BACKDATED;
        let not_after = (now + ttl).min(self.not_after);
        let mut serial = [0; 16];
        OsRng.fill_bytes(&mut serial);
        // An integer of 16 bytes, positive and not shorter by chance, so that all serials look alike.
        serial[0] = serial[0] & 0x7f | 0x40;
        let mut params = params(not_before, not_after);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.subject_alt_names = names;
        params.extended_key_usages = vec![purpose];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, &self.issuer)?;
        Ok(Issued {
            chain: format!("{}{}", leaf.pem(), self.certificate),
            serial: hex::encode(serial),
            not_before,
            not_after,
        })
    }
}

/// A new P-256 key.
pub fn new_key() -> Result<KeyPair, Error> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

fn common_name(trust_domain: &str) -> String {
    // A common name has 64 characters at most; a long trust domain is told from others by its digest.
    let name = format!("Fairlead CA {trust_domain}");
    if name.len() <= 64 {
        return name;
    }
    format!(
        "Fairlead CA {}",
        &hex::encode(Sha256::digest(trust_domain))[..40]
    )
}

fn params(not_before: Timestamp, not_after: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = to_rcgen(not_before);
    params.not_after = to_rcgen(not_after);
    // A leaf has no subject: its name is in the extension, where verifiers look.
    params.distinguished_name = DistinguishedName::new();
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::csr;

    const DOMAIN: &str = "test.example";

    fn now() -> Timestamp {
        "2026-03-01T12:00:00.7Z".parse().unwrap()
    }

    fn authority() -> Authority {
        let (certificate, key) = Authority::generate(DOMAIN, now()).unwrap();
        Authority::from_pem(&certificate, &key, DOMAIN).unwrap()
    }

    const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

    fn device_key() -> DeviceKey {
        csr::tests::request(&new_key().unwrap()).1
    }

    #[test]
    fn a_devices_certificate_names_the_device_and_nothing_else() {
        let authority = authority();
        let key = device_key();
        let issued = authority
            .sign_device(
                &key,
                "kitchen",
                "lamp",
                SignedDuration::from_hours(24),
                now(),
            )
            .unwrap();
        let leaf = chain::leaf(&issued.chain).unwrap();
        assert_eq!(leaf.uris, ["spiffe://test.example/ns/kitchen/device/lamp"]);
        assert_eq!(leaf.dns_names, [""; 0]);
        assert_eq!(leaf.common_name, "");
        assert_eq!(leaf.key, key.fingerprint());
        assert!(leaf.for_clients && !leaf.for_servers && !leaf.is_authority);
        assert_eq!(leaf.serial, issued.serial);
        assert_eq!(leaf.not_before.to_string(), "2026-03-01T11:55:00Z");
        assert_eq!(leaf.not_after.to_string(), "2026-03-02T12:00:00Z");
        assert_eq!(
            (leaf.not_before, leaf.not_after),
            (issued.not_before, issued.not_after)
        );
        assert!(
            issued.chain.ends_with(authority.certificate()),
            "the authority's own certificate is last"
        );
        assert!(chain::is_signed_by(&issued.chain, authority.certificate()));
    }

    #[test]
    fn a_certificate_does_not_outlive_its_authority() {
        let authority = authority();
        let late = authority.not_after - SignedDuration::from_hours(1);
        let issued = authority
            .sign_device(
                &device_key(),
                "kitchen",
                "lamp",
                SignedDuration::from_hours(24),
                late,
            )
            .unwrap();
        assert_eq!(issued.not_after, authority.not_after);
    }

    #[test]
    fn two_certificates_of_one_key_differ_by_their_serial() {
        let authority = authority();
        let key = device_key();
        let sign = || {
            authority
                .sign_device(&key, "a", "b", SignedDuration::from_hours(1), now())
                .unwrap()
                .serial
        };
        let (first, second) = (sign(), sign());
        assert_ne!(first, second);
        assert_eq!(first.len(), 32);
    }

    #[test]
    fn a_gateways_certificate_is_for_servers() {
        let authority = authority();
        let issued = authority
            .sign_gateway(&new_key().unwrap(), &["gw.example".to_owned()], WEEK, now())
            .unwrap();
        let leaf = chain::leaf(&issued.chain).unwrap();
        assert_eq!(leaf.dns_names, [GATEWAY_NAME, "gw.example"]);
        assert_eq!(leaf.uris, [""; 0]);
        assert!(leaf.for_servers && !leaf.for_clients);
    }

    #[test]
    fn only_an_authority_of_the_trust_domain_is_read() {
        let (certificate, key) = Authority::generate(DOMAIN, now()).unwrap();
        let (_, another) = Authority::generate(DOMAIN, now()).unwrap();
        assert!(matches!(
            Authority::from_pem(&certificate, &another, DOMAIN),
            Err(Error::AnotherKey)
        ));
        assert!(matches!(
            Authority::from_pem("garbage", &key, DOMAIN),
            Err(Error::Certificate)
        ));
        assert!(matches!(
            Authority::from_pem(&certificate, &key, "other.example"),
            Err(Error::AnotherTrustDomain(_))
        ));
        let authority = authority();
        let leaf_key = new_key().unwrap();
        let leaf = authority.sign_gateway(&leaf_key, &[], WEEK, now()).unwrap();
        assert!(matches!(
            Authority::from_pem(&leaf.chain, &leaf_key.serialize_pem(), DOMAIN),
            Err(Error::Certificate)
        ));
    }

    #[test]
    fn an_authority_with_a_key_that_cannot_sign_bundles_is_not_read() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut params = params(now(), now() + AUTHORITY_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params
            .distinguished_name
            .push(DnType::CommonName, common_name(DOMAIN));
        let certificate = params.self_signed(&key).unwrap();
        assert!(matches!(
            Authority::from_pem(&certificate.pem(), &key.serialize_pem(), DOMAIN),
            Err(Error::AnotherKindOfKey)
        ));
    }

    #[test]
    fn a_device_that_holds_the_authority_accepts_the_bundle_that_it_signs() {
        let authority = authority();
        let signed = authority.sign_bundle(3).unwrap();
        let text = pairing::bundle::MAX_BYTES.div_ceil(3) * 4;
        assert!(text <= 16_384, "the schema of the resources takes so much");
        let bundle = signed.verify_pinned(authority.pin(), DOMAIN).unwrap();
        assert_eq!(bundle.sequence(), 3);
        let own = chain::der(authority.certificate()).unwrap();
        assert_eq!(bundle.authorities(), [own]);
    }

    #[test]
    fn the_authority_says_what_it_is_for() {
        let root = chain::leaf(authority().certificate()).unwrap();
        assert!(root.is_authority);
        assert_eq!(root.common_name, "Fairlead CA test.example");
        assert_eq!(root.not_after.to_string(), "2036-02-27T12:00:00Z");
        let long = "x".repeat(200);
        let (certificate, key) = Authority::generate(&long, now()).unwrap();
        Authority::from_pem(&certificate, &key, &long).unwrap();
    }

    #[test]
    fn debug_shows_no_key() {
        assert!(
            !format!("{:?}", authority())
                .to_lowercase()
                .contains("private")
        );
    }
}
