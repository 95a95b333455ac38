use proptest::prelude::*;

use super::*;
use crate::{
    enrol::issued::tests::{damage, damaged, runner},
    renewal::fixtures::{Authority, SEQUENCE, World},
};

#[test]
fn whatever_becomes_of_an_answer_on_the_way_the_old_one_stays_or_the_new_one_comes() {
    let world = World::new();
    let next = Authority::new();
    let good = Renewed {
        signed_bundle: world
            .authority
            .bundle(SEQUENCE + 1, &[&world.authority, &next]),
        ..world.renewed()
    };
    let expected = world.check(good.clone()).unwrap();
    runner()
        .run(&(damage(), damage()), |(chain, bundle)| {
            let taken = world.check(Renewed {
                chain: damaged(good.chain.clone(), &chain),
                signed_bundle: damaged(vec![good.signed_bundle.clone()], &bundle).remove(0),
            });
            if let Ok(identity) = taken {
                prop_assert_eq!(&identity.chain[0].0[..], &good.chain[0][..]);
                prop_assert_eq!(&identity.bundle, &expected.bundle);
                prop_assert_eq!(identity.gateways, world.identity.gateways.clone());
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_newer_one_takes_the_place_and_the_rest_stays() {
    let world = World::new();
    let renewed = world.check(world.renewed()).unwrap();
    assert_ne!(renewed.chain, world.identity.chain);
    let back = Identity {
        chain: world.identity.chain.clone(),
        ..renewed
    };
    assert_eq!(back, world.identity);
}

#[test]
fn an_authority_that_one_that_is_trusted_vouches_for_is_trusted_from_then_on() {
    let world = World::new();
    let next = Authority::new();
    let both = Renewed {
        signed_bundle: world
            .authority
            .bundle(SEQUENCE + 1, &[&world.authority, &next]),
        ..world.renewed()
    };
    let identity = world.check(both).unwrap();
    assert_eq!(
        (identity.bundle.len(), identity.bundle_sequence),
        (2, SEQUENCE + 1)
    );

    let of_the_next = Renewed {
        chain: vec![next.leaf(&world.key, World::NAME, 2042), next.der()],
        signed_bundle: next.bundle(SEQUENCE + 2, &[&next]),
    };
    let refused = Err(NotAccepted::NotSigned.into());
    assert_eq!(world.check(of_the_next.clone()), refused);
    let alone = check(of_the_next, world.key.fingerprint(), &identity).unwrap();
    assert_eq!(alone.bundle.len(), 1);
    // A gateway brings the old one back, which was given up because somebody stole its key.
    let replayed = Renewed {
        chain: vec![next.leaf(&world.key, World::NAME, 2043), next.der()],
        signed_bundle: world
            .authority
            .bundle(SEQUENCE + 1, &[&world.authority, &next]),
    };
    let refused = Err(NotAccepted::NotSigned.into());
    assert_eq!(check(replayed, world.key.fingerprint(), &alone), refused);
}

#[test]
fn a_device_of_before_there_were_signed_bundles_accepts_its_authoritys_first() {
    let world = World::new();
    let before = Identity {
        bundle_sequence: 0,
        ..world.identity.clone()
    };
    let renewed = check(world.renewed(), world.key.fingerprint(), &before).unwrap();
    assert_eq!(renewed.bundle_sequence, SEQUENCE);
    let stranger = Authority::new();
    let foreign = Renewed {
        signed_bundle: stranger.bundle(SEQUENCE, &[&world.authority, &stranger]),
        ..world.renewed()
    };
    assert_eq!(
        check(foreign, world.key.fingerprint(), &before),
        Err(NotAccepted::NotSigned.into())
    );
}

/// What a gateway with stolen keys may send beside a good certificate: every row leaves the identity at hand as it is.
#[test]
fn no_bundle_of_a_hostile_gateway_is_accepted() {
    let (world, stranger) = (World::new(), World::new());
    let both = [&world.authority, &stranger.authority];
    let bundles: [(_, Vec<u8>, NotAccepted); 9] = [
        ("no bundle", vec![], NotAccepted::Missing),
        (
            "garbage to be trusted",
            b"garbage".to_vec(),
            NotAccepted::Unreadable,
        ),
        ("a huge bundle", vec![1; 100_000], NotAccepted::TooLong),
        (
            "half a bundle",
            world.renewed().signed_bundle[..200].to_vec(),
            NotAccepted::Unreadable,
        ),
        (
            "the gateway's own authority beside ours",
            stranger.authority.bundle(SEQUENCE + 1, &both),
            NotAccepted::NotSigned,
        ),
        (
            "the gateway's own authority under a signature of ours over another bundle",
            swapped(
                &world.authority.bundle(SEQUENCE, &[&world.authority]),
                &stranger.authority.bundle(SEQUENCE, &both),
            ),
            NotAccepted::FalseSignature,
        ),
        (
            "an older bundle with an authority that is trusted no more",
            world.authority.bundle(SEQUENCE - 1, &both),
            NotAccepted::Older,
        ),
        (
            "other authorities under the same sequence",
            world.authority.bundle(SEQUENCE, &both),
            NotAccepted::Contradicts,
        ),
        (
            "another trust domain's bundle",
            world
                .authority
                .bundle_of("evil.example", SEQUENCE + 1, &[&world.authority]),
            NotAccepted::AnotherTrustDomain,
        ),
    ];
    for (case, signed_bundle, expected) in bundles {
        let result = world.check(Renewed {
            signed_bundle,
            ..world.renewed()
        });
        assert_eq!(result, Err(expected.into()), "{case}");
    }
}

#[test]
fn what_a_hostile_gateway_sends_is_kept_out() {
    let (world, stranger) = (World::new(), World::new());
    let with = |change: &dyn Fn(&mut Renewed)| {
        let mut renewed = world.renewed();
        change(&mut renewed);
        world.check(renewed)
    };
    let leaf = |name, year| world.authority.leaf(&world.key, name, year);
    let foreign = || stranger.authority.leaf(&world.key, World::NAME, 2041);
    for (case, result, expected) in [
        ("nothing", with(&|r| r.chain.clear()), Refusal::Count.into()),
        (
            "a thousand certificates",
            with(&|r| r.chain = vec![r.chain[0].clone(); 1000]),
            Refusal::Count.into(),
        ),
        (
            "garbage",
            with(&|r| r.chain[0] = b"garbage".to_vec()),
            Refusal::Unreadable.into(),
        ),
        (
            "another key",
            with(&|r| {
                r.chain[0] = world.authority.leaf(&stranger.key, World::NAME, 2041);
            }),
            Refusal::AnotherKey.into(),
        ),
        (
            "our own signature",
            with(&|r| r.chain[0] = world.key.self_signed().unwrap().chain[0].to_vec()),
            Refusal::Unreadable.into(),
        ),
        (
            "another device",
            with(&|r| r.chain[0] = leaf("spiffe://home.example/ns/kitchen/device/oven", 2041)),
            NotTaken::AnotherDevice,
        ),
        (
            "another namespace",
            with(&|r| r.chain[0] = leaf("spiffe://home.example/ns/cellar/device/lamp", 2041)),
            NotTaken::AnotherDevice,
        ),
        (
            "another trust domain",
            with(&|r| r.chain[0] = leaf("spiffe://evil.example/ns/kitchen/device/lamp", 2041)),
            NotTaken::AnotherDevice,
        ),
        (
            "a foreign authority with its own bundle",
            with(&|r| {
                r.chain = vec![foreign(), stranger.authority.der()];
                r.signed_bundle = stranger.authority.bundle(SEQUENCE, &[&stranger.authority]);
            }),
            NotAccepted::NotSigned.into(),
        ),
        (
            "a foreign authority with our bundle",
            with(&|r| r.chain[0] = foreign()),
            Refusal::NotSigned.into(),
        ),
        (
            "a bundle that does not hold the authority",
            with(&|r| {
                r.signed_bundle = world.authority.bundle(SEQUENCE + 1, &[&stranger.authority]);
            }),
            Refusal::NotSigned.into(),
        ),
        (
            "an older one",
            with(&|r| r.chain[0] = leaf(World::NAME, 2039)),
            NotTaken::NotNewer,
        ),
        (
            "one that ends with ours",
            with(&|r| r.chain[0] = leaf(World::NAME, 2040)),
            NotTaken::NotNewer,
        ),
    ] {
        assert_eq!(result, Err(expected), "{case}");
    }
}

/// The content of one bundle with the signatures of another one: as docs/design/2026-11-30-signed-bundle.md encodes them.
fn swapped(signatures_of: &[u8], content_of: &[u8]) -> Vec<u8> {
    let end_of_content = |bytes: &[u8]| 3 + usize::from(u16::from_be_bytes([bytes[1], bytes[2]]));
    let content = &content_of[..end_of_content(content_of)];
    [content, &signatures_of[end_of_content(signatures_of)..]].concat()
}
