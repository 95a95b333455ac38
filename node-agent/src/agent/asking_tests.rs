//! What a person is asked about, one by one. That it is recorded first and never runs unallowed, over many lives, is in
//! `plan_tests`.

use std::{collections::HashSet, time::Duration};

use proto::node::{FailureCode, Outcome};

use super::{
    order::{Ending, Sharing},
    plan::{Answer, Effect, Event, Plan, Reply},
    plan_tests::{
        NOW, World, answer, cancel, completed, dispatch, end, ends, mark, order, starts, uid, with,
    },
};
use crate::{
    journal::{Bounds, Ledger, Record},
    mediation::{
        question::Digest,
        rules::{Pattern, Rule, Rules, Verdict},
    },
};

const ASKED: &str = "screen";

fn asked(text: &str) -> Event {
    with(text, |order| order.capability = ASKED.to_owned())
}

/// A person's word about what `text` names, as it is asked in `world`.
fn says(world: &World, text: &str, is_allowed: bool) -> Event {
    let order = world.jobs.asking().find(|order| order.uid == uid(text));
    Event::Answer(answer(order.unwrap(), is_allowed))
}

fn rule(capability: &str, requester: &str, verdict: Verdict) -> Rule {
    Rule {
        capability: Pattern::parse(capability).unwrap(),
        requester: Pattern::parse(requester).unwrap(),
        verdict,
        reason: "as the rules say".to_owned(),
    }
}

fn ruled(rules: Vec<Rule>) -> World {
    World {
        rules: Rules::from(rules),
        ..World::new()
    }
}

/// By whom, and why, each recorded end was decided.
fn decided(plan: &Plan) -> Vec<(String, String)> {
    let ends = plan.records.iter().filter_map(|record| {
        if let Record::Finished { result, .. } = record {
            let mediation = result.mediation.clone()?;
            Some((mediation.by, mediation.reason))
        } else {
            None
        }
    });
    ends.collect()
}

fn said(by: &str, reason: &str) -> (String, String) {
    (by.to_owned(), reason.to_owned())
}

fn tells_asked(plan: &Plan) -> bool {
    plan.effects.contains(&Effect::TellAsked(uid("a")))
}

#[test]
fn what_is_mediated_is_recorded_and_asked_and_does_not_start() {
    for event in [asked("a"), with("a", |order| order.mediate = true)] {
        let plan = World::new().plan(&[event]);
        assert!(
            matches!(&plan.records[..], [Record::Waiting { uid: of, .. }] if *of == uid("a")),
            "{plan:?}"
        );
        assert!(
            matches!(&plan.effects[..], [Effect::Ask(order), Effect::TellAsked(of)]
                if order.uid == uid("a") && *of == uid("a")),
            "{plan:?}"
        );
        assert_eq!(plan.wake, Some(order("a").deadline));
    }
}

/// With an input that no capability takes.
fn wrong(order: &mut super::order::Order) {
    order.input = b"\"no\"".to_vec();
}

#[test]
fn nobody_is_asked_about_an_input_that_is_not_taken() {
    let invalid = [end("a", Outcome::Failed, FailureCode::InvalidInput)];
    for input in ["\"no\"", "{"] {
        let plan = World::new().plan(&[with("a", |order| {
            order.capability = ASKED.to_owned();
            order.input = input.into();
        })]);
        assert_eq!(ends(&plan), invalid);
        assert!(!tells_asked(&plan) && plan.records.len() == 1, "{plan:?}");
    }
    // Nor where it was taken when it came, and nobody had to be asked then.
    let mut world = World::new().after(&["x", "y", "a"].map(dispatch));
    let mut order = std::sync::Arc::unwrap_or_clone(order("a"));
    wrong(&mut order);
    world.jobs.leave(&uid("a"));
    world.jobs.wait(std::sync::Arc::new(order));
    world.rules = Rules::from(vec![rule("echo", "*", Verdict::Ask)]);
    let plan = world.plan(&[completed("x")]);
    assert_eq!(ends(&plan)[1..], invalid);
    assert!(!tells_asked(&plan), "{plan:?}");
}

#[test]
fn who_may_not_have_it_learns_nothing_of_the_input() {
    let plan = ruled(vec![rule("*", "*", Verdict::Deny)]).plan(&[with("a", wrong)]);
    assert_eq!(
        ends(&plan),
        [end("a", Outcome::Refused, FailureCode::Refused)]
    );
}

