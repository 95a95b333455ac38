use crds::v1alpha1::PairingCodeSpec;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn drawn() -> Drawn {
    Drawn::parse("0101-ABCDEF").unwrap()
}

fn ours() -> CodeSecret {
    CodeSecret::Ours {
        uid: "secret-uid".to_owned(),
        drawn: Some(drawn()),
    }
}

/// A code that was made at second 0, for ten minutes, one use and five tries.
fn minimal() -> PairingCode {
    let spec = PairingCodeSpec {
        ttl_seconds: 600,
        max_uses: 1,
        max_attempts: 5,
        ..PairingCodeSpec::default()
    };
    let mut code = PairingCode::new("door", spec);
    code.metadata.namespace = Some("kitchen".to_owned());
    code.metadata.creation_timestamp = Some(Time(at(0)));
    code.metadata.generation = Some(1);
    code
}

fn active() -> PairingCode {
    let mut code = minimal();
    let plan = plan(&Observed {
        now: at(1),
        code: code.clone(),
        secret: ours(),
        room: Room::Free,
    });
    let Change::Activate { status, .. } = &plan.changes[0] else {
        panic!("{plan:?}")
    };
    code.status = Some(PairingCodeStatus {
        password_file: Some("file".to_owned()),
        ..(**status).clone()
    });
    code
}

fn with(mut code: PairingCode, change: impl FnOnce(&mut PairingCodeStatus)) -> PairingCode {
    change(code.status.get_or_insert_default());
    code
}

fn decide(now: i64, code: PairingCode, secret: CodeSecret) -> Plan {
    plan(&Observed {
        now: at(now),
        code,
        secret,
        room: Room::Free,
    })
}

fn reasons(plan: &Plan) -> Vec<&'static str> {
    plan.notes.iter().map(|note| note.reason).collect()
}

fn written(plan: &Plan) -> &PairingCodeStatus {
    match plan.changes.last() {
        Some(Change::WriteStatus(status) | Change::Activate { status, .. }) => status,
        other => panic!("{other:?}"),
    }
}

fn ready(status: &PairingCodeStatus) -> (&str, &str) {
    let ready = conditions::find(&status.conditions, READY).unwrap();
    (&ready.status, &ready.reason)
}

#[test]
fn a_new_code_is_drawn_and_looked_at_again() {
    let plan = decide(1, minimal(), CodeSecret::Absent);
    assert_eq!(plan.changes, [Change::Draw]);
    assert!(plan.look_again);
}

#[test]
fn a_drawn_code_becomes_active_with_what_its_secret_says() {
    let plan = decide(1, minimal(), ours());
    let status = written(&plan);
    assert_eq!(status.phase, Some(CodePhase::Active));
    assert_eq!(status.code_id.as_deref(), Some("0101"));
    assert_eq!(status.expires_at, Some(Time(at(600))));
    assert_eq!((status.uses, status.attempts), (0, 0));
    assert_eq!(ready(status), ("True", "Active"));
    assert_eq!(reasons(&plan), ["CodeActive"]);
    assert_eq!(plan.requeue_at, Some(at(600)));
}

#[test]
fn an_active_code_costs_nothing_and_waits_for_its_end() {
    let plan = decide(2, active(), ours());
    assert_eq!(
        plan,
        Plan {
            requeue_at: Some(at(600)),
            ..Plan::default()
        }
    );
}

#[test]
fn a_code_ends_when_used_expired_or_locked_and_is_wiped() {
    let wrong = |status: &mut PairingCodeStatus| {
        status.attempts = 5;
        status.last_attempt_at = Some(Time(at(10)));
    };
    for (now, change, phase, reason) in [
        (
            5,
            (|status| status.uses = 1) as fn(&mut PairingCodeStatus),
            CodePhase::Used,
            "CodeUsed",
        ),
        (600, |_| {}, CodePhase::Expired, "CodeExpired"),
        (
            10 + names::PROOF_SECONDS,
            wrong,
            CodePhase::Locked,
            "CodeLocked",
        ),
        // The use counts, though the time is over too.
        (600, |status| status.uses = 1, CodePhase::Used, "CodeUsed"),
    ] {
        let plan = decide(now, with(active(), change), ours());
        assert_eq!(
            plan.changes.first(),
            Some(&Change::DeleteSecret {
                uid: "secret-uid".to_owned()
            }),
            "{phase:?}"
        );
        let status = written(&plan);
        assert_eq!((status.phase, &status.password_file), (Some(phase), &None));
        assert_eq!(ready(status).0, "False");
        assert_eq!(reasons(&plan), [reason]);
        assert_eq!(plan.requeue_at, None);
        let after = with(active(), |before| *before = status.clone());
        assert!(has_ended(&after));
        assert_eq!(
            decide(now, after, CodeSecret::NotRead),
            Plan::default(),
            "{phase:?} is the end"
        );
    }
}

