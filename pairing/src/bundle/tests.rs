use proptest::{prelude::*, test_runner::TestRunner};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, PublicKeyData as _, SigningKey as _,
};

use super::*;

const DOMAIN: &str = "home.example";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        Self::with(KeyPair::generate().unwrap(), |params| {
            params.distinguished_name.push(DnType::CommonName, name);
        })
    }

    fn with(key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        change(&mut params);
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    fn pin(&self) -> KeyFingerprint {
        KeyFingerprint::of_spki(&self.0.key().subject_public_key_info())
    }

    fn sign(&self, bundle: &Bundle) -> Signature {
        Signature {
            by: self.pin(),
            bytes: self.0.key().sign(&bundle.to_be_signed()).unwrap(),
        }
    }

    fn signed(&self, sequence: u64, members: &[&Self]) -> SignedBundle {
        let bundle = bundle(sequence, members);
        let signature = self.sign(&bundle);
        SignedBundle::new(bundle, vec![signature]).unwrap()
    }
}

fn bundle(sequence: u64, members: &[&Authority]) -> Bundle {
    Bundle::new(
        DOMAIN,
        sequence,
        members.iter().map(|one| one.der()).collect(),
    )
    .unwrap()
}

fn verify(
    signed: &SignedBundle,
    sequence: u64,
    held: &[&Authority],
) -> Result<Bundle, NotAccepted> {
    let authorities: Vec<_> = held.iter().map(|one| one.der()).collect();
    signed.verify(&Held {
        trust_domain: DOMAIN,
        sequence,
        authorities: &authorities,
    })
}

#[test]
fn a_signed_bundle_is_read_back_whole() {
    let (ours, next) = (Authority::new("ours"), Authority::new("next"));
    let signed = ours.signed(7, &[&next, &ours, &next]);
    let bytes = signed.to_bytes();
    assert!(bytes.len() <= MAX_BYTES);
    let read = SignedBundle::from_bytes(&bytes).unwrap();
    assert_eq!(read, signed);
    let accepted = verify(&read, 3, &[&ours]).unwrap();
    assert_eq!(accepted.sequence(), 7);
    assert_eq!(accepted.authorities().len(), 2, "each once");
}

#[test]
fn only_who_is_trusted_already_can_say_who_is_trusted() {
    let (ours, next, foreign) = (
        Authority::new("ours"),
        Authority::new("next"),
        Authority::new("foreign"),
    );
    let both = ours.signed(8, &[&ours, &next]);
    let mut false_signature = ours.sign(&bundle(8, &[&ours]));
    false_signature.by = ours.pin();
    let over_other_content =
        SignedBundle::new(bundle(8, &[&ours, &foreign]), vec![false_signature]).unwrap();
    let claimed = {
        let bundle = bundle(8, &[&ours, &foreign]);
        let mut signature = foreign.sign(&bundle);
        signature.by = ours.pin();
        SignedBundle::new(bundle, vec![signature]).unwrap()
    };
    for (case, signed, sequence, held, expected) in [
        ("our own", &both, 7, &[&ours][..], Ok(8)),
        ("the same once more", &both, 8, &[&ours, &next], Ok(8)),
        (
            "an authority that signs for itself",
            &foreign.signed(8, &[&ours, &foreign]),
            7,
            &[&ours],
            Err(NotAccepted::NotSigned),
        ),
        (
            "the next one before the device holds it",
            &next.signed(8, &[&next]),
            7,
            &[&ours],
            Err(NotAccepted::NotSigned),
        ),
        (
            "the next one once the device holds it",
            &next.signed(9, &[&next]),
            8,
            &[&ours, &next],
            Ok(9),
        ),
        (
            "a signature over other content",
            &over_other_content,
            7,
            &[&ours],
            Err(NotAccepted::FalseSignature),
        ),
        (
            "a signature in our name",
            &claimed,
            7,
            &[&ours],
            Err(NotAccepted::FalseSignature),
        ),
        (
            "an old bundle with an authority that was removed since",
            &both,
            9,
            &[&ours],
            Err(NotAccepted::Older),
        ),
        (
            "an old bundle that changes nothing",
            &both,
            9,
            &[&next, &ours],
            Ok(9),
        ),
        (
            "the same sequence with other authorities",
            &both,
            8,
            &[&ours],
            Err(NotAccepted::Contradicts),
        ),
        ("the first one", &both, 0, &[&ours], Ok(8)),
        (
            "no authority held",
            &both,
            0,
            &[],
            Err(NotAccepted::NotSigned),
        ),
    ] {
        let sequence = verify(signed, sequence, held).map(|bundle| bundle.sequence());
        assert_eq!(sequence, expected, "{case}");
    }
}

#[test]
fn a_bundle_of_another_trust_domain_is_not_accepted() {
    let ours = Authority::new("ours");
    let bundle = Bundle::new("evil.example", 8, vec![ours.der()]).unwrap();
    let signature = ours.sign(&bundle);
    let signed = SignedBundle::new(bundle, vec![signature]).unwrap();
    let refused = Err(NotAccepted::AnotherTrustDomain);
    assert_eq!(verify(&signed, 0, &[&ours]), refused);
    assert_eq!(signed.verify_pinned(ours.pin(), DOMAIN), refused);
}

#[test]
fn both_authorities_of_a_rotation_may_sign() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let bundle = bundle(8, &[&old, &new]);
    let signatures = vec![old.sign(&bundle), new.sign(&bundle)];
    let signed = SignedBundle::new(bundle, signatures).unwrap();
    let signed = SignedBundle::from_bytes(&signed.to_bytes()).unwrap();
    for held in [&[&old][..], &[&new], &[&old, &new]] {
        verify(&signed, 7, held).unwrap();
    }
    // One that is damaged counts where the device can judge it.
    let mut damaged = signed.clone();
    let of_old = damaged
        .signatures
        .iter_mut()
        .find(|signature| signature.by == old.pin())
        .unwrap();
    of_old.bytes[8] ^= 1;
    verify(&damaged, 7, &[&new]).unwrap();
    for held in [&[&old][..], &[&old, &new]] {
        assert_eq!(verify(&damaged, 7, held), Err(NotAccepted::FalseSignature));
    }
}

