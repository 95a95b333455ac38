//! The status of an invocation that its device has and that is not done yet.

use crds::v1alpha1::capability_invocation::{
    CapabilityInvocationStatus, InvocationPhase, Progress,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proto::node;

use super::{invocation::OpenInvocation, words::one_line};

/// Most characters of a progress's message, as the resource's schema has it.
const MAX_MESSAGE: usize = 256;

/// What is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Underway {
    /// When it was sent to the device.
    pub sent: Timestamp,
    /// The person at the device is being asked.
    pub asks: bool,
    /// How far it came, where the device said so.
    pub progress: Option<Progress>,
}

/// How far it came, as a device says. Bounded, for nothing else bounds it.
pub fn progress(reported: &node::Progress) -> Progress {
    Progress {
        percent: i64::from(reported.percent.min(100)),
        message: text(&reported.message, MAX_MESSAGE),
    }
}

/// One line of what a device says, of so many characters at most; `None` where it says nothing.
pub(super) fn text(reported: &str, characters: usize) -> Option<String> {
    (!reported.is_empty()).then(|| one_line(reported, characters))
}

/// The whole status that says so. `None` where the status there is says it already, or says that it ended.
pub fn status(
    invocation: &OpenInvocation,
    gateway: &str,
    underway: Underway,
) -> Option<CapabilityInvocationStatus> {
    let Underway {
        sent,
        asks,
        progress,
    } = underway;
    let before = invocation.status().cloned().unwrap_or_default();
    let phase = match before.phase {
        InvocationPhase::Queued | InvocationPhase::Dispatched if asks => {
            InvocationPhase::AwaitingMediation
        }
        InvocationPhase::Queued | InvocationPhase::Dispatched => InvocationPhase::Dispatched,
        InvocationPhase::AwaitingMediation => InvocationPhase::AwaitingMediation,
        InvocationPhase::Succeeded
        | InvocationPhase::Failed
        | InvocationPhase::Refused
        | InvocationPhase::TimedOut
        | InvocationPhase::Cancelled
        | InvocationPhase::Unknown => return None,
    };
    let progress = progress.or_else(|| before.progress.clone());
    if phase == before.phase && progress == before.progress {
        return None;
    }
    Some(CapabilityInvocationStatus {
        phase,
        dispatched_at: before.dispatched_at.or(Some(Time(sent))),
        gateway: Some(gateway.to_owned()),
        progress,
        observed_generation: invocation.generation(),
        ..before
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fixtures::{at, minimal_invocation};

    fn underway(asks: bool) -> Underway {
        Underway {
            sent: at(5),
            asks,
            progress: None,
        }
    }

    fn in_phase(phase: InvocationPhase) -> OpenInvocation {
        let status = CapabilityInvocationStatus {
            phase,
            ..CapabilityInvocationStatus::default()
        };
        minimal_invocation().written(status, "2".to_owned())
    }

    #[test]
    fn a_phase_is_written_once_and_never_goes_back() {
        use InvocationPhase::{AwaitingMediation, Dispatched, Queued};

        let rows = [
            (Queued, false, Some(Dispatched)),
            (Queued, true, Some(AwaitingMediation)),
            (Dispatched, false, None),
            (Dispatched, true, Some(AwaitingMediation)),
            (AwaitingMediation, false, None),
            (AwaitingMediation, true, None),
        ];
        for (before, asks, expected) in rows {
            let after = status(&in_phase(before), "gateway-a", underway(asks));
            assert_eq!(
                after.map(|status| status.phase),
                expected,
                "{before:?} {asks}"
            );
        }
    }

    #[test]
    fn what_has_ended_is_not_under_way() {
        let progressed = Underway {
            progress: Some(Progress::default()),
            ..underway(true)
        };
        for phase in InvocationPhase::TERMINAL {
            let after = status(&in_phase(phase), "gateway-a", progressed.clone());
            assert_eq!(after, None, "{phase:?}");
        }
    }

    #[test]
    fn the_moment_of_the_first_dispatch_stays() {
        let invocation = minimal_invocation();
        let first = status(&invocation, "gateway-a", underway(false)).unwrap();
        assert_eq!(first.dispatched_at, Some(Time(at(5))));
        assert_eq!(first.gateway.as_deref(), Some("gateway-a"));
        let invocation = invocation.written(first, "2".to_owned());
        let later = Underway {
            sent: at(9),
            ..underway(true)
        };
        let second = status(&invocation, "gateway-b", later).unwrap();
        assert_eq!(second.dispatched_at, Some(Time(at(5))));
    }

    #[test]
    fn progress_is_bounded_and_the_same_is_not_written_twice() {
        let reported = node::Progress {
            uid: "1".to_owned(),
            percent: u32::MAX,
            message: "ä".repeat(5000),
        };
        let progress = progress(&reported);
        assert_eq!(progress.percent, 100);
        assert_eq!(
            progress.message.as_ref().map(|text| text.chars().count()),
            Some(256)
        );
        let progressed = Underway {
            progress: Some(progress.clone()),
            ..underway(false)
        };
        let invocation = in_phase(InvocationPhase::Dispatched);
        let after = status(&invocation, "gateway-a", progressed.clone()).unwrap();
        assert_eq!(after.progress, Some(progress));
        let invocation = invocation.written(after, "3".to_owned());
        assert_eq!(status(&invocation, "gateway-a", progressed), None);
        assert_eq!(
            status(&invocation, "gateway-a", underway(false)),
            None,
            "none is no news"
        );
    }
}
