//! Outputs that are stored before their end is told, one decision by one.

use std::time::Duration;

use proto::node::{self, FailureCode, Outcome};

use super::{
    order::Ending,
    plan::{Effect, Event, Plan},
    plan_tests::{NOW, World, cancel, dispatch, ends, starts, uid, with},
};
use crate::{
    host::clock::Moment,
    journal::{Phase, Record},
};

const STORED: FailureCode = FailureCode::ArtefactNotStored;

fn artefact() -> node::Artefact {
    node::Artefact {
        sha256: vec![7; 32],
        size_bytes: 3_000_000,
        media_type: "text/plain".to_owned(),
    }
}

fn kept(text: &str) -> Event {
    Event::Completed {
        uid: uid(text),
        ending: Ending::Artefact(artefact()),
    }
}

fn refused(text: &str) -> Event {
    Event::NotStored {
        uid: uid(text),
        message: "the store is full".to_owned(),
    }
}

fn late() -> Moment {
    NOW.after(Duration::from_secs(31))
}

fn failed(text: &str) -> Vec<(String, Outcome, Option<FailureCode>)> {
    vec![(text.to_owned(), Outcome::Failed, Some(STORED))]
}

fn storing() -> World {
    World::new().after(&[dispatch("a")]).after(&[kept("a")])
}

fn told(plan: &Plan) -> Option<&node::Result> {
    plan.records.iter().find_map(|record| {
        if let Record::Finished { result, .. } = record {
            Some(result)
        } else {
            None
        }
    })
}

#[test]
fn an_output_is_recorded_before_it_is_offered_and_told_when_it_is_stored() {
    let running = World::new().after(&[dispatch("a")]);
    let plan = running.plan(&[kept("a")]);
    assert!(
        matches!(&plan.records[..], [Record::Kept { .. }]),
        "{plan:?}"
    );
    assert!(
        plan.effects
            .iter()
            .any(|effect| matches!(effect, Effect::Store { .. }))
    );
    let world = running.after(&[kept("a")]);
    assert_eq!(world.ledger.phase(&uid("a")), Some(Phase::Storing));
    assert!(world.plan(&[]).effects.is_empty(), "nothing is told yet");
    let plan = world.plan(&[Event::Stored(uid("a"))]);
    let result = told(&plan).unwrap();
    assert_eq!(result.outcome(), Outcome::Succeeded);
    assert_eq!(
        (&result.artefact, &result.output_sha256),
        (&Some(artefact()), &vec![7; 32])
    );
    assert!(plan.effects.contains(&Effect::TellResult(uid("a"))));
    let world = world.after(&[Event::Stored(uid("a"))]);
    assert!(
        world.plan(&[Event::Stored(uid("a"))]).records.is_empty(),
        "once is enough"
    );
}

#[test]
fn one_that_stores_takes_nobodys_place() {
    let world = World::new().after(&["a", "b", "c"].map(dispatch));
    assert_eq!(starts(&world.plan(&[kept("a")])), ["c"]);
}

#[test]
fn what_is_not_stored_is_a_failure_that_says_that_it_ran() {
    for (why, plan) in [
        ("full", storing().plan(&[refused("a")])),
        ("cancelled", storing().plan(&[cancel("a")])),
        ("time", storing().plan_at(late(), &[])),
    ] {
        assert_eq!(ends(&plan), failed("a"), "{why}");
        let message = &told(&plan).unwrap().failure.as_ref().unwrap().message;
        assert!(
            message.contains("it ran") && message.contains(why),
            "{message}"
        );
    }
}

#[test]
fn it_is_never_run_again() {
    let world = storing();
    for again in [world.plan(&[dispatch("a")]), {
        let disk = [
            Record::Accepted {
                uid: uid("a"),
                name: "check-a".to_owned(),
                mark: None,
            },
            told_kept(&World::new().after(&[dispatch("a")]).plan(&[kept("a")])),
        ];
        World::restarted(&disk).plan(&[dispatch("a")])
    }] {
        assert_eq!(starts(&again), [""; 0]);
        assert!(again.records.is_empty());
    }
}

fn told_kept(plan: &Plan) -> Record {
    plan.records[0].clone()
}

#[test]
fn after_a_restart_the_gateway_says_how_much_time_is_left() {
    let mut world = storing();
    world.jobs.store(
        uid("a"),
        super::jobs::Storing {
            result: world.jobs.get_storing(&uid("a")).unwrap().result.clone(),
            deadline: None,
        },
    );
    assert!(
        world.plan_at(late(), &[]).records.is_empty(),
        "nobody knows"
    );
    let again = with("a", |order| {
        order.deadline = NOW.after(Duration::from_secs(5));
    });
    let world = world.after(&[again]);
    let then = NOW.after(Duration::from_secs(6));
    assert_eq!(ends(&world.plan_at(then, &[])), failed("a"));
}

#[test]
fn what_cannot_be_recorded_is_not_offered_and_recorded_later() {
    let world = World::new().after(&[dispatch("a")]);
    let plan = world.plan(&[kept("a")]);
    let (plan, again) = plan.unrecorded(&world.jobs, &world.ledger);
    assert!(plan.effects.is_empty(), "{plan:?}");
    let world = world.after(&again);
    assert_eq!(world.ledger.phase(&uid("a")), Some(Phase::Storing));

    let plan = world.plan(&[Event::Stored(uid("a"))]);
    let (plan, again) = plan.unrecorded(&world.jobs, &world.ledger);
    assert!(plan.effects.is_empty(), "{plan:?}");
    let plan = world.plan(&again);
    assert_eq!(told(&plan).unwrap().outcome(), Outcome::Succeeded);
}