#[test]
fn a_pinned_authority_signs_the_first_bundle_itself_and_is_in_it() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let pinned = |signed: &SignedBundle| signed.verify_pinned(ours.pin(), DOMAIN);
    pinned(&ours.signed(1, &[&ours, &foreign])).unwrap();
    let refused = Err(NotAccepted::NotSigned);
    assert_eq!(pinned(&ours.signed(1, &[&foreign])), refused);
    assert_eq!(pinned(&foreign.signed(1, &[&ours, &foreign])), refused);
}

#[test]
fn every_member_is_an_authority_and_the_bundle_is_bounded() {
    let ours = Authority::new("ours");
    let key = || KeyPair::generate().unwrap();
    let leaf = CertificateParams::default().self_signed(&key()).unwrap();
    let only_encrypts = Authority::with(key(), |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    });
    let garbage = CertificateDer::from(b"garbage".to_vec());
    let trailing = CertificateDer::from([&ours.der()[..], &[0]].concat());
    for (case, member) in [
        ("a leaf", leaf.der().clone()),
        ("one that may not sign", only_encrypts.der()),
        ("garbage", garbage),
        ("a certificate and more", trailing),
    ] {
        let made = Bundle::new(DOMAIN, 1, vec![ours.der(), member]);
        assert_eq!(made, Err(NotAccepted::NotAnAuthority), "{case}");
    }
    let many: Vec<_> = (0..=MAX_AUTHORITIES)
        .map(|number| Authority::new(&format!("number {number}")).der())
        .collect();
    for (case, domain, sequence, members) in [
        ("no authority", DOMAIN, 1, vec![]),
        ("too many authorities", DOMAIN, 1, many),
        ("no trust domain", "", 1, vec![ours.der()]),
        ("a long trust domain", &"x".repeat(254), 1, vec![ours.der()]),
        ("no sequence", DOMAIN, 0, vec![ours.der()]),
        (
            "a huge sequence",
            DOMAIN,
            MAX_SEQUENCE + 1,
            vec![ours.der()],
        ),
    ] {
        let made = Bundle::new(domain, sequence, members);
        assert_eq!(made, Err(NotAccepted::Unreadable), "{case}");
    }
    let bundle = bundle(1, &[&ours]);
    let signature = ours.sign(&bundle);
    let with = |signatures| SignedBundle::new(bundle.clone(), signatures);
    for (case, signatures) in [
        ("no signature", vec![]),
        ("twice the same", vec![signature.clone(), signature.clone()]),
        (
            "a signature without bytes",
            vec![Signature {
                bytes: vec![],
                ..signature.clone()
            }],
        ),
        (
            "a long signature",
            vec![Signature {
                bytes: vec![0x30; 73],
                ..signature
            }],
        ),
    ] {
        assert_eq!(with(signatures), Err(NotAccepted::Unreadable), "{case}");
    }
}

#[test]
fn an_authority_with_another_kind_of_key_cannot_sign() {
    let other = Authority::with(
        KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        |_| {},
    );
    let bundle = bundle(1, &[&other]);
    let signature = Signature {
        bytes: vec![0x30; 72],
        ..other.sign(&bundle)
    };
    let signed = SignedBundle::new(bundle, vec![signature]).unwrap();
    assert_eq!(
        verify(&signed, 0, &[&other]),
        Err(NotAccepted::FalseSignature)
    );
}

#[test]
fn a_length_out_of_bounds_is_refused_before_anything_is_read() {
    assert_eq!(SignedBundle::from_bytes(&[]), Err(NotAccepted::Missing));
    assert_eq!(
        SignedBundle::from_bytes(&vec![1; MAX_BYTES + 1]),
        Err(NotAccepted::TooLong)
    );
}

/// Whatever a carrier does to the bytes, the device gets the authorities that were signed, or none.
#[test]
fn a_changed_byte_or_a_cut_never_changes_who_is_trusted() {
    let (ours, next) = (Authority::new("ours"), Authority::new("next"));
    let bundle = bundle(7, &[&ours, &next]);
    let signatures = vec![ours.sign(&bundle), next.sign(&bundle)];
    let signed = SignedBundle::new(bundle.clone(), signatures).unwrap();
    let good = signed.to_bytes();
    let accepted = |bytes: &[u8]| {
        let signed = SignedBundle::from_bytes(bytes)?;
        assert_eq!(signed.to_bytes(), bytes, "one encoding");
        let pinned = signed.verify_pinned(ours.pin(), DOMAIN);
        assert!(pinned.is_err() || pinned.as_ref() == Ok(&bundle));
        verify(&signed, 0, &[&ours])
    };
    for length in 0..good.len() {
        accepted(&good[..length]).unwrap_err();
    }
    accepted(&[&good[..], &[0]].concat()).unwrap_err();
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        cases: 2000,
        ..ProptestConfig::default()
    });
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    runner
        .run(&changes, |changes| {
            let mut bytes = good.clone();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(other) = accepted(&bytes) {
                prop_assert_eq!(&other, &bundle);
            }
            Ok(())
        })
        .unwrap();
    let noise = prop::collection::vec(any::<u8>(), 0..600);
    runner
        .run(&noise, |bytes| {
            prop_assert!(accepted(&bytes).is_err());
            Ok(())
        })
        .unwrap();
}
