//! The end of one whose idempotency key another has that ran, and whose output is an artefact.
//!
//! A device keeps no copy of an artefact that was stored, so all that it can say of the second is that there is none. The
//! status of the first says where it is.

use crds::v1alpha1::capability_invocation::InvocationPhase;
use proto::node::{self, FailureCode, Outcome};

use super::{invocation::OpenInvocation, names::is_object_name, result::End};

/// The invocation that is to be asked, where the device says that this one has no output of its own.
pub fn first<'a>(invocation: &OpenInvocation, result: &'a node::Result) -> Option<&'a str> {
    let failure = result.failure.as_ref()?;
    let lacks_artefact = result.outcome() == Outcome::Failed
        && failure.code() == FailureCode::ArtefactNotStored
        && is_object_name(&result.duplicate_of)
        && invocation.spec().idempotency_key.is_some();
    lacks_artefact.then_some(&*result.duplicate_of)
}

/// What the first one's status says.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// Where the output is: the second ends so, too.
    End(Box<End>),
    /// Its end is not there yet.
    NotYet,
    Nothing,
}

/// Compares the second with the first.
pub fn told(invocation: &OpenInvocation, result: &node::Result, first: &OpenInvocation) -> Told {
    let (spec, of_first) = (invocation.spec(), first.spec());
    // The device has compared the inputs; a name may be that of another one by now.
    let is_same = first.device == invocation.device
        && first.uid != invocation.uid
        && of_first.capability == spec.capability
        && of_first.idempotency_key == spec.idempotency_key;
    if !is_same {
        return Told::Nothing;
    }
    if !first.phase().is_terminal() {
        return Told::NotYet;
    }
    let status = first
        .status()
        .filter(|status| status.phase == InvocationPhase::Succeeded);
    let Some(artefact) = status.and_then(|status| status.artefact.clone()) else {
        return Told::Nothing;
    };
    let reported = End::reported(result, 0);
    Told::End(Box::new(End {
        output_sha256: Some(artefact.sha256.clone()),
        artefact: Some(Box::new(artefact)),
        mediation: reported.mediation,
        duplicate_of: reported.duplicate_of,
        ..End::succeeded()
    }))
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::capability_invocation::{Artefact, CapabilityInvocationStatus};

    use super::*;
    use crate::domain::fixtures::{invocation_with, minimal_result};

    fn keyed(key: &str) -> OpenInvocation {
        invocation_with(|spec| spec.idempotency_key = Some(key.to_owned()))
    }

    fn first_with(phase: InvocationPhase, key: &str) -> OpenInvocation {
        let status = CapabilityInvocationStatus {
            phase,
            artefact: Some(Artefact {
                sha256: "ab".repeat(32),
                ..Artefact::default()
            }),
            ..CapabilityInvocationStatus::default()
        };
        let mut first = keyed(key).written(status, "2".to_owned());
        "uid-0".clone_into(&mut first.uid);
        first
    }

    fn no_artefact() -> node::Result {
        let mut result = minimal_result("uid-1");
        result.set_outcome(Outcome::Failed);
        let mut failure = node::Failure::default();
        failure.set_code(FailureCode::ArtefactNotStored);
        result.failure = Some(failure);
        "said-hi".clone_into(&mut result.duplicate_of);
        result
    }

    #[test]
    fn the_first_is_asked_where_the_device_says_that_there_is_no_artefact() {
        assert_eq!(first(&keyed("k"), &no_artefact()), Some("said-hi"));
        let alone = invocation_with(|_| {});
        assert_eq!(first(&alone, &no_artefact()), None);
        assert_eq!(first(&keyed("k"), &minimal_result("uid-1")), None);
        let mut odd = no_artefact();
        "?watch=1".clone_into(&mut odd.duplicate_of);
        assert_eq!(first(&keyed("k"), &odd), None);
    }

    #[test]
    fn the_second_ends_as_the_first_where_that_succeeded() {
        let told = |first: &OpenInvocation| told(&keyed("k"), &no_artefact(), first);
        let Told::End(end) = told(&first_with(InvocationPhase::Succeeded, "k")) else {
            unreachable!("it has an artefact")
        };
        assert_eq!(end.phase, InvocationPhase::Succeeded);
        assert_eq!(end.artefact.unwrap().sha256, "ab".repeat(32));
        assert_eq!(end.output_sha256, Some("ab".repeat(32)));
        assert_eq!(end.duplicate_of.as_deref(), Some("said-hi"));

        assert_eq!(
            told(&first_with(InvocationPhase::Dispatched, "k")),
            Told::NotYet
        );
        for first in [
            first_with(InvocationPhase::Failed, "k"),
            first_with(InvocationPhase::Succeeded, "another"),
            keyed("k"),
        ] {
            assert_eq!(told(&first), Told::Nothing);
        }
    }
}
