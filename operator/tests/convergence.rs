//! The operator may die between any two effects, and two may act at once: the cluster ends the same.
//!
//! A pretended cluster holds the objects. The real plans are made for it, and their changes carried out one at a time,
//! with the API server's rules: what exists cannot be created, and what changed since it was read cannot be written.

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "a test: what cannot be fails it"
)]

mod world;

use std::collections::BTreeSet;

use jiff::Timestamp;
use world::{Order, World, at};

/// What a day at a cluster looks like, from the making of codes to their end.
const MORNING: i64 = 10;
const EVENING: i64 = 5000;

/// Lives through morning and evening. `dies` says before which effects the operator dies.
fn live(mut world: World, order: Order, dies: &dyn Fn(usize) -> bool) -> World {
    for second in [MORNING, EVENING] {
        world.now = at(second);
        world.settle(order, dies);
    }
    world
}

fn now() -> Timestamp {
    at(MORNING)
}

#[test]
fn the_day_ends_as_it_should() {
    let end = live(World::new(now()), Order::Forward, &|_| false);
    assert_eq!(
        end.summary(),
        [
            "code active: Expired",
            "code automatic: Used",
            "code new: Expired",
            "code used: Used",
            "device clock: Trusted, certificate 2",
            "device early: Trusted, certificate 1",
            "device fan: Trusted, certificate 1",
            "device kettle: Trusted, certificate 2",
            "device lamp: Trusted, certificate 1",
            "device pod: Trusted, certificate 1",
            "request again: Issued -> kettle",
            "request automatic: Issued -> fan",
            "request denied: Denied",
            "request garbage: Failed InvalidCsr",
            "request gateway: Issued -> lamp",
            "request pod: Issued -> pod",
            "request raced: Failed Superseded",
            "request waiting: Expired",
            "secret clock-mtls: ca.crt tls.crt",
            "secret fan-mtls: ca.crt tls.crt",
            "secret kettle-mtls: ca.crt tls.crt",
            "secret lamp-mtls: ca.crt tls.crt",
            "secret pod-mtls: ca.crt tls.crt tls.key",
        ]
    );
    assert_eq!(end.signed, 5);
    assert_eq!(end.stale_secrets(), [""; 0]);
    // What it had before stays known: after a renewal, and after it was paired again.
    for device in ["clock", "kettle"] {
        assert_eq!(end.former_certificates(device), [1], "{device}");
    }
    assert_eq!(end.former_certificates("lamp"), [0; 0]);
    let renewed = end.renewal("clock");
    assert_eq!(
        (renewed.generation, renewed.secret_generation),
        (Some(2), Some(2))
    );
    let early = end.renewal("early");
    assert!(early.chain.is_none());
    assert!(early.refused.unwrap().starts_with("too early"));
}

#[test]
fn what_was_reached_is_not_changed_again() {
    let mut end = live(World::new(now()), Order::Forward, &|_| false);
    let effects = end.effects;
    end.settle(Order::Forward, &|_| false);
    end.settle(Order::Reverse, &|_| false);
    assert_eq!(end.effects, effects);
}

#[test]
fn the_order_of_the_objects_does_not_matter() {
    let forward = live(World::new(now()), Order::Forward, &|_| false);
    let reverse = live(World::new(now()), Order::Reverse, &|_| false);
    assert_eq!(forward.picture(), reverse.picture());
}

#[test]
fn an_operator_that_dies_before_any_effect_is_carried_on_by_the_next() {
    let undisturbed = live(World::new(now()), Order::Forward, &|_| false);
    assert!(undisturbed.effects > 20, "{}", undisturbed.effects);
    for dies_at in 0..undisturbed.effects {
        let end = live(World::new(now()), Order::Forward, &|effect| {
            effect == dies_at
        });
        assert_eq!(
            end.picture(),
            undisturbed.picture(),
            "died before effect {dies_at}"
        );
        assert_eq!(
            end.signed, undisturbed.signed,
            "nothing is signed twice: died before effect {dies_at}"
        );
        assert_eq!(end.stale_secrets(), [""; 0], "died before effect {dies_at}");
    }
}

#[test]
fn an_operator_may_die_twice() {
    let undisturbed = live(World::new(now()), Order::Forward, &|_| false);
    for first in 0..undisturbed.effects {
        for second in [first + 1, first + 2, first + 5] {
            let end = live(World::new(now()), Order::Reverse, &|effect| {
                effect == first || effect == second
            });
            assert_eq!(
                end.picture(),
                undisturbed.picture(),
                "died before effects {first} and {second}"
            );
        }
    }
}

#[test]
fn two_operators_that_act_on_the_same_sight_do_what_one_does() {
    let undisturbed = live(World::new(now()), Order::Forward, &|_| false);
    let mut seen = BTreeSet::new();
    for head_start in 0..6 {
        let mut world = World::new(now());
        for second in [MORNING, EVENING] {
            world.now = at(second);
            world.settle_by_two(head_start);
        }
        assert_eq!(
            world.picture(),
            undisturbed.picture(),
            "head start {head_start}"
        );
        assert_eq!(
            world.signed_into_a_status, undisturbed.signed_into_a_status,
            "head start {head_start}"
        );
        seen.insert(world.conflicts > 0);
    }
    assert!(
        seen.contains(&true),
        "they never got in each other's way: the test tests nothing"
    );
}
