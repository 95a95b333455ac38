//! Why a call or a stream is refused or ended, and how gRPC says it. The only such mapping.

use std::time::Duration;

use jiff::Timestamp;
use tonic::{Code, Status};

use super::{live::Full, metrics::StreamEnd};
use crate::{
    domain::{device::Denied, register::Invalid},
    heavy::Busy,
    peer::expired,
    status::{full, later},
};

/// Why a device's call or stream is refused or ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    NotAdmitted(Denied),
    /// What the device said is not what the protocol allows.
    Malformed(String),
    Invalid(Invalid),
    /// The certificate of its connection was valid until then.
    Expired(Timestamp),
    /// No Hello came first, or in time, or its registration is not known here.
    NotRegistered,
    /// A newer stream of the same device took its place.
    Replaced,
    /// The device has a newer session with that gateway.
    Moved(String),
    /// Nothing was heard of it for three heartbeats.
    Silent,
    /// It does not read what it is sent.
    NeverReads,
    /// The device begins sessions too often; it may begin the next one after that.
    TooManySessions(Duration),
    /// The device declares what it can do too often.
    TooManyDeclarations(Duration),
    /// As many streams as may be, or the gateway stops.
    NoPlace(Full),
    /// Too much is being computed for it.
    Busy,
    /// The watches have not filled the index yet.
    NotReady,
}

impl Refusal {
    /// As the metrics name it.
    pub fn stream_end(&self) -> StreamEnd {
        match self {
            Self::NotAdmitted(_) => StreamEnd::NotAdmitted,
            Self::Malformed(_) | Self::Invalid(_) => StreamEnd::Malformed,
            Self::Expired(_) => StreamEnd::Expired,
            Self::NotRegistered => StreamEnd::NotRegistered,
            Self::Replaced => StreamEnd::Replaced,
            Self::Moved(_) => StreamEnd::Moved,
            Self::Silent => StreamEnd::Silent,
            Self::NeverReads => StreamEnd::NeverReads,
            Self::TooManySessions(_) | Self::TooManyDeclarations(_) => StreamEnd::TooOften,
            Self::NoPlace(Full::Full) | Self::Busy => StreamEnd::Full,
            Self::NoPlace(Full::Draining) | Self::NotReady => StreamEnd::Stopped,
        }
    }
}

impl From<Busy> for Refusal {
    fn from(Busy: Busy) -> Self {
        Self::Busy
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self::NotAdmitted(denied)
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        Self::NoPlace(full)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotAdmitted(denied) => Self::permission_denied(denied.to_string()),
            Refusal::Malformed(what) => Self::invalid_argument(what),
            Refusal::Invalid(invalid) => Self::invalid_argument(invalid.to_string()),
            Refusal::Expired(not_after) => expired(not_after),
            Refusal::NotRegistered => {
                Self::failed_precondition("register first, then say Hello with the registration")
            }
            Refusal::Replaced => {
                Self::aborted("a newer stream of this device took the place of this one")
            }
            Refusal::Moved(gateway) => {
                Self::aborted(format!("this device has a newer session with {gateway}"))
            }
            Refusal::Silent => {
                Self::deadline_exceeded("nothing was heard of this device for three heartbeats")
            }
            Refusal::NeverReads => {
                Self::resource_exhausted("this device does not read what it is sent")
            }
            Refusal::TooManySessions(wait) => full(
                "this device begins sessions too often: keep one stream open",
                wait,
            ),
            Refusal::TooManyDeclarations(wait) => {
                full("this device declares its capabilities too often", wait)
            }
            Refusal::NoPlace(Full::Full) => full(
                "as many streams as this gateway may have",
                Duration::from_secs(5),
            ),
            Refusal::NoPlace(Full::Draining) => later(
                Code::Unavailable,
                "this gateway stops: use another one",
                Duration::from_secs(1),
            ),
            Refusal::Busy => later(
                Code::ResourceExhausted,
                "too much is being computed for this device",
                Duration::from_secs(5),
            ),
            Refusal::NotReady => later(
                Code::Unavailable,
                "this gateway is not ready yet",
                Duration::from_secs(1),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::RETRY_AFTER;

    use super::*;

    #[test]
    fn refusals_have_the_codes_that_the_protocol_names() {
        let rows = [
            (
                Refusal::NotAdmitted(Denied::Suspended),
                Code::PermissionDenied,
            ),
            (Refusal::Malformed(String::new()), Code::InvalidArgument),
            (
                Refusal::Invalid(Invalid::DeclaredTwice { index: 0 }),
                Code::InvalidArgument,
            ),
            (Refusal::Expired(Timestamp::MIN), Code::PermissionDenied),
            (Refusal::NotRegistered, Code::FailedPrecondition),
            (Refusal::Replaced, Code::Aborted),
            (Refusal::Moved("gateway-b".to_owned()), Code::Aborted),
            (Refusal::Silent, Code::DeadlineExceeded),
            (Refusal::NeverReads, Code::ResourceExhausted),
            (
                Refusal::TooManySessions(Duration::ZERO),
                Code::ResourceExhausted,
            ),
            (
                Refusal::TooManyDeclarations(Duration::ZERO),
                Code::ResourceExhausted,
            ),
            (Refusal::NoPlace(Full::Full), Code::ResourceExhausted),
            (Refusal::NoPlace(Full::Draining), Code::Unavailable),
            (Refusal::NotReady, Code::Unavailable),
        ];
        for (refusal, code) in rows {
            assert_eq!(Status::from(refusal.clone()).code(), code, "{refusal:?}");
        }
    }

    #[test]
    fn what_passes_says_when_to_come_back() {
        for refusal in [
            Refusal::TooManySessions(Duration::from_secs(1)),
            Refusal::TooManyDeclarations(Duration::from_secs(1)),
            Refusal::NoPlace(Full::Full),
            Refusal::NoPlace(Full::Draining),
            Refusal::NotReady,
        ] {
            assert!(Status::from(refusal).metadata().contains_key(RETRY_AFTER));
        }
    }
}
