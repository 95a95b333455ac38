//! Checks a certificate before anything of it is believed, whether it is this device's first or another one. Pure but for
//! the arithmetic of signatures.

use pairing::{
    bundle::{NotAccepted, SignedBundle},
    certificate::Presented,
    key::KeyFingerprint,
    spiffe::SpiffeId,
};
use proto::node::Issued;
use rustls::{
    pki_types::{CertificateDer, UnixTime},
    server::WebPkiClientVerifier,
};

use std::{sync::Arc, time::Duration};

use crate::state::{
    Identity,
    identity::{Der, Life, roots_of},
};

/// Certificates in a chain, at most.
const MAX_CERTIFICATES: usize = 16;

/// Why a certificate is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("no certificate, or more than {MAX_CERTIFICATES}")]
    Count,
    #[error("a certificate that cannot be read")]
    Unreadable,
    #[error("the certificate is for another key")]
    AnotherKey,
    #[error("the certificate does not name the device that the answer names")]
    AnotherName,
    #[error("the certificate was not signed by one of the authorities to trust")]
    NotSigned,
    #[error(transparent)]
    Bundle(#[from] NotAccepted),
}

/// What there is to compare with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    pub(super) key: KeyFingerprint,
    pub(super) authority: KeyFingerprint,
    /// Where the certificate came from.
    pub(super) gateway: &'a str,
}

/// The identity in an answer; nothing of an answer that fails one check is kept.
///
/// The authorities come from the bundle that the authority of this pairing signed, and the certificate must come from one
/// of them. The gateways that the answer names were not reached yet, so none of them is kept.
pub(super) fn check(issued: Issued, expected: Expected<'_>) -> Result<Identity, Refusal> {
    let Issued {
        chain,
        signed_bundle,
        namespace,
        device,
        gateways: _,
    } = issued;
    let told = Told::read(chain, expected.key)?;
    let id = &told.id;
    if *id
        != SpiffeId::new(&id.trust_domain, &namespace, &device).map_err(|_| Refusal::AnotherName)?
    {
        return Err(Refusal::AnotherName);
    }
    let bundle = SignedBundle::from_bytes(&signed_bundle)?
        .verify_pinned(expected.authority, &id.trust_domain)?;
    told.verify(bundle.authorities())?;

    Ok(Identity {
        namespace,
        device,
        chain: told.chain.into_iter().map(Der).collect(),
        bundle: bundle.authorities().iter().cloned().map(Der).collect(),
        bundle_sequence: bundle.sequence(),
        gateways: Vec::new(),
        paired_at: expected.gateway.to_owned(),
    })
}

fn certificates(der: Vec<Vec<u8>>) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    if der.is_empty() || der.len() > MAX_CERTIFICATES {
        return Err(Refusal::Count);
    }
    Ok(der.into_iter().map(CertificateDer::from).collect())
}

/// Certificates that can be read and are for our key. Who signed them is not known yet.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) leaf: CertificateDer<'static>,
    /// Leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Whom the leaf names.
    pub(crate) id: SpiffeId,
}

impl Told {
    pub(crate) fn read(chain: Vec<Vec<u8>>, key: KeyFingerprint) -> Result<Self, Refusal> {
        let chain = certificates(chain)?;
        let leaf = chain.first().ok_or(Refusal::Count)?.clone();
        let Ok(Presented::Device { key: its, id }) = Presented::read(&leaf) else {
            return Err(Refusal::Unreadable);
        };
        if its != key {
            return Err(Refusal::AnotherKey);
        }
        Ok(Self { leaf, chain, id })
    }

