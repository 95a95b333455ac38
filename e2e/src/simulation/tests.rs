use super::*;

/// A short fixed set: `cargo simulate` plays more.
const SCHEDULES: u64 = 200;

fn found(first: u64, schedules: u64, sabotage: Sabotage) -> Findings {
    let mut findings = Findings::default();
    for seed in first..first + schedules {
        findings.add(seed, &play(seed, sabotage, false).unwrap());
    }
    findings
}

#[test]
fn whatever_happens_no_resource_lies() {
    let findings = found(1, SCHEDULES, Sabotage::None);
    assert_eq!(findings.bad(), 0, "{findings:?}");
    assert!(findings.invocations > 5 * SCHEDULES, "{findings:?}");
    assert!(findings.unknown > 0, "too little goes wrong: {findings:?}");
}

/// Seeds that found something once. What they play changes with every program, so the causes have tests of their own.
#[test]
fn what_was_found_once_is_not_found_again() {
    for seed in [28_319, 41_979, 54_146, 79_705, 110_880] {
        let findings = found(seed, 1, Sabotage::None);
        assert_eq!(findings.bad(), 0, "{seed}: {findings:?}");
    }
}

#[test]
fn an_agent_that_acts_before_its_journal_knows_is_noticed() {
    let findings = found(1, SCHEDULES / 4, Sabotage::EffectFirst);
    assert!(findings.twice > 0, "{findings:?}");
}

#[test]
fn gateways_that_know_nothing_are_noticed() {
    let findings = found(1, SCHEDULES / 10, Sabotage::EndsUnknown);
    assert!(findings.untrue > findings.invocations / 3, "{findings:?}");
}

#[test]
fn a_seed_is_a_history() {
    for seed in [1, 7, 23] {
        let (once, again) = (
            play(seed, Sabotage::None, true),
            play(seed, Sabotage::None, true),
        );
        let (once, again) = (once.unwrap(), again.unwrap());
        assert!(once.trace.len() > 20);
        assert_eq!(once.trace, again.trace);
        assert_eq!(once.steps, again.steps);
    }
}
