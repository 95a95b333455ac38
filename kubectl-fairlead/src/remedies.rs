//! What to do about an invocation that did not succeed, as commands and flags of this program. Pure.
//!
//! The table of `crds` says the same in fields of the resource, for readers of the resource.

use crds::v1alpha1::capability_invocation::ErrorCode;

/// What the caller of `kubectl fairlead invoke DEVICE CAPABILITY` can do.
pub fn remedy(code: ErrorCode, device: &str, capability: &str) -> String {
    match code {
        ErrorCode::DeviceNotFound => {
            "list the devices with kubectl fairlead devices -A, and correct the name or -n"
                .to_owned()
        }
        ErrorCode::DeviceNotTrusted => format!(
            "see kubectl fairlead describe {device}; a suspended device comes back with kubectl fairlead resume {device}, any other must be paired again"
        ),
        ErrorCode::DeviceOffline => {
            "start the agent on the device, or wait for the device with --queue SECONDS".to_owned()
        }
        ErrorCode::CapabilityNotDeclared => {
            format!(
                "see what the device can do with kubectl fairlead describe {device}, and correct the name"
            )
        }
        ErrorCode::CapabilityNotGranted => format!(
            "kubectl fairlead grant {device} {capability}, or ask an administrator of the device for it"
        ),
        ErrorCode::CapabilityUnavailable => {
            "try again later; `fairlead-agent capabilities` on the device says what is missing"
                .to_owned()
        }
        ErrorCode::InputTooLarge => {
            "give a smaller --input, or a reference to what the device can fetch".to_owned()
        }
        ErrorCode::InvalidInput => format!(
            "correct --input; kubectl fairlead describe {device} shows what {capability} takes"
        ),
        ErrorCode::QueueFull => format!(
            "see the open ones with kubectl fairlead invocations {device} --open; cancel some with kubectl fairlead cancel, or wait"
        ),
        ErrorCode::DeadlineBeforeStart => {
            format!(
                "give a longer --timeout; kubectl fairlead invocations {device} --open shows whether it is busy"
            )
        }
        ErrorCode::Refused => "ask the person at the device".to_owned(),
        ErrorCode::NoDecision => {
            "tell the person at the device, and give a longer --timeout".to_owned()
        }
        ErrorCode::Cancelled => {
            "invoke it again if it is still wanted; what it did before it was stopped stays done"
                .to_owned()
        }
        ErrorCode::CapabilityFailed => "see what it has done before you invoke it again".to_owned(),
        ErrorCode::OutputTooLarge => {
            "ask for less, or have an administrator configure a store for the gateways".to_owned()
        }
        ErrorCode::ArtefactNotStored => {
            "see whether the store of the gateways works; to invoke it again runs it again"
                .to_owned()
        }
        ErrorCode::DeadlineExceeded => {
            "give a longer --timeout; see what it has done before you invoke it again".to_owned()
        }
        ErrorCode::AgentRestarted => "look at the device before you invoke it again".to_owned(),
        ErrorCode::NoAnswer => format!(
            "look at the device before you invoke it again; when it is back, kubectl fairlead describe {device} shows its late answer"
        ),
        ErrorCode::JournalUnavailable => {
            "free the disk of the device, or make the agent's state folder writable".to_owned()
        }
        ErrorCode::Internal => {
            "look at the logs of the agent and of the gateway, and report it".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Args;

    #[test]
    fn a_remedy_names_nothing_of_the_resource() {
        for code in ErrorCode::ALL {
            let text = remedy(code, "lamp", "echo");
            for foreign in [
                "spec.",
                "status.",
                "timeoutSeconds",
                "whenOffline",
                "maxOutputBytes",
            ] {
                assert!(!text.contains(foreign), "{code:?}: {text}");
            }
        }
    }

    #[test]
    fn every_command_that_a_remedy_names_exists() {
        let command = Args::command();
        for code in ErrorCode::ALL {
            let text = remedy(code, "lamp", "echo");
            for part in text.split("kubectl fairlead ").skip(1) {
                let verb = part.split([' ', ',', ';']).next().unwrap();
                assert!(command.find_subcommand(verb).is_some(), "{code:?}: {verb}");
            }
        }
    }
}
