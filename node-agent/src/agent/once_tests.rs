//! Invocations with the same idempotency key, one by one; and a journal that is cut at every byte.

use std::{sync::Arc, time::Duration};

use proto::node::{self, FailureCode, Outcome};
use sha2::{Digest as _, Sha256};

use super::{
    order::{Ending, Sharing, Why},
    plan::{Effect, Event, Plan},
    plan_tests::{
        FORGETFUL, NOW, World, cancel, completed, dispatch, end, ends, mark, order, starts, uid,
        with,
    },
};
use crate::{
    host::clock::Moment,
    journal::{Bounds, Journal, Mark, Phase, Record},
};

/// One of many with the same key.
fn keyed(text: &str) -> Event {
    with(text, |order| {
        order.sharing = Sharing::With(mark("key", order));
    })
}

fn results(plan: &Plan) -> Vec<&node::Result> {
    let results = plan.records.iter().filter_map(|record| {
        if let Record::Finished { result, .. } = record {
            Some(result)
        } else {
            None
        }
    });
    results.collect()
}

/// The one end that is recorded, and whose.
fn only(plan: &Plan) -> &node::Result {
    let [result] = results(plan)[..] else {
        unreachable!("one end: {plan:?}");
    };
    result
}

fn ended(text: &str, ending: Ending) -> Event {
    Event::Completed {
        uid: uid(text),
        ending,
    }
}

#[test]
fn a_second_is_recorded_as_following_and_never_starts() {
    let first = World::new().after(&[keyed("a")]);
    let running = first.plan(&[keyed("b")]);
    let waiting = World::new()
        .after(&[dispatch("x"), dispatch("y"), keyed("a")])
        .plan(&[keyed("b")]);
    let finished = first.after(&[completed("a")]);
    let acked = finished.plan(&[keyed("b"), Event::Ack(uid("a"))]);
    for plan in [running, waiting, finished.plan(&[keyed("b")]), acked] {
        assert!(
            matches!(
                &plan.records[0],
                Record::Following { uid: of, name, follow }
                    if *of == uid("b") && name == "check-b" && follow.first_name == "check-a"
            ),
            "{plan:?}"
        );
        assert!(matches!(&plan.effects[0], Effect::Follow(order) if order.uid == uid("b")));
        assert_eq!((starts(&plan), ends(&plan)), (vec![], vec![]));
    }

    // In one batch as well; and who asks again hears nothing yet.
    let plan = World::new().plan(&[keyed("a"), keyed("b"), keyed("b")]);
    assert_eq!(starts(&plan), ["a"]);
    assert_eq!(plan.records.len(), 2);
    let world = World::new().after(&[keyed("a"), keyed("b")]);
    assert_eq!(world.plan(&[keyed("b")]).effects, []);
    assert_eq!(world.ledger.counts().waiting, 1);
    // Two keys are two.
    let other = with("c", |order| {
        order.sharing = Sharing::With(mark("other", order));
    });
    assert_eq!(starts(&world.plan(&[other])), ["c"]);
}

#[test]
fn a_second_ends_as_the_first_did() {
    for (ending, outcome, code) in [
        (Ending::Output(b"[1,2]".to_vec()), Outcome::Succeeded, None),
        (
            Ending::Failed(FailureCode::CapabilityFailed, "no oil".to_owned()),
            Outcome::Failed,
            Some(FailureCode::CapabilityFailed),
        ),
        (
            Ending::Output(vec![b'1'; 1_001]),
            Outcome::Failed,
            Some(FailureCode::OutputTooLarge),
        ),
        (
            Ending::Stopped(Why::Deadline),
            Outcome::TimedOut,
            Some(FailureCode::DeadlineExceeded),
        ),
        (
            Ending::Stopped(Why::Cancelled),
            Outcome::Cancelled,
            Some(FailureCode::Cancelled),
        ),
        (
            Ending::Stopped(Why::Shutdown),
            Outcome::Unknown,
            Some(FailureCode::AgentRestarted),
        ),
    ] {
        let before = World::new()
            .after(&[keyed("a"), keyed("b")])
            .after(&[ended("a", ending.clone())]);
        let after = World::new()
            .after(&[keyed("a")])
            .after(&[ended("a", ending.clone()), Event::Ack(uid("a"))])
            .after(&[keyed("b")]);
        for world in [before, after] {
            let plan = world.plan(&[]);
            let result = only(&plan);
            let first = &world.finished[&uid("a")];
            assert_eq!(ends(&plan), [("b".to_owned(), outcome, code)], "{ending:?}");
            assert_eq!(
                (&result.output, &result.failure),
                (&first.output, &first.failure)
            );
            assert_eq!(result.output_sha256, first.output_sha256);
            assert_eq!(
                (result.name.as_str(), result.duplicate_of.as_str()),
                ("check-b", "check-a")
            );
            assert!(first.duplicate_of.is_empty());
            assert_eq!(plan.effects[0], Effect::Leave(uid("b")));
            assert!(plan.effects.contains(&Effect::TellResult(uid("b"))));
            // And says the same for ever.
            let world = world.after(&[]);
            assert!(world.jobs.is_empty());
            let plan = world.plan(&[keyed("b")]);
            assert_eq!(plan.records, []);
            assert!(plan.effects.contains(&Effect::TellResult(uid("b"))));
        }
    }
}