#[test]
fn every_stream_hears_once_and_who_asks_again_hears_it_again() {
    let mut world = World::new().after(&[asked("a")]);
    assert!(!tells_asked(&world.plan(&[])));
    assert!(tells_asked(&world.plan(&[asked("a")])));
    world.told = Some(HashSet::new());
    world.told_asked = HashSet::new();
    assert!(tells_asked(&world.plan(&[])));
    world.told = None;
    assert_eq!(world.plan(&[]).effects, []);
}

#[test]
fn an_allow_starts_it_and_the_result_says_whose_it_was() {
    let world = World::new().after(&[asked("a")]);
    let plan = world.plan(&[says(&world, "a", true)]);
    assert!(matches!(&plan.records[..], [Record::Accepted { uid: of, .. }] if *of == uid("a")));
    assert_eq!(starts(&plan), ["a"]);
    assert!(plan.effects.contains(&Effect::TellAccepted(uid("a"))));
    assert!(plan.effects.contains(&Effect::Reply {
        ticket: 1,
        uid: uid("a"),
        reply: Reply::Taken,
    }));
    let answer = says(&world, "a", true);
    let world = world.after(&[answer]);
    assert_eq!(world.jobs.asking().count(), 0);
    let plan = world.plan(&[completed("a")]);
    assert_eq!(ends(&plan), [("a".to_owned(), Outcome::Succeeded, None)]);
    assert_eq!(decided(&plan), [said("joe", "so")]);
    let failed = Event::Completed {
        uid: uid("a"),
        ending: Ending::Failed(FailureCode::CapabilityFailed, "no".to_owned()),
    };
    assert_eq!(decided(&world.plan(&[failed])), [said("joe", "so")]);
}

#[test]
fn a_deny_refuses_it_and_says_who_and_why() {
    let world = World::new().after(&[asked("a")]);
    let plan = world.plan(&[says(&world, "a", false)]);
    assert_eq!(
        ends(&plan),
        [end("a", Outcome::Refused, FailureCode::Refused)]
    );
    assert_eq!(decided(&plan), [said("joe", "so")]);
    assert_eq!(starts(&plan), [] as [&str; 0]);
    assert!(plan.effects.contains(&Effect::TellResult(uid("a"))));
    // Nor does it when it is sent again, or allowed after all.
    let late = says(&world, "a", true);
    let answer = says(&world, "a", false);
    let world = world.after(&[answer]);
    let plan = world.plan(&[asked("a"), late]);
    assert_eq!((starts(&plan), &plan.records), (vec![], &vec![]));
    assert!(plan.effects.contains(&Effect::Reply {
        ticket: 1,
        uid: uid("a"),
        reply: Reply::NotAsked,
    }));
}

#[test]
fn an_answer_to_something_else_counts_for_nothing() {
    let world = World::new().after(&[asked("a")]);
    let Event::Answer(right) = says(&world, "a", true) else {
        unreachable!("it is an answer");
    };
    let other = |change: fn(&mut super::order::Order)| {
        let mut order = std::sync::Arc::unwrap_or_clone(order("a"));
        order.capability = ASKED.to_owned();
        change(&mut order);
        Digest::of(&order)
    };
    assert_eq!(other(|_| {}), right.shown);
    for shown in [
        other(|order| order.input = b"2".to_vec()),
        other(|order| order.capability = "echo".to_owned()),
        other(|order| order.requested_by = "joe".to_owned()),
    ] {
        let plan = world.plan(&[Event::Answer(Answer {
            shown,
            ..right.clone()
        })]);
        let reply = Effect::Reply {
            ticket: 1,
            uid: uid("a"),
            reply: Reply::Changed,
        };
        assert_eq!((plan.records, plan.effects), (vec![], vec![reply]));
    }
    let plan = world.plan(&[Event::Answer(Answer {
        uid: uid("z"),
        ..right
    })]);
    assert!(matches!(
        plan.effects[..],
        [Effect::Reply {
            reply: Reply::NotAsked,
            ..
        }]
    ));
}

