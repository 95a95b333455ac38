//! Why a pairing did not come to an end, and whether it makes sense to go on by itself.

use std::time::Duration;

use tonic::{Code, Status};

use super::issued;
use crate::{state, terminal::printable, upstream::connect};

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reach the gateway at {gateway}")]
    Unreachable {
        gateway: String,
        source: connect::Error,
    },
    /// The certificate is not from the pinned authority.
    #[error(
        "whoever answers at {gateway} is not a gateway of the authority that this pairing is with: check the address; if it \
         is right, somebody may be in the middle"
    )]
    NotTrusted {
        gateway: String,
        source: connect::Error,
    },
    /// Wrong, unknown, used, expired and locked look the same from outside, and so does a relay.
    #[error(
        "the code was not proved: it may be mistyped, used, locked or expired, or whoever answers is not the gateway. \
         Nothing was sent that gives the code away. Check it with your administrator (`kubectl get pcode`), then run \
         pair again; it is not tried again by itself"
    )]
    CodeNotProved,
    #[error(
        "the gateway does not know this device's key: the pairing broke off before the code was proved, or was removed. \
         Run pair again with a code"
    )]
    NotAdmitted,
    #[error("denied: {reason}{}", after(*retry_after))]
    Denied {
        reason: String,
        retry_after: Duration,
    },
    #[error("nobody decided in time: ask for a new code and run pair again")]
    RequestExpired,
    #[error("approved, but no certificate could be issued: {reason}")]
    NotIssued { reason: String },
    #[error(
        "the certificate that came is not what was asked for, and was refused: have the cluster's administrator check the \
         gateway, then run pair again"
    )]
    Forged(#[from] issued::Refusal),
    #[error("the gateway has no time{}", after(retry_after.unwrap_or_default()))]
    Busy { retry_after: Option<Duration> },
    /// The stream broke. The key is the ticket back.
    #[error("the exchange with the gateway broke off: {reason}")]
    Lost {
        reason: String,
        retry_after: Option<Duration>,
    },
    #[error("the gateway refused: {reason}")]
    Refused { reason: String },
    #[error("the gateway sent {0}")]
    Protocol(&'static str),
    #[error("use this device's key")]
    Key(#[from] rcgen::Error),
    #[error(transparent)]
    State(#[from] state::Error),
}

fn after(duration: Duration) -> String {
    match duration.as_secs() {
        0 => String::new(),
        seconds => format!(" (try again in {seconds} s)"),
    }
}

impl Error {
    pub(super) fn of_connect(gateway: &str, source: connect::Error) -> Self {
        let gateway = gateway.to_owned();
        match source {
            connect::Error::Untrusted(_) => Self::NotTrusted { gateway, source },
            connect::Error::Tcp(_)
            | connect::Error::TooSlow(_)
            | connect::Error::LookUp { .. }
            | connect::Error::Proxy { .. }
            | connect::Error::NoneAnswered(_)
            | connect::Error::Tls(_)
            | connect::Error::Setup(_)
            | connect::Error::Http(_) => Self::Unreachable { gateway, source },
        }
    }

    pub(super) fn lost(status: &Status) -> Self {
        Self::Lost {
            reason: printable(status.message()),
            retry_after: retry_after(status),
        }
    }

    pub(super) fn of_status(status: &Status) -> Self {
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => Self::CodeNotProved,
            Code::NotFound => Self::NotAdmitted,
            Code::ResourceExhausted => Self::Busy {
                retry_after: retry_after(status),
            },
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::OutOfRange
            | Code::AlreadyExists
            | Code::DataLoss => Self::Refused {
                reason: printable(status.message()),
            },
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable => Self::lost(status),
        }
    }

    /// What it means where a proof may still be on its way into the gateways' knowledge: that they do not know this key
    /// says nothing then. To believe it would throw a pairing away whose code is used up.
    pub(super) fn settled(self, settled: bool) -> Self {
        if settled || !matches!(self, Self::NotAdmitted) {
            return self;
        }
        Self::Lost {
            reason: "the gateway does not know of this device's proof yet".to_owned(),
            retry_after: None,
        }
    }

    /// Whether an interrupted pairing may go on by itself, and the least pause before it does. Only what says nothing
    /// about the request itself; a code is never proved twice by this.
    pub(super) fn may_resume(&self) -> Option<Duration> {
        match self {
            Self::Unreachable { .. } | Self::NotTrusted { .. } => Some(Duration::ZERO),
            Self::Lost { retry_after, .. } | Self::Busy { retry_after } => {
                Some(retry_after.unwrap_or_default())
            }
            Self::CodeNotProved
            | Self::NotAdmitted
            | Self::Denied { .. }
            | Self::RequestExpired
            | Self::NotIssued { .. }
            | Self::Forged(_)
            | Self::Refused { .. }
            | Self::Protocol(_)
            | Self::Key(_)
            | Self::State(_) => None,
        }
    }

    /// Whether nothing is left to come back to.
    pub(super) fn ends_the_pairing(&self) -> bool {
        match self {
            Self::CodeNotProved
            | Self::NotAdmitted
            | Self::Denied { .. }
            | Self::RequestExpired
            | Self::NotIssued { .. } => true,
            Self::Unreachable { .. }
            | Self::NotTrusted { .. }
            | Self::Forged(_)
            | Self::Busy { .. }
            | Self::Lost { .. }
            | Self::Refused { .. }
            | Self::Protocol(_)
            | Self::Key(_)
            | Self::State(_) => false,
        }
    }
}

/// When a gateway that has no time wants to be asked again.
pub(crate) fn retry_after(status: &Status) -> Option<Duration> {
    let millis = status.metadata().get(proto::RETRY_AFTER)?;
    millis
        .to_str()
        .ok()?
        .parse()
        .ok()
        .map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_nothing_about_the_request_is_tried_again_by_itself() {
        for (code, resumes, ends) in [
            (Code::PermissionDenied, false, true),
            (Code::NotFound, false, true),
            (Code::InvalidArgument, false, false),
            (Code::Unimplemented, false, false),
            (Code::Unavailable, true, false),
            (Code::Unknown, true, false),
            (Code::Internal, true, false),
            (Code::ResourceExhausted, true, false),
        ] {
            let error = Error::of_status(&Status::new(code, "why"));
            assert_eq!(error.may_resume().is_some(), resumes, "{code:?}");
            assert_eq!(error.ends_the_pairing(), ends, "{code:?}");
        }
    }

    #[test]
    fn that_a_key_is_not_known_counts_only_once_its_proof_must_be() {
        let not_found = || Error::of_status(&Status::not_found("this key never proved a code"));
        let early = not_found().settled(false);
        assert!(early.may_resume().is_some() && !early.ends_the_pairing());
        let late = not_found().settled(true);
        assert!(late.may_resume().is_none() && late.ends_the_pairing());
        assert!(Error::RequestExpired.settled(false).ends_the_pairing());
    }

    #[test]
    fn a_busy_gateway_says_when() {
        let mut status = Status::resource_exhausted("full");
        assert_eq!(retry_after(&status), None);
        for (text, expected) in [("1500", Some(1500)), ("-1", None), ("soon", None)] {
            status
                .metadata_mut()
                .insert(proto::RETRY_AFTER, text.parse().unwrap());
            assert_eq!(
                retry_after(&status),
                expected.map(Duration::from_millis),
                "{text}"
            );
        }
    }
}
