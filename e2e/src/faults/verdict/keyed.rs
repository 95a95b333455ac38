//! Invocations of one device with one idempotency key: one of them has the effect, and the others say so.

use crds::v1alpha1::capability_invocation::{ErrorCode, InvocationPhase};

use super::{Case, Effect, Verdict, contradiction, silence_is_over, unknown};

/// Compares each, in their order, to what was done for all.
///
/// One that did not have the effect itself may say anything of itself that is no word about the effect. One of them must
/// say what became of it: that nobody admits an effect is as untrue as any other denial.
pub fn judge(holders: &[&Case]) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = holders.iter().map(|case| one(case, holders)).collect();
    let was_begun = holders.iter().any(|case| case.effect.began > 0);
    let words = || holders.iter().map(|case| super::judge(case));
    let is_admitted = words().any(|word| matches!(word, Verdict::True | Verdict::Unknown));
    if was_begun && !is_admitted {
        // Where one may still tell, it is not too late.
        let may_be = words().find(Verdict::may_change);
        if let (Some(verdict), Some(case)) = (verdicts.first_mut(), holders.first())
            && matches!(verdict, Verdict::True | Verdict::Unknown)
        {
            *verdict = may_be
                .unwrap_or_else(|| case.untrue("none of those with its key says what was done"));
        }
    }
    verdicts
}

fn one(case: &Case, holders: &[&Case]) -> Verdict {
    let status = case.status();
    if case.effect.began > 1 {
        return Verdict::Twice;
    }
    if !status.phase.is_terminal() {
        return Verdict::Stuck;
    }
    if let Some(first) = &status.duplicate_of {
        if !holders.iter().any(|other| other.name() == *first) || *first == case.name() {
            return case.untrue("it stands for one that is not there");
        }
        if case.own.is_some_and(|own| own != Effect::default()) {
            return case.untrue("it ran itself");
        }
    } else if let Some(own) = case.own {
        if let Some(why) = contradiction(&status, own) {
            return case.untrue(why);
        }
        if silence_is_over(&status, own) {
            return Verdict::Untold;
        }
    }
    let code = status.error.as_ref().map(|error| error.code);
    let all = case.effect;
    match (status.phase, code) {
        (InvocationPhase::Succeeded, _) if all.done != 1 => case.untrue("it was not done"),
        (InvocationPhase::Failed, Some(ErrorCode::CapabilityFailed)) if all.failed != 1 => {
            case.untrue("it did not fail")
        }
        (InvocationPhase::Unknown, _) => unknown(case, case.own.unwrap_or_default()),
        _ => Verdict::True,
    }
}
