//! A device with a certificate, and whoever signs certificates.

use pairing::{
    bundle::{Bundle, Signature, SignedBundle},
    key::KeyFingerprint,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, PublicKeyData as _, SanType,
    SigningKey as _,
};
use rustls::pki_types::CertificateDer;

use super::answer::{self, NotTaken};
use crate::state::{DeviceKey, Identity, identity::Der};
use proto::node::Renewed;

/// Of the bundle that the device holds.
pub(super) const SEQUENCE: u64 = 7;

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    /// A bundle with these authorities, signed by this one.
    pub(super) fn bundle(&self, sequence: u64, members: &[&Self]) -> Vec<u8> {
        self.bundle_of("home.example", sequence, members)
    }

    pub(super) fn bundle_of(
        &self,
        trust_domain: &str,
        sequence: u64,
        members: &[&Self],
    ) -> Vec<u8> {
        let members = members.iter().map(|one| one.0.der().clone()).collect();
        let bundle = Bundle::new(trust_domain, sequence, members).unwrap();
        let signature = Signature {
            by: KeyFingerprint::of_spki(&self.0.key().subject_public_key_info()),
            bytes: self.0.key().sign(&bundle.to_be_signed()).unwrap(),
        };
        let signed = SignedBundle::new(bundle, vec![signature]).unwrap();
        signed.to_bytes()
    }

    /// From 2020 to that year.
    pub(super) fn leaf(&self, key: &DeviceKey, name: &str, until: i32) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = DistinguishedName::new();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let request = key.certificate_request().unwrap();
        let key = CertificateSigningRequestParams::from_der(&request.into())
            .unwrap()
            .public_key;
        params.signed_by(&key, &self.0).unwrap().der().to_vec()
    }
}

pub(super) struct World {
    pub(super) key: DeviceKey,
    pub(super) authority: Authority,
    /// With a certificate until 2040.
    pub(super) identity: Identity,
}

impl World {
    pub(super) const NAME: &str = "spiffe://home.example/ns/kitchen/device/lamp";

    pub(super) fn new() -> Self {
        Self::of(DeviceKey::generate().unwrap())
    }

    pub(super) fn of(key: DeviceKey) -> Self {
        let authority = Authority::new();
        let der = |der: Vec<u8>| Der(CertificateDer::from(der));
        let identity = Identity {
            namespace: "kitchen".to_owned(),
            device: "lamp".to_owned(),
            chain: vec![
                der(authority.leaf(&key, Self::NAME, 2040)),
                der(authority.der()),
            ],
            bundle: vec![der(authority.der())],
            bundle_sequence: SEQUENCE,
            gateways: vec!["gateway.example:7443".to_owned()],
            paired_at: "127.0.0.1:7443".to_owned(),
        };
        Self {
            key,
            authority,
            identity,
        }
    }

    /// A good answer.
    pub(super) fn renewed(&self) -> Renewed {
        Renewed {
            chain: vec![
                self.authority.leaf(&self.key, Self::NAME, 2041),
                self.authority.der(),
            ],
            signed_bundle: self.authority.bundle(SEQUENCE, &[&self.authority]),
        }
    }

    pub(super) fn check(&self, renewed: Renewed) -> Result<Identity, NotTaken> {
        answer::check(renewed, self.key.fingerprint(), &self.identity)
    }
}
