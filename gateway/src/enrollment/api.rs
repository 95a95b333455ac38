//! Calls to the API server: bounded in time, with errors that say what a device is told of them.

use std::time::Duration;

use tonic::{Code, Status};

use crate::status::later;

/// Longest time that one call may take.
const CALL_TIME: Duration = Duration::from_secs(10);
/// When a device may try again after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the API server did not answer within {CALL_TIME:?}")]
    TimedOut,
    #[error("call the API server")]
    Kube(#[source] Box<kube::Error>),
    #[error("digest the spec")]
    Digest(#[from] crds::digest::Error),
}

impl Error {
    /// Whether somebody else was quicker: what was read before is old. Policies and schema compare with what is there
    /// now, so their refusals mean the same to who wrote by what he read.
    pub fn is_outdated(&self) -> bool {
        self.code()
            .is_some_and(|code| matches!(code, 403 | 409 | 422))
    }

    /// The API server's status code, where it answered.
    pub fn code(&self) -> Option<u16> {
        if let Self::Kube(error) = self
            && let kube::Error::Api(status) = &**error
        {
            Some(status.code)
        } else {
            None
        }
    }
}

/// The device learns that it is not its fault, and nothing of what is behind us.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "An enrolment failed for want of the API server"
        );
        later(
            Code::Unavailable,
            "the cluster does not answer: try again",
            RETRY_AFTER,
        )
    }
}

/// Waits for a call, for so long.
pub async fn call<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL_TIME, answer).await {
        Ok(answer) => answer.map_err(|error| Error::Kube(Box::new(error))),
        Err(_) => Err(Error::TimedOut),
    }
}