#[test]
fn silence_until_the_deadline_is_no_consent() {
    let world = World::new().after(&[asked("a")]);
    let late = order("a").deadline;
    let yes = says(&world, "a", true);
    for events in [vec![], vec![yes]] {
        let plan = world.plan_at(late, &events);
        assert_eq!(
            ends(&plan),
            [end("a", Outcome::TimedOut, FailureCode::NoDecision)]
        );
        assert_eq!(starts(&plan), [] as [&str; 0]);
        assert_eq!(decided(&plan), []);
    }
    assert!(world.after_at(late, &[]).jobs.is_empty());
}

#[test]
fn a_cancel_ends_the_asking() {
    let world = World::new().after(&[asked("a")]);
    let yes = says(&world, "a", true);
    let plan = world.plan(&[cancel("a"), yes]);
    assert_eq!(
        ends(&plan),
        [end("a", Outcome::Cancelled, FailureCode::Cancelled)]
    );
    assert_eq!(starts(&plan), [] as [&str; 0]);
    assert!(plan.effects.contains(&Effect::Leave(uid("a"))));
}

#[test]
fn a_crash_while_somebody_is_asked_leaves_it_not_run() {
    let world = World::new().plan(&[asked("a")]);
    let world = World::restarted(&world.records);
    assert!(world.jobs.is_empty());
    let result = world.ledger.told(&uid("a"), &world.finished).unwrap();
    assert_eq!(result.outcome(), Outcome::Failed);
    let mut world = world;
    world.told = Some(HashSet::new());
    assert_eq!(starts(&world.plan(&[asked("a")])), [] as [&str; 0]);
}

#[test]
fn an_agent_that_stops_asks_nobody_any_more() {
    let mut world = World::new().after(&[asked("a")]);
    let yes = says(&world, "a", true);
    world.stop_at = Some(NOW.after(Duration::from_secs(4)));
    let plan = world.plan(&[yes]);
    assert_eq!(
        ends(&plan),
        [end("a", Outcome::Failed, FailureCode::AgentRestarted)]
    );
    assert_eq!(starts(&plan), [] as [&str; 0]);
}

#[test]
fn who_is_asked_takes_no_place_of_what_runs_and_is_bounded() {
    let world = World::new().after(&["a", "b", "c"].map(asked));
    assert_eq!(world.jobs.asking().count(), 3);
    let plan = world.plan(&[dispatch("x"), dispatch("y"), asked("d")]);
    assert_eq!(starts(&plan), ["x", "y"]);
    assert_eq!(ends(&plan), [end("d", Outcome::Failed, FailureCode::Busy)]);
}

#[test]
fn what_is_allowed_waits_for_its_turn_and_keeps_its_word() {
    let world = World::new().after(&[dispatch("x"), dispatch("y"), asked("a")]);
    let plan = world.plan(&[says(&world, "a", true)]);
    assert_eq!((starts(&plan), &plan.records), (vec![], &vec![]));
    assert!(matches!(&plan.effects[0], Effect::Wait(order) if order.uid == uid("a")));
    let answer = says(&world, "a", true);
    let world = world.after(&[answer]);
    assert_eq!(
        (world.jobs.asking().count(), world.jobs.waiting().count()),
        (0, 1)
    );
    assert_eq!(starts(&world.plan(&[completed("x")])), ["a"]);
    let world = world.after(&[completed("x")]);
    assert_eq!(decided(&world.plan(&[completed("a")])), [said("joe", "so")]);
}

#[test]
fn room_is_set_aside_for_what_is_asked() {
    let bounds = Bounds {
        bytes: order("a").reserve() + 500,
        ..Bounds::default()
    };
    let world = World {
        bounds,
        ..World::new()
    };
    let world = world.after(&[asked("a")]);
    assert_eq!(world.jobs.asking().count(), 1);
    let plan = world.plan(&[dispatch("b")]);
    assert!(matches!(plan.effects[..], [Effect::Refuse { .. }]));
}

#[test]
fn without_a_journal_nobody_is_asked_and_no_word_is_taken() {
    let world = World::new().after(&[asked("a"), asked("b")]);
    let words = [
        says(&world, "a", true),
        says(&world, "b", false),
        asked("c"),
    ];
    let plan = world.plan(&words);
    let (plan, again) = plan.unrecorded(&world.jobs, &world.ledger);
    assert_eq!(starts(&plan), [] as [&str; 0]);
    assert!(again.is_empty());
    let replies = plan.effects.iter().filter_map(|effect| {
        if let Effect::Reply { reply, .. } = effect {
            Some(*reply)
        } else {
            None
        }
    });
    assert_eq!(
        replies.collect::<Vec<_>>(),
        [Reply::NotRecorded, Reply::NotRecorded]
    );
    for name in ["a", "b", "c"] {
        let refuse = Effect::Refuse {
            uid: uid(name),
            name: format!("check-{name}"),
        };
        assert!(plan.effects.contains(&refuse), "{name}");
    }
    assert!(
        !plan
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Ask(_)))
    );
}

