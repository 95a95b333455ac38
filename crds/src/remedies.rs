//! What happened where an invocation did not succeed, whether the capability ran, and what the user can do: one table for
//! whoever shows a code. `docs/invocations.md` is kept to it by a test.

use crate::v1alpha1::capability_invocation::ErrorCode;

/// Whether the capability had begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ran {
    No,
    /// Nobody can know. To do it again may do it twice.
    Perhaps,
    Yes,
}

impl Ran {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Perhaps => "perhaps",
            Self::Yes => "yes",
        }
    }
}

/// What is to be said of a code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Explained {
    pub happened: &'static str,
    pub ran: Ran,
    /// What the user can do.
    pub remedy: &'static str,
}

impl ErrorCode {
    /// Every code, in the order of an invocation's life.
    pub const ALL: [Self; 21] = [
        Self::DeviceNotFound,
        Self::DeviceNotTrusted,
        Self::DeviceOffline,
        Self::CapabilityNotDeclared,
        Self::CapabilityNotGranted,
        Self::CapabilityUnavailable,
        Self::InputTooLarge,
        Self::InvalidInput,
        Self::QueueFull,
        Self::DeadlineBeforeStart,
        Self::Refused,
        Self::NoDecision,
        Self::Cancelled,
        Self::CapabilityFailed,
        Self::OutputTooLarge,
        Self::ArtefactNotStored,
        Self::DeadlineExceeded,
        Self::AgentRestarted,
        Self::NoAnswer,
        Self::JournalUnavailable,
        Self::Internal,
    ];

    /// What the user can do.
    pub fn remedy(self) -> &'static str {
        self.explained().remedy
    }

    /// The line of the table.
    #[expect(clippy::too_many_lines, reason = "a table")]
    pub fn explained(self) -> Explained {
        let (happened, ran, remedy) = match self {
            Self::DeviceNotFound => (
                "There is no Device of that name in the namespace.",
                Ran::No,
                "Look at `kubectl get devices` in the same namespace, and correct `spec.deviceRef.name`.",
            ),
            Self::DeviceNotTrusted => (
                "The device is suspended or revoked, or its certificate has expired.",
                Ran::No,
                "`kubectl get device NAME` says which. Set `spec.trust` to Active, or pair the device again.",
            ),
            Self::DeviceOffline => (
                "The device holds no stream to a gateway, or did not come while the invocation waited.",
                Ran::No,
                "See that the agent runs and reaches a gateway, or use `whenOffline: Queue` and a longer `queueSeconds`.",
            ),
            Self::CapabilityNotDeclared => (
                "The device does not have that capability.",
                Ran::No,
                "`status.capabilities` of the Device lists what it has. Correct the name, or add the capability to the agent's configuration.",
            ),
            Self::CapabilityNotGranted => (
                "The device has the capability, and may not run it.",
                Ran::No,
                "Who administers the device adds it to `spec.grants.capabilities` of the Device; where the device declares it otherwise than it was granted, its `surfaceSha256` to `spec.grants.surfaces`. The condition CapabilitiesGranted of the Device has the command.",
            ),
            Self::CapabilityUnavailable => (
                "The device has the capability, and cannot run it now.",
                Ran::No,
                "Try later, or look at the device: what the capability needs is missing there.",
            ),
            Self::InputTooLarge => (
                "The input has more than 32 KiB as JSON.",
                Ran::No,
                "Give less, or give a reference to what the device can fetch.",
            ),
            Self::InvalidInput => (
                "The capability does not accept the input, or the input is nested too deeply to be read.",
                Ran::No,
                "The message says what is wrong with it. Correct `spec.input`.",
            ),
            Self::QueueFull => (
                "The device has 256 older open invocations, the namespace has 4096, or the agent has as many as it takes.",
                Ran::No,
                "Wait until some have ended, or cancel some, then make it again.",
            ),
            Self::DeadlineBeforeStart => (
                "The time was over before the device could start it.",
                Ran::No,
                "Use a longer `timeoutSeconds`; see whether the device is busy.",
            ),
            Self::Refused => (
                "The person at the device, or its rules, said no.",
                Ran::No,
                "`status.mediation` says who and why. Ask that person.",
            ),
            Self::NoDecision => (
                "The person at the device did not answer in time.",
                Ran::No,
                "Use a longer `timeoutSeconds`, and tell the person at the device.",
            ),
            Self::Cancelled => (
                "Somebody set `spec.cancel`, and it was not begun or was stopped.",
                Ran::Perhaps,
                "Nothing. If it had begun, the message says so; what was done until then stays done.",
            ),
            Self::CapabilityFailed => (
                "The capability ran and reported an error.",
                Ran::Yes,
                "The message is what the capability said of it. See what it has done until then before you do it again.",
            ),
            Self::OutputTooLarge => (
                "The capability ran, and its output is larger than `maxOutputBytes`, and than what the gateways store.",
                Ran::Yes,
                "Use a larger `maxOutputBytes`, 262144 at most, ask for less, or have a store configured for the gateways.",
            ),
            Self::ArtefactNotStored => (
                "The capability ran, and its output could not be stored: the store did not take it, or the time was over.",
                Ran::Yes,
                "The message says which. Look at the store, or use a longer `timeoutSeconds`; to ask again is to run it again.",
            ),
            Self::DeadlineExceeded => (
                "The capability was stopped at the deadline.",
                Ran::Yes,
                "Use a longer `timeoutSeconds`. See what it has done until then before you do it again.",
            ),
            Self::AgentRestarted => (
                "The agent stopped while the capability ran, and nobody knows how far it came.",
                Ran::Perhaps,
                "Look at the device before you do it again.",
            ),
            Self::NoAnswer => (
                "The device did not answer in time, and nobody knows whether it ran.",
                Ran::Perhaps,
                "Wait: when the device comes back, the condition AnsweredLate says what it did. Look at the device before you do it again.",
            ),
            Self::JournalUnavailable => (
                "The agent cannot write its journal, so it runs nothing.",
                Ran::No,
                "See to the disk of the device: it is full, or its state folder cannot be written.",
            ),
            Self::Internal => (
                "A program of Fairlead failed in a way that it has no word for.",
                Ran::Perhaps,
                "Look at the logs of the agent and of the gateway, and report it.",
            ),
        };
        Explained {
            happened,
            ran,
            remedy,
        }
    }
}