    /// As a gateway will, but at the first moment of the certificate's own life: that it comes from one of the
    /// authorities can be known whatever this device's clock says.
    pub(crate) fn verify(&self, authorities: &[CertificateDer<'static>]) -> Result<(), Refusal> {
        let roots = roots_of(authorities.iter().cloned()).map_err(|_| Refusal::Unreadable)?;
        let life = Life::of(&self.leaf).map_err(|_| Refusal::Unreadable)?;
        let start = u64::try_from(life.not_before).map_err(|_| Refusal::Unreadable)?;
        let start = UnixTime::since_unix_epoch(Duration::from_secs(start));
        let others = self.chain.get(1..).unwrap_or_default();
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), pairing::crypto())
            .build()
            .map_err(|_| Refusal::Unreadable)?
            .verify_client_cert(&self.leaf, others, start)
            .map(|_| ())
            .map_err(|_| Refusal::NotSigned)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use pairing::bundle::{Bundle, Signature};
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
        IsCa, KeyPair, PublicKeyData as _, SanType, SigningKey as _,
    };

    use proptest::{prelude::*, test_runner::TestRunner};

    use super::*;
    use crate::state::DeviceKey;

    struct World {
        key: DeviceKey,
        authority: CertifiedIssuer<'static, KeyPair>,
    }

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority");
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// A bundle of home.example with these authorities, signed by one of them or by another one.
    pub(crate) fn signed_bundle(
        by: &CertifiedIssuer<'static, KeyPair>,
        sequence: u64,
        members: &[&CertifiedIssuer<'static, KeyPair>],
    ) -> Vec<u8> {
        let members = members.iter().map(|one| one.der().clone()).collect();
        let bundle = Bundle::new("home.example", sequence, members).unwrap();
        let signature = Signature {
            by: KeyFingerprint::of_spki(&by.key().subject_public_key_info()),
            bytes: by.key().sign(&bundle.to_be_signed()).unwrap(),
        };
        SignedBundle::new(bundle, vec![signature])
            .unwrap()
            .to_bytes()
    }

    impl World {
        fn new() -> Self {
            Self {
                key: DeviceKey::generate().unwrap(),
                authority: authority(),
            }
        }

        fn leaf(key: &DeviceKey, by: &CertifiedIssuer<'static, KeyPair>) -> Vec<u8> {
            let mut params = CertificateParams::default();
            let name = "spiffe://home.example/ns/kitchen/device/lamp";
            params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.distinguished_name = rcgen::DistinguishedName::new();
            // A time that webpki can read.
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2040, 1, 1);
            let request = key.certificate_request().unwrap();
            let key = rcgen::CertificateSigningRequestParams::from_der(&request.into())
                .unwrap()
                .public_key;
            params.signed_by(&key, by).unwrap().der().to_vec()
        }

        fn issued(&self) -> Issued {
            Issued {
                chain: vec![
                    Self::leaf(&self.key, &self.authority),
                    self.authority.der().to_vec(),
                ],
                signed_bundle: signed_bundle(&self.authority, 7, &[&self.authority]),
                namespace: "kitchen".to_owned(),
                device: "lamp".to_owned(),
                gateways: vec!["gateway.example:7443".to_owned(), "\u{1b}[2J".to_owned()],
            }
        }

        fn check(&self, issued: Issued) -> Result<Identity, Refusal> {
            check(
                issued,
                Expected {
                    key: self.key.fingerprint(),
                    authority: KeyFingerprint::of_spki(
                        &self.authority.key().subject_public_key_info(),
                    ),
                    gateway: "127.0.0.1:7443",
                },
            )
        }
    }

    #[test]
    fn what_was_asked_for_is_taken() {
        let world = World::new();
        let identity = world.check(world.issued()).unwrap();
        assert_eq!(
            (identity.namespace, identity.device),
            ("kitchen".to_owned(), "lamp".to_owned())
        );
        assert_eq!(identity.bundle_sequence, 7);
        assert_eq!(identity.gateways, [""; 0], "none of them was reached");
        assert_eq!(identity.paired_at, "127.0.0.1:7443");
    }

    /// What a hostile gateway does to the certificates of an answer: which, where, what.
    pub(crate) type Damage = Vec<(usize, usize, u8)>;

    pub(crate) fn damage() -> impl Strategy<Value = Damage> {
        prop::collection::vec(any::<(usize, usize, u8)>(), 0..4)
    }

    pub(crate) fn damaged(mut certificates: Vec<Vec<u8>>, damage: &Damage) -> Vec<Vec<u8>> {
        for (which, at, byte) in damage {
            let which = which % certificates.len();
            let at = at % certificates[which].len().max(1);
            match byte % 5 {
                0 => certificates[which].truncate(at),
                1 => certificates.push(certificates[which].clone()),
                2 => certificates.swap(0, which),
                _ => {
                    if let Some(old) = certificates[which].get_mut(at) {
                        *old = *byte;
                    }
                }
            }
        }
        certificates
    }

    pub(crate) fn runner() -> TestRunner {
        TestRunner::new(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })
    }

    #[test]
    fn whatever_becomes_of_an_answer_on_the_way_no_other_certificate_is_taken() {
        let world = World::new();
        let good = world.issued();
        let text = prop_oneof![3 => Just(None), 1 => ".{0,80}".prop_map(Some)];
        let answers = (damage(), damage(), text.clone(), text);
        runner()
            .run(&answers, |(chain, bundle, namespace, device)| {
                let taken = world.check(Issued {
                    chain: damaged(good.chain.clone(), &chain),
                    signed_bundle: damaged(vec![good.signed_bundle.clone()], &bundle).remove(0),
                    namespace: namespace.unwrap_or_else(|| good.namespace.clone()),
                    device: device.unwrap_or_else(|| good.device.clone()),
                    gateways: vec!["\u{1b}[2J".to_owned(), String::new()],
                });
                if let Ok(identity) = taken {
                    prop_assert_eq!(&identity.chain[0].0[..], &good.chain[0][..]);
                    prop_assert_eq!(identity.authorities(), [world.authority.der().clone()]);
                    prop_assert_eq!(identity.device, "lamp");
                    prop_assert_eq!(identity.namespace, "kitchen");
                    prop_assert!(identity.gateways.is_empty());
                }
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn what_is_forged_is_refused() {
        let world = World::new();
        let stranger = World::new();
        let with = |change: &dyn Fn(&mut Issued)| {
            let mut issued = world.issued();
            change(&mut issued);
            world.check(issued)
        };
        for (what, result, expected) in [
            ("no chain", with(&|i| i.chain.clear()), Refusal::Count),
            (
                "no bundle",
                with(&|i| i.signed_bundle.clear()),
                NotAccepted::Missing.into(),
            ),
            (
                "a thousand certificates",
                with(&|i| i.chain = vec![i.chain[0].clone(); 1000]),
                Refusal::Count,
            ),
            (
                "a huge bundle",
                with(&|i| i.signed_bundle = vec![1; 100_000]),
                NotAccepted::TooLong.into(),
            ),
            (
                "half a bundle",
                with(&|i| i.signed_bundle.truncate(200)),
                NotAccepted::Unreadable.into(),
            ),
            (
                "the gateway's own authority beside ours",
                with(&|i| {
                    let both = [&world.authority, &stranger.authority];
                    i.signed_bundle = signed_bundle(&stranger.authority, 7, &both);
                }),
                NotAccepted::NotSigned.into(),
            ),
            (
                "garbage",
                with(&|i| i.chain[0] = b"garbage".to_vec()),
                Refusal::Unreadable,
            ),
            (
                "a certificate for another key",
                with(&|i| i.chain[0] = World::leaf(&stranger.key, &world.authority)),
                Refusal::AnotherKey,
            ),
            (
                "another device's name",
                with(&|i| i.device = "oven".to_owned()),
                Refusal::AnotherName,
            ),
            (
                "another namespace",
                with(&|i| i.namespace = "cellar".to_owned()),
                Refusal::AnotherName,
            ),
            (
                "the bundle of another authority, and a leaf from it",
                with(&|i| {
                    i.chain[0] = World::leaf(&world.key, &stranger.authority);
                    i.signed_bundle = signed_bundle(&stranger.authority, 7, &[&stranger.authority]);
                }),
                NotAccepted::NotSigned.into(),
            ),
            (
                "a leaf of another authority with our bundle",
                with(&|i| i.chain[0] = World::leaf(&world.key, &stranger.authority)),
                Refusal::NotSigned,
            ),
        ] {
            assert_eq!(result, Err(expected), "{what}");
        }
    }
}