#[test]
fn an_output_that_is_too_large_for_the_second_is_said_to_be() {
    for (most, outcome) in [(5, Outcome::Succeeded), (4, Outcome::Failed)] {
        let second = with("b", |order| {
            order.sharing = Sharing::With(Mark::of("key", "echo", b"1", "jane"));
            order.max_output_bytes = most;
        });
        let world = World::new()
            .after(&[keyed("a"), second])
            .after(&[ended("a", Ending::Output(b"[1,2]".to_vec()))]);
        let plan = world.plan(&[]);
        let result = only(&plan);
        assert_eq!(result.outcome(), outcome);
        assert_eq!(result.duplicate_of, "check-a");
        if outcome == Outcome::Succeeded {
            assert_eq!(result.output_sha256, Sha256::digest(b"[1,2]").to_vec());
        } else {
            let failure = result.failure.as_ref().unwrap();
            assert_eq!(failure.code(), FailureCode::OutputTooLarge);
            assert!(failure.message.contains("5 bytes where 4"), "{failure:?}");
            assert!(result.output.is_empty() && result.output_sha256.is_empty());
        }
    }
}

#[test]
fn a_cancel_of_the_second_ends_it_alone_and_one_of_the_first_both() {
    let world = World::new().after(&[keyed("a"), keyed("b"), keyed("c")]);
    let plan = world.plan(&[cancel("b")]);
    assert_eq!(
        ends(&plan),
        [end("b", Outcome::Cancelled, FailureCode::Cancelled)]
    );
    assert_eq!(only(&plan).duplicate_of, "check-a");
    assert_eq!(
        plan.effects,
        [Effect::Leave(uid("b")), Effect::TellResult(uid("b"))]
    );
    let plan = world.plan(&[cancel("a")]);
    assert_eq!(plan.effects, [Effect::Stop(uid("a"), Why::Cancelled)]);
    // What the first ended as counts: here it was done before it could be stopped.
    let world = world.after(&[cancel("a")]).after(&[completed("a")]);
    let plan = world.plan(&[]);
    let succeeded = |text: &str| (text.to_owned(), Outcome::Succeeded, None);
    assert_eq!(ends(&plan), [succeeded("b"), succeeded("c")]);

    // In one batch, and where the first waits.
    let plan = World::new().plan(&[keyed("a"), keyed("b"), cancel("b")]);
    assert_eq!(
        ends(&plan),
        [end("b", Outcome::Cancelled, FailureCode::Cancelled)]
    );
    let waits = World::new()
        .after(&[dispatch("x"), dispatch("y"), keyed("a"), keyed("b")])
        .after(&[cancel("a")]);
    assert_eq!(
        ends(&waits.plan(&[])),
        [end("b", Outcome::Cancelled, FailureCode::Cancelled)]
    );
}

