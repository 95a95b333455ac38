//! Whether another certificate takes the place of the one at hand. Pure but for the arithmetic of signatures.

use pairing::{certificate::Presented, key::KeyFingerprint};
use proto::node::Renewed;

use crate::{
    enrol::issued::{Refusal, Told},
    state::{
        Identity,
        identity::{Der, Life},
    },
};

/// Why the one at hand stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotTaken {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the certificate names another device")]
    AnotherDevice,
    #[error("the certificate ends no later than the one at hand")]
    NotNewer,
}

/// The identity with the new certificate; nothing of an answer that fails one check is kept.
///
/// Whoever signed it is trusted already, and is still trusted by who keeps the new bundle: a gateway can neither bring an
/// authority of its own nor leave this device with a certificate that it would not believe itself.
pub(super) fn check(
    renewed: Renewed,
    key: KeyFingerprint,
    at_hand: &Identity,
) -> Result<Identity, NotTaken> {
    let told = Told::read(renewed.chain, renewed.bundle, key)?;
    let leaf = at_hand.chain().next().ok_or(Refusal::Unreadable)?;
    let Ok(Presented::Device { id, .. }) = Presented::read(&leaf) else {
        return Err(Refusal::Unreadable.into());
    };
    if told.id != id {
        return Err(NotTaken::AnotherDevice);
    }
    told.verify(at_hand.bundle.iter().map(|der| der.0.clone()))?;
    told.verify(told.bundle.iter().cloned())?;
    let ends = |leaf| Life::of(leaf).map(|life| life.not_after);
    let (old, new) = (ends(&leaf), ends(&told.leaf));
    let (Ok(old), Ok(new)) = (old, new) else {
        return Err(Refusal::Unreadable.into());
    };
    if new <= old {
        return Err(NotTaken::NotNewer);
    }
    Ok(Identity {
        chain: told.chain.into_iter().map(Der).collect(),
        bundle: told.bundle.into_iter().map(Der).collect(),
        ..at_hand.clone()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        enrol::issued::tests::{damage, damaged, runner},
        renewal::fixtures::{Authority, World},
    };

    #[test]
    fn whatever_becomes_of_an_answer_on_the_way_the_old_one_stays_or_the_new_one_comes() {
        let world = World::new();
        let good = world.renewed();
        runner()
            .run(&(damage(), damage()), |(chain, bundle)| {
                let taken = world.check(Renewed {
                    chain: damaged(good.chain.clone(), &chain),
                    bundle: damaged(good.bundle.clone(), &bundle),
                });
                if let Ok(identity) = taken {
                    prop_assert_eq!(&identity.chain[0].0[..], &good.chain[0][..]);
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
    fn an_authority_that_comes_along_with_one_that_is_trusted_is_trusted_from_then_on() {
        let world = World::new();
        let next = Authority::new();
        let mut both = world.renewed();
        both.bundle.push(next.der());
        let identity = world.check(both).unwrap();
        assert_eq!(identity.bundle.len(), 2);

        let of_the_next = Renewed {
            chain: vec![next.leaf(&world.key, World::NAME, 2042), next.der()],
            bundle: vec![next.der()],
        };
        let refused = Err(NotTaken::Refused(Refusal::NotSigned));
        assert_eq!(world.check(of_the_next.clone()), refused);
        check(of_the_next, world.key.fingerprint(), &identity).unwrap();
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
                "no bundle",
                with(&|r| r.bundle.clear()),
                Refusal::Count.into(),
            ),
            (
                "a thousand certificates",
                with(&|r| r.bundle = vec![r.bundle[0].clone(); 1000]),
                Refusal::Count.into(),
            ),
            (
                "garbage",
                with(&|r| r.chain[0] = b"garbage".to_vec()),
                Refusal::Unreadable.into(),
            ),
            (
                "garbage to be trusted",
                with(&|r| r.bundle[0] = b"garbage".to_vec()),
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
                    r.bundle = vec![stranger.authority.der()];
                }),
                Refusal::NotSigned.into(),
            ),
            (
                "a foreign authority with our bundle",
                with(&|r| r.chain[0] = foreign()),
                Refusal::NotSigned.into(),
            ),
            (
                "a bundle that does not hold the authority",
                with(&|r| r.bundle = vec![stranger.authority.der()]),
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
}