#[test]
fn a_rule_decides_in_place_of_a_person() {
    use Verdict::{Allow, Ask, Deny};
    let plan = ruled(vec![rule("scr*", "jane", Deny)]).plan(&[asked("a")]);
    assert_eq!(
        ends(&plan),
        [end("a", Outcome::Refused, FailureCode::Refused)]
    );
    assert_eq!(
        decided(&plan),
        [said("rule 1: deny scr* for jane", "as the rules say")]
    );
    // A deny holds for what is automatic, too.
    let plan = ruled(vec![rule("*", "*", Deny)]).plan(&[dispatch("a")]);
    assert_eq!(
        ends(&plan),
        [end("a", Outcome::Refused, FailureCode::Refused)]
    );

    let world = ruled(vec![rule("screen", "*", Allow)]);
    assert_eq!(starts(&world.plan(&[asked("a")])), ["a"]);
    let world = world.after(&[asked("a")]);
    assert_eq!(
        decided(&world.plan(&[completed("a")])),
        [said("rule 1: allow screen for *", "as the rules say")]
    );

    let plan = ruled(vec![rule("echo", "*", Ask)]).plan(&[dispatch("a")]);
    assert!(matches!(plan.effects[0], Effect::Ask(_)));
}

#[test]
fn rules_that_change_count_for_who_is_asked_and_for_who_waits() {
    use Verdict::{Allow, Ask, Deny};
    let with_rules = |world: &mut World, rules: Vec<Rule>| world.rules = Rules::from(rules);
    let mut world = World::new().after(&[asked("a")]);
    with_rules(&mut world, vec![rule("*", "*", Deny)]);
    let yes = says(&world, "a", true);
    let plan = world.plan(&[yes]);
    assert_eq!(
        ends(&plan),
        [end("a", Outcome::Refused, FailureCode::Refused)]
    );
    with_rules(&mut world, vec![rule("*", "*", Allow)]);
    assert_eq!(starts(&world.plan(&[])), ["a"]);
    // But not when its time is over.
    let plan = world.plan_at(order("a").deadline, &[]);
    assert_eq!(
        ends(&plan),
        [end("a", Outcome::TimedOut, FailureCode::NoDecision)]
    );
    assert_eq!(starts(&plan), [] as [&str; 0]);

    let mut world = World::new().after(&["x", "y", "a"].map(dispatch));
    with_rules(&mut world, vec![rule("echo", "*", Ask)]);
    let plan = world.plan(&[completed("x")]);
    assert_eq!((starts(&plan), ends(&plan).len()), (vec![], 1));
    assert!(
        plan.effects
            .iter()
            .any(|effect| matches!(effect, Effect::Ask(_)))
    );
    with_rules(&mut world, vec![rule("echo", "*", Deny)]);
    let plan = world.plan(&[completed("x")]);
    assert_eq!(
        ends(&plan)[1..],
        [end("a", Outcome::Refused, FailureCode::Refused)]
    );
    // What a person allowed is not asked once more.
    let mut world = World::new().after(&[dispatch("x"), dispatch("y"), asked("a")]);
    let yes = says(&world, "a", true);
    world = world.after(&[yes]);
    with_rules(&mut world, vec![rule("screen", "*", Ask)]);
    assert_eq!(starts(&world.plan(&[completed("x")])), ["a"]);
}

#[test]
fn who_may_not_have_it_does_not_get_what_it_gave_another() {
    let world = ruled(vec![rule("*", "joe", Verdict::Deny)])
        .after(&[keyed("a", "echo", "jane")])
        .after(&[completed("a")]);
    let plan = world.plan(&[keyed("b", "echo", "joe")]);
    assert_eq!(
        ends(&plan),
        [end("b", Outcome::Refused, FailureCode::Refused)]
    );
}