#[test]
fn the_seconds_deadline_ends_the_second_while_the_first_goes_on() {
    let short = NOW.after(Duration::from_secs(5));
    let second = with("b", |order| {
        order.sharing = Sharing::With(Mark::of("key", "echo", b"1", "jane"));
        order.deadline = short;
    });
    let plan = World::new()
        .after(&[keyed("a")])
        .plan(std::slice::from_ref(&second));
    assert_eq!(plan.wake, Some(short));
    let world = World::new().after(&[keyed("a"), second]);
    assert_eq!(world.plan(&[]).wake, Some(short));
    let plan = world.plan_at(short, &[]);
    assert_eq!(
        ends(&plan),
        [end("b", Outcome::TimedOut, FailureCode::DeadlineExceeded)]
    );
    assert_eq!(only(&plan).duplicate_of, "check-a");
    assert_eq!(
        plan.effects,
        [Effect::Leave(uid("b")), Effect::TellResult(uid("b"))]
    );
    let world = world.after_at(short, &[]);
    assert_eq!(world.ledger.phase(&uid("a")), Some(Phase::Running));

    // The end of the first, where it is there, counts more than a deadline that is over.
    let late = order("b").deadline;
    let world = World::new()
        .after(&[keyed("a"), keyed("b")])
        .after(&[completed("a")]);
    assert_eq!(
        only(&world.plan_at(late, &[])).outcome(),
        Outcome::Succeeded
    );
    // And who comes too late gets no other one's end.
    let over = with("c", |order| {
        order.sharing = Sharing::With(Mark::of("key", "echo", b"1", "jane"));
        order.deadline = NOW;
    });
    assert_eq!(
        ends(&world.plan(&[over]))[1..],
        [end(
            "c",
            Outcome::TimedOut,
            FailureCode::DeadlineBeforeStart
        )]
    );
}

/// What a restart makes of plans whose records are on the disk.
fn restarted(batches: &[&[Event]]) -> World {
    let mut world = World::new();
    let mut disk = Vec::new();
    for events in batches {
        disk.extend(world.plan(events).records);
        world = world.after(events);
    }
    let mut world = World::restarted(&disk);
    world.told = Some(std::collections::HashSet::new());
    world
}

#[test]
fn after_a_restart_the_second_ends_as_the_first_did() {
    let restarts = FailureCode::AgentRestarted;
    for (batches, outcome, code) in [
        (
            &[&[keyed("a"), keyed("b")][..]][..],
            Outcome::Unknown,
            Some(restarts),
        ),
        (
            &[&[dispatch("x"), dispatch("y"), keyed("a"), keyed("b")]],
            Outcome::Failed,
            Some(restarts),
        ),
        (
            &[&[keyed("a"), keyed("b")], &[completed("a")]],
            Outcome::Succeeded,
            None,
        ),
    ] {
        let plan = restarted(batches).plan(&[]);
        assert_eq!(ends(&plan), [("b".to_owned(), outcome, code)]);
        assert_eq!(only(&plan).duplicate_of, "check-a");
    }
    // Who comes after it, too, and does not run.
    let world = restarted(&[&[keyed("a")]]);
    let plan = world.plan(&[keyed("b")]);
    assert_eq!(starts(&plan), [] as [&str; 0]);
    assert_eq!(
        ends(&world.after(&[keyed("b")]).plan(&[])),
        [end("b", Outcome::Unknown, restarts)]
    );
}

#[test]
fn of_a_first_that_is_forgotten_the_key_is_remembered_for_as_long_as_that_it_was() {
    let mut world = World::new()
        .after(&[keyed("a")])
        .after(&[completed("a")])
        .after(&[Event::Ack(uid("a"))]);
    world.ledger.shrink(NOW, FORGETFUL);
    assert_eq!(starts(&world.plan(&[keyed("b")])), [] as [&str; 0]);
    let mut world = world.after(&[keyed("b")]);
    let plan = world.plan(&[]);
    assert_eq!(
        ends(&plan),
        [end("b", Outcome::Unknown, FailureCode::Internal)]
    );
    assert_eq!(only(&plan).duplicate_of, "check-a");
    // What was asked under it is remembered as well.
    let other = with("c", |order| {
        order.sharing = Sharing::With(Mark::of("key", "echo", b"2", "jane"));
    });
    let plan = world.plan(&[other]);
    assert!(ends(&plan).contains(&end("c", Outcome::Failed, FailureCode::InvalidInput)));

    world = world.after(&[]);
    let nothing = Bounds {
        tombstones: 0,
        ..FORGETFUL
    };
    world.ledger.shrink(NOW, nothing);
    assert_eq!(starts(&world.plan(&[keyed("d")])), ["d"]);
}

