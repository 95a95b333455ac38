use super::*;

/// A short fixed set: `cargo simulate` plays more.
const SCHEDULES: u64 = 200;

fn found(first: u64, schedules: u64, effect_first: bool) -> Findings {
    let mut findings = Findings::default();
    for seed in first..first + schedules {
        findings.add(seed, &play(seed, effect_first, false).unwrap());
    }
    findings
}

#[test]
fn whatever_happens_no_resource_lies() {
    let findings = found(1, SCHEDULES, false);
    assert_eq!(findings.bad(), 0, "{findings:?}");
    assert!(findings.invocations > 5 * SCHEDULES, "{findings:?}");
    assert!(findings.unknown > 0, "too little goes wrong: {findings:?}");
}

#[test]
fn an_agent_that_acts_before_its_journal_knows_is_noticed() {
    let findings = found(1, SCHEDULES, true);
    assert!(findings.twice > 0, "{findings:?}");
}

#[test]
fn a_seed_is_a_history() {
    for seed in [1, 7, 23] {
        let (once, again) = (play(seed, false, true), play(seed, false, true));
        let (once, again) = (once.unwrap(), again.unwrap());
        assert!(once.trace.len() > 20);
        assert_eq!(once.trace, again.trace);
        assert_eq!(once.steps, again.steps);
    }
}