#[test]
fn tries_that_may_still_be_proved_do_not_lock_yet() {
    let code = with(active(), |status| {
        status.attempts = 5;
        status.last_attempt_at = Some(Time(at(10)));
    });
    let plan = decide(11, code, ours());
    assert_eq!(
        plan,
        Plan {
            requeue_at: Some(at(10 + names::PROOF_SECONDS)),
            ..Plan::default()
        }
    );
}

#[test]
fn a_secret_that_is_not_ours_is_left_alone() {
    let plan = decide(1, minimal(), CodeSecret::Foreign);
    assert_eq!(ready(written(&plan)), ("False", "SecretConflict"));
    assert_eq!(reasons(&plan), ["SecretConflict"]);
    assert_eq!(plan.requeue_at, Some(at(600)));
    let after = with(minimal(), |before| *before = written(&plan).clone());
    let again = decide(2, after.clone(), CodeSecret::Foreign);
    assert_eq!(
        again,
        Plan {
            requeue_at: Some(at(600)),
            ..Plan::default()
        },
        "says it once"
    );
    let end = decide(600, after, CodeSecret::Foreign);
    assert_eq!(end.changes.len(), 1, "does not delete it either");
    assert_eq!(written(&end).phase, Some(CodePhase::Expired));
}

#[test]
fn a_secret_of_a_former_code_makes_room() {
    let plan = decide(
        1,
        minimal(),
        CodeSecret::Former {
            uid: "old".to_owned(),
        },
    );
    assert_eq!(
        plan.changes,
        [Change::DeleteSecret {
            uid: "old".to_owned()
        }]
    );
    assert!(plan.look_again);
}

#[test]
fn a_secret_without_a_code_in_it_is_damaged() {
    let secret = CodeSecret::Ours {
        uid: "secret-uid".to_owned(),
        drawn: None,
    };
    assert_eq!(
        ready(written(&decide(1, minimal(), secret))),
        ("False", "SecretDamaged")
    );
}

#[test]
fn a_deleted_secret_of_an_active_code_is_told_once_and_not_made_again() {
    let plan = decide(5, active(), CodeSecret::Absent);
    let status = written(&plan).clone();
    assert_eq!(ready(&status), ("False", "SecretMissing"));
    assert_eq!(status.phase, Some(CodePhase::Active));
    assert!(
        status.password_file.is_some(),
        "who has read the code can use it"
    );
    assert_eq!(reasons(&plan), ["SecretMissing"]);
    let again = decide(
        6,
        with(active(), |before| *before = status),
        CodeSecret::Absent,
    );
    assert_eq!(
        again,
        Plan {
            requeue_at: Some(at(600)),
            ..Plan::default()
        }
    );
}

#[test]
fn a_code_that_expired_before_it_was_drawn_is_never_drawn() {
    let plan = decide(600, minimal(), CodeSecret::Absent);
    assert_eq!(plan.changes.len(), 1);
    assert_eq!(written(&plan).phase, Some(CodePhase::Expired));
}

#[test]
fn a_code_that_somebody_else_ended_keeps_no_password_file() {
    let code = with(active(), |status| status.phase = Some(CodePhase::Used));
    assert!(!has_ended(&code));
    let plan = decide(5, code, ours());
    assert_eq!(plan.changes.len(), 2);
    assert_eq!(written(&plan).password_file, None);
}

#[test]
fn a_code_for_which_there_is_no_room_is_not_drawn_and_does_not_look_active() {
    for (room, reason, again) in [
        (
            Room::NamespaceIsFull {
                format: "numeric",
                most: 100,
            },
            "TooManyCodes",
            at(600),
        ),
        (
            Room::ClusterIsFull {
                format: "numeric",
                usable: 9500,
            },
            "TooManyCodesInCluster",
            at(31),
        ),
    ] {
        let mut observed = Observed {
            now: at(1),
            code: minimal(),
            secret: CodeSecret::NotRead,
            room,
        };
        let first = plan(&observed);
        let status = written(&first);
        assert_eq!((status.phase, &status.code_id), (None, &None));
        assert_eq!(ready(status), ("False", reason));
        assert_eq!(
            (reasons(&first), first.requeue_at),
            (vec![reason], Some(again))
        );
        observed.code.status = Some(status.clone());
        let second = plan(&observed);
        assert_eq!(
            (second.changes, second.notes),
            (vec![], vec![]),
            "said once"
        );
        // There is room now.
        observed.room = Room::Free;
        observed.secret = CodeSecret::Absent;
        assert_eq!(plan(&observed).changes, [Change::Draw]);
        // Nobody made room in time.
        observed.room = room;
        observed.now = at(600);
        assert_eq!(written(&plan(&observed)).phase, Some(CodePhase::Expired));
    }
}