#[test]
fn a_key_of_another_call_or_one_that_is_too_long_is_refused_by_name() {
    let world = World::new().after(&[keyed("a")]);
    for (capability, input) in [("echo", b"2"), ("door", b"1")] {
        let event = with("b", |order| {
            capability.clone_into(&mut order.capability);
            order.input = input.to_vec();
            order.sharing = Sharing::With(Mark::of("key", capability, input, "jane"));
        });
        for plan in [
            world.plan(std::slice::from_ref(&event)),
            World::new().plan(&[keyed("a"), event.clone()]),
        ] {
            assert_eq!(
                ends(&plan),
                [end("b", Outcome::Failed, FailureCode::InvalidInput)]
            );
            let result = only(&plan);
            assert_eq!(
                result.failure.as_ref().unwrap().message,
                "the key was used for another capability or input by check-a"
            );
            assert!(result.duplicate_of.is_empty());
        }
    }
    let long = with("b", |order| order.sharing = Sharing::KeyTooLong);
    let plan = world.plan(&[long]);
    assert_eq!(
        ends(&plan),
        [end("b", Outcome::Failed, FailureCode::InvalidInput)]
    );
    assert!(
        only(&plan)
            .failure
            .as_ref()
            .unwrap()
            .message
            .contains("128 bytes"),
        "{plan:?}"
    );
}

#[test]
fn one_that_was_turned_away_does_not_have_the_key() {
    let mut refused = World {
        bounds: Bounds {
            open: 0,
            ..Bounds::default()
        },
        ..World::new()
    };
    refused = refused.after(&[keyed("a")]);
    refused.bounds = Bounds::default();
    let late = with("a", |order| {
        order.sharing = Sharing::With(Mark::of("key", "echo", b"1", "jane"));
        order.deadline = NOW;
    });
    for world in [
        refused,
        World::new().after(&[late]),
        World::new().after(&[cancel("a")]),
    ] {
        assert_eq!(starts(&world.plan(&[keyed("b")])), ["b"]);
    }
}

#[test]
fn without_room_or_a_journal_nobody_follows_and_who_does_goes_on() {
    let full = World {
        bounds: Bounds {
            open: 1,
            ..Bounds::default()
        },
        ..World::new()
    };
    let full = full.after(&[keyed("a")]);
    let refuse = |text: &str| Effect::Refuse {
        uid: uid(text),
        name: format!("check-{text}"),
    };
    assert_eq!(full.plan(&[keyed("b")]).effects, [refuse("b")]);
    // Room for what is repeated is set aside.
    let bounds = Bounds {
        bytes: 2 * order("a").reserve() + 1_000,
        ..Bounds::default()
    };
    let tight = World {
        bounds,
        ..World::new()
    };
    let tight = tight.after(&[keyed("a"), keyed("b")]);
    assert_eq!(tight.plan(&[keyed("c")]).effects, [refuse("c")]);

    let world = World::new().after(&[keyed("a")]);
    let plan = world.plan(&[keyed("b")]);
    let (plan, again) = plan.unrecorded(&world.jobs, &world.ledger);
    assert_eq!(plan.effects, [Effect::Leave(uid("b")), refuse("b")]);
    assert!(again.is_empty());

    // The end of one that follows comes again by itself, and a cancel as it was.
    let world = world.after(&[keyed("b"), keyed("c")]);
    let plan = world.plan(&[cancel("c")]);
    let (plan, again) = plan.unrecorded(&world.jobs, &world.ledger);
    assert_eq!(plan.effects, []);
    assert_eq!(
        ends(&world.plan(&again)),
        [end("c", Outcome::Cancelled, FailureCode::Cancelled)]
    );
    let world = world.after(&[completed("a")]);
    let (plan, again) = world.plan(&[]).unrecorded(&world.jobs, &world.ledger);
    assert!(again.is_empty());
    assert_eq!(plan.effects, []);
    assert_eq!(ends(&world.plan(&[])).len(), 2);
}

