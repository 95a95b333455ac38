//! Whether resources say what happened. Pure: one rule for the [simulation](crate::simulation) and for real programs.
//!
//! What a code says about whether the capability had begun is what the table of `crds` tells the user of it. Invocations
//! with one idempotency key are judged [together](keyed).

mod keyed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crds::CapabilityInvocation;
use crds::conditions::{ANSWERED_LATE, FINISHED, find};
use crds::deadline::ANSWER_SECONDS;
use crds::remedies::Ran;
use crds::v1alpha1::CapabilityInvocationStatus;
use crds::v1alpha1::capability_invocation::{ErrorCode, InvocationError, InvocationPhase};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use node_agent::agent::order::STOPPED_WHILE_IT_RAN;

use super::effects::Effect;

/// What comparing a resource with the world gives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It says what happened.
    True,
    /// It says that nobody can know, and nobody could. Worth counting.
    Unknown,
    /// The effect was had more than once.
    Twice,
    /// It says what did not happen, or hides what did.
    Untrue(String),
    /// It says that nobody can know, and what the device has to say of it has not been kept, or not yet.
    Untold,
    /// It never ended, or has not yet.
    Stuck,
}

impl Verdict {
    /// Whether time alone may make it another one.
    pub fn may_change(&self) -> bool {
        match self {
            Self::Untold | Self::Stuck => true,
            Self::True | Self::Unknown | Self::Twice | Self::Untrue(_) => false,
        }
    }
}

/// An invocation, and what is known of it from elsewhere.
#[derive(Clone, Debug)]
pub struct Case {
    pub invocation: CapabilityInvocation,
    /// What was done for it; where it has an idempotency key, for all that have that key.
    pub effect: Effect,
    /// What was done for it alone, where that is known apart.
    pub own: Option<Effect>,
    /// When its end was written.
    pub written: Option<Timestamp>,
    /// By so much that moment and the clocks of who wrote may differ from the one that stamped its creation.
    pub clocks: SignedDuration,
    /// Whether its device's agent ended while it was open.
    pub restarted: bool,
    /// Whether nothing went wrong while it was open.
    pub calm: bool,
}

/// Compares all, each by its name.
pub fn judge_all(cases: &[Case]) -> Vec<(String, Verdict)> {
    let mut keys: BTreeMap<(&str, &str), Vec<&Case>> = BTreeMap::new();
    let mut verdicts = Vec::new();
    for case in cases {
        let spec = &case.invocation.spec;
        match &spec.idempotency_key {
            Some(key) => keys
                .entry((&spec.device_ref.name, key))
                .or_default()
                .push(case),
            None => verdicts.push((case.name(), judge(case))),
        }
    }
    for holders in keys.values() {
        let names = holders.iter().map(|case| case.name());
        verdicts.extend(names.zip(keyed::judge(holders)));
    }
    let unfinished = cases
        .iter()
        .filter_map(|case| Some((case.name(), not_finished(case)?)));
    let unfinished: BTreeMap<String, Verdict> = unfinished.collect();
    for (name, verdict) in &mut verdicts {
        if let Some(found) = unfinished.get(name) {
            verdict.clone_from(found);
        }
    }
    verdicts
}

/// Whether `Finished` says otherwise than the phase: it is written with every end, and never before.
fn not_finished(case: &Case) -> Option<Verdict> {
    let status = case.status();
    let finished = find(&status.conditions, FINISHED);
    match (status.phase.is_terminal(), finished) {
        (false, None) => None,
        (false, Some(_)) => Some(case.untrue("it is Finished and has not ended")),
        (true, Some(finished))
            if finished.status == "True" && finished.reason == status.phase.as_str() =>
        {
            None
        }
        (true, _) => Some(case.untrue("it has ended and is not Finished as it ended")),
    }
}

/// Compares one that stands for itself.
fn judge(case: &Case) -> Verdict {
    let status = case.status();
    if case.effect.began > 1 {
        return Verdict::Twice;
    }
    if !status.phase.is_terminal() {
        return Verdict::Stuck;
    }
    if let Some(why) = contradiction(&status, case.effect) {
        return case.untrue(why);
    }
    if status.phase != InvocationPhase::Unknown {
        return Verdict::True;
    }
    let verdict = unknown(case, case.effect);
    if verdict == Verdict::Unknown && silence_is_over(&status, case.effect) {
        return Verdict::Untold;
    }
    verdict
}