/// With the key that everybody has.
fn keyed(text: &str, capability: &str, requester: &str) -> Event {
    with(text, |order| {
        capability.clone_into(&mut order.capability);
        requester.clone_into(&mut order.requested_by);
        order.sharing = Sharing::With(mark("key", order));
    })
}

#[test]
fn who_has_to_be_asked_about_does_not_get_what_another_was_allowed() {
    let refused = [end("b", Outcome::Failed, FailureCode::InvalidInput)];
    let asks = World::new().after(&[keyed("a", ASKED, "jane")]);
    let yes = says(&asks, "a", true);
    let runs = World::new()
        .after(&[keyed("a", ASKED, "jane")])
        .after(&[yes]);
    let ended = World::new().after(&[keyed("a", ASKED, "jane")]);
    let yes = says(&ended, "a", true);
    let ended = ended.after(&[yes]).after(&[completed("a")]);
    for world in [asks, runs, ended] {
        let plan = world.plan(&[keyed("b", ASKED, "joe")]);
        assert_eq!(ends(&plan), refused);
        assert_eq!((starts(&plan), decided(&plan)), (vec![], vec![]));
        let [Record::Finished { result, .. }] = &plan.records[..] else {
            unreachable!("one end: {plan:?}");
        };
        assert!(result.output.is_empty() && result.duplicate_of.is_empty());
        // Who asked for the first gets what it got.
        let plan = world.plan(&[keyed("b", ASKED, "jane")]);
        assert!(matches!(plan.records[..], [Record::Following { .. }]));
    }
}

#[test]
fn who_need_not_be_asked_about_does_not_get_what_was_said_of_another() {
    let free_for_joe = || ruled(vec![rule(ASKED, "joe", Verdict::Allow)]);
    let both = [keyed("a", ASKED, "jane"), keyed("b", ASKED, "joe")];
    for is_allowed in [true, false] {
        let world = free_for_joe().after(&both);
        assert_eq!(world.jobs.following().count(), 1);
        let spoken = says(&world, "a", is_allowed);
        let mut world = world.after(&[spoken]);
        if is_allowed {
            world = world.after(&[completed("a")]);
        }
        let plan = world.plan(&[]);
        assert_eq!(
            ends(&plan),
            [end("b", Outcome::Failed, FailureCode::InvalidInput)]
        );
        assert_eq!(decided(&plan), []);
    }
    // Nor that nobody said anything.
    let late = free_for_joe().after(&both[..1]);
    let late = late.after_at(order("a").deadline, &[]);
    let plan = late.after(&both[1..]).plan(&[]);
    assert_eq!(
        ends(&plan),
        [end("b", Outcome::Failed, FailureCode::InvalidInput)]
    );
    // Where nobody is asked, one key is one effect, whoever comes with it.
    let both = [keyed("a", "echo", "jane"), keyed("b", "echo", "joe")];
    let world = World::new().after(&both).after(&[completed("a")]);
    let plan = world.plan(&[]);
    assert_eq!(ends(&plan), [("b".to_owned(), Outcome::Succeeded, None)]);
}

#[test]
fn who_follows_what_is_refused_is_refused_too() {
    let both = ["a", "b"].map(|text| keyed(text, ASKED, "jane"));
    let world = World::new().after(&both);
    assert_eq!(world.jobs.asking().count(), 1);
    let no = says(&world, "a", false);
    let plan = world.after(&[no]).plan(&[]);
    assert_eq!(
        ends(&plan),
        [end("b", Outcome::Refused, FailureCode::Refused)]
    );
    assert_eq!(decided(&plan), [said("joe", "so")]);
}

#[test]
fn where_nobody_can_be_asked_it_is_said_at_once() {
    let ledger = Ledger::default();
    let none = HashSet::new();
    let plan = super::plan::plan(&super::plan::Observed {
        now: NOW,
        events: &[asked("a")],
        ledger: &ledger,
        bounds: Bounds::default(),
        repeats: &[],
        jobs: &super::jobs::Jobs::default(),
        refused: &none,
        told: Some(&none),
        told_asked: &none,
        surface: &super::plan_tests::surface(),
        rules: &Rules::default(),
        limits: super::plan::Limits {
            asking: 0,
            ..super::plan::Limits::default()
        },
        stop_at: None,
    });
    assert_eq!(
        ends(&plan),
        [end("a", Outcome::Failed, FailureCode::Unavailable)]
    );
}