#[test]
fn who_follows_one_that_was_refused_hears_so() {
    let mut world = World::new().after(&[dispatch("x"), dispatch("y"), keyed("a"), keyed("b")]);
    // Its turn came, and could not be recorded.
    let plan = world.plan(&[completed("x")]);
    let (plan, _) = plan.unrecorded(&world.jobs, &world.ledger);
    for effect in plan.effects {
        if let Effect::Refuse { uid, .. } = effect {
            world.jobs.leave(&uid);
            world.refused.insert(uid);
        }
    }
    assert!(world.refused.contains(&uid("a")));
    let plan = world.plan(&[]);
    assert_eq!(
        ends(&plan),
        [end("b", Outcome::Failed, FailureCode::JournalUnavailable)]
    );
    assert_eq!(only(&plan).duplicate_of, "check-a");
}

#[test]
fn an_agent_that_stops_waits_for_who_follows() {
    let mut world = World::new().after(&[keyed("a"), keyed("b")]);
    world.stop_at = Some(NOW.after(Duration::from_secs(4)));
    let world = world.after(&[completed("a")]);
    assert!(!world.jobs.is_empty());
    assert!(world.after(&[]).jobs.is_empty());
}

#[tokio::test]
async fn a_journal_that_is_cut_at_any_byte_runs_no_key_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut journal = Journal::open(&path, Bounds::default(), NOW).unwrap();
    let mut world = World::new();
    let mut accepted_at = None;
    // The first waits, runs and ends; one follows from the beginning, and is told of it.
    for events in [
        vec![dispatch("x"), dispatch("y"), keyed("a"), keyed("b")],
        vec![completed("x")],
        vec![completed("a")],
        vec![],
        vec![Event::Ack(uid("a")), Event::Ack(uid("b"))],
    ] {
        let plan = world.plan(&events);
        for record in plan.records {
            let is_start = matches!(&record, Record::Accepted { uid: of, .. } if *of == uid("a"));
            let records = Arc::from([record]);
            journal.commit(records, 0, NOW).await.unwrap();
            if is_start {
                accepted_at = Some(std::fs::metadata(&path).unwrap().len());
            }
        }
        world = world.after(&events);
    }
    drop(journal);
    let accepted_at = accepted_at.unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut runs = 0;
    for length in 0..=whole.len() {
        let cut = folder.path().join(format!("cut-{length}"));
        std::fs::write(&cut, &whole[..length]).unwrap();
        let mut journal = Journal::open(&cut, Bounds::default(), NOW).unwrap();
        // Two rounds: one follows, and then ends.
        let mut started = Vec::new();
        let mut second = None;
        for events in [vec![keyed("b"), keyed("c")], vec![], vec![]] {
            let plan = over(&journal, &events).await;
            started.extend(starts(&plan));
            for result in results(&plan) {
                if result.uid == "b" && !started.contains(&"b".to_owned()) {
                    second = Some(result.clone());
                }
            }
            journal.commit(plan.records.into(), 0, NOW).await.unwrap();
        }
        if length as u64 >= accepted_at {
            assert_eq!(started, [] as [&str; 0], "cut at {length}");
        }
        assert!(started.len() <= 1, "cut at {length}: {started:?}");
        runs += started.len();
        if let Some(second) = second {
            assert_eq!(second.duplicate_of, "check-a", "cut at {length}");
        }
    }
    assert!(runs > 0, "before anything is recorded, it runs");
}

/// What an agent plans that has just this journal.
async fn over(journal: &Journal, events: &[Event]) -> Plan {
    let mut repeats = Vec::new();
    for (uid, first) in journal.ledger().owed() {
        repeats.push(super::plan::Repeat {
            uid: uid.clone(),
            result: journal.result(first).await,
        });
    }
    super::plan::plan(&super::plan::Observed {
        now: Moment::from_millis(10_000),
        events,
        ledger: journal.ledger(),
        bounds: journal.bounds(),
        repeats: &repeats,
        jobs: &super::jobs::Jobs::default(),
        refused: &std::collections::HashSet::new(),
        told: None,
        told_asked: &std::collections::HashSet::new(),
        surface: &super::plan_tests::surface(),
        rules: &crate::mediation::rules::Rules::default(),
        limits: super::plan::Limits::default(),
        stop_at: None,
    })
}