/// What an end says that is not so.
fn contradiction(status: &CapabilityInvocationStatus, effect: Effect) -> Option<&'static str> {
    match status.phase {
        InvocationPhase::Queued
        | InvocationPhase::Dispatched
        | InvocationPhase::AwaitingMediation
        | InvocationPhase::Unknown => return None,
        InvocationPhase::Succeeded => return (effect.done != 1).then_some("it was not done"),
        InvocationPhase::Failed
        | InvocationPhase::Refused
        | InvocationPhase::TimedOut
        | InvocationPhase::Cancelled => {}
    }
    let Some(error) = &status.error else {
        return Some("it does not say why");
    };
    if effect.done > 0 {
        return Some("it was done");
    }
    if effect.began > 0 && !admits(error) {
        return Some("it was begun");
    }
    let is_failure = error.code == ErrorCode::CapabilityFailed;
    // The program catches the signal by which it is stopped. Where it was failing at that moment, its exit code is all that
    // the agent sees, and the same.
    let is_stop = matches!(
        error.code,
        ErrorCode::Cancelled | ErrorCode::DeadlineExceeded
    );
    match effect.failed {
        1 if is_failure || is_stop => None,
        0 if !is_failure => None,
        _ if is_failure => Some("it did not fail"),
        _ => Some("it came to its end"),
    }
}

/// Whether these words allow that it had begun.
fn admits(error: &InvocationError) -> bool {
    match error.code.explained().ran {
        Ran::No => false,
        Ran::Yes => true,
        // Of what was cancelled the message tells. What else nobody can know is Unknown, or it never started.
        Ran::Perhaps if error.code == ErrorCode::Cancelled => error.message == STOPPED_WHILE_IT_RAN,
        Ran::Perhaps => error.code == ErrorCode::Internal,
    }
}

/// Whether "nobody can know" is honest: the device had its time, and was not heard, or it was heard, and cannot know. `own`
/// is what was done for it alone, as far as that is known: a late success may be another one's that has the same key, but
/// only of itself it may say that it was not done.
fn unknown(case: &Case, own: Effect) -> Verdict {
    let status = case.status();
    let code = status.error.as_ref().map(|error| error.code);
    // Another one's end is repeated, which may have been long ago, or is forgotten.
    if status.duplicate_of.is_some() {
        return Verdict::Unknown;
    }
    if case.calm {
        return case.untrue("nothing went wrong");
    }
    match code {
        Some(ErrorCode::AgentRestarted) if case.restarted => Verdict::Unknown,
        Some(ErrorCode::AgentRestarted) => case.untrue("its agent went on all the time"),
        Some(ErrorCode::NoAnswer) if case.written < earliest(case) || case.written.is_none() => {
            case.untrue("nobody waited for its answer")
        }
        Some(ErrorCode::NoAnswer) => match late_word(&status) {
            Some("Succeeded") if case.effect.done != 1 => {
                case.untrue("its late answer says that it was done")
            }
            Some("Failed" | "Refused" | "TimedOut" | "Cancelled") if own.done > 0 => {
                case.untrue("its late answer says that it was not done")
            }
            Some(_) | None => Verdict::Unknown,
        },
        Some(_) | None => case.untrue("that is no reason not to know"),
    }
}

/// The first moment at which a device can have been waited for in vain: it has its time, and a moment for its answer.
fn earliest(case: &Case) -> Option<Timestamp> {
    let created = case.invocation.metadata.creation_timestamp.as_ref()?.0;
    let time = SignedDuration::from_secs(case.invocation.spec.timeout_seconds + ANSWER_SECONDS);
    created.checked_add(time - case.clocks).ok()
}

/// Whether the device, which is heard again, knows what became of it, and nobody kept what it says.
fn silence_is_over(status: &CapabilityInvocationStatus, own: Effect) -> bool {
    let code = status.error.as_ref().map(|error| error.code);
    code == Some(ErrorCode::NoAnswer) && own.began > 0 && late_word(status).is_none()
}

fn late_word(status: &CapabilityInvocationStatus) -> Option<&str> {
    find(&status.conditions, ANSWERED_LATE).map(|late| late.reason.as_str())
}

impl Case {
    fn name(&self) -> String {
        self.invocation.name_any()
    }

    fn status(&self) -> CapabilityInvocationStatus {
        self.invocation.status.clone().unwrap_or_default()
    }

    fn untrue(&self, why: &str) -> Verdict {
        let Self { effect, own, .. } = self;
        let status = self.status();
        let code = status.error.as_ref().map(|error| error.code);
        let of_key = own.map_or(String::new(), |own| format!(", itself {own:?}"));
        let phase = status.phase.as_str();
        Verdict::Untrue(format!("{phase} {code:?}: {why} ({effect:?}{of_key})"))
    }
}
