//! Writes what became of an invocation: that it was sent, and how it ended. Always to the version that was seen; where
//! somebody else wrote first, what is there is read and decided on again.

use std::sync::Arc;

use crds::v1alpha1::capability_invocation::InvocationPhase;
use jiff::Timestamp;
use proto::node;
use tokio::sync::OwnedSemaphorePermit;

use super::{Shared, api, metrics::LeftAside};
use crate::{
    clock::now,
    domain::{
        device::DeviceKey,
        invocation::OpenInvocation,
        result::{self, End},
    },
};

/// How often one write is based anew on what somebody else wrote.
const CONFLICTS: usize = 8;

/// How it ended, as the gateway or as the device says.
pub enum Answer {
    Ours(End),
    Device {
        result: Box<node::Result>,
        /// Its share of what all devices' results may take.
        _memory: OwnedSemaphorePermit,
    },
}

/// What became of the end of an invocation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Finish {
    /// It is in Kubernetes, as that phase.
    Written(&'static str),
    /// Nobody wants it.
    LeftAside(LeftAside),
    /// Somebody else wrote to the invocation, and what the gateway decided is not decided any more.
    Changed,
}

/// Writes `Dispatched`; returns what is there then. `None`: it has ended or is gone.
pub async fn mark(
    shared: &Shared,
    mut invocation: Arc<OpenInvocation>,
    sent: Timestamp,
) -> Result<Option<Arc<OpenInvocation>>, api::Error> {
    for _ in 0..CONFLICTS {
        let phase = invocation.phase();
        if phase.is_terminal() {
            return Ok(None);
        }
        if phase != InvocationPhase::Queued {
            return Ok(Some(invocation));
        }
        let status = result::dispatched(&invocation, &shared.settings.gateway, sent);
        match shared.requests.write_invocation(&invocation, &status).await {
            Ok(version) => return Ok(Some(Arc::new(invocation.written(status, version)))),
            Err(api::Error::Conflict) => {}
            Err(api::Error::Gone) => return Ok(None),
            Err(error) => return Err(error),
        }
        let found = shared
            .requests
            .invocation(&invocation.device.namespace, &invocation.name)
            .await;
        match found {
            Ok(Some(found)) if found.uid == invocation.uid => invocation = Arc::new(found),
            Ok(_) | Err(api::Error::Gone) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Err(api::Error::Conflict)
}

/// Writes the end of an invocation, if it is this device's and has not ended. `known` spares a read. Gives the answer
/// back where trying again may help.
pub async fn finish(
    shared: &Shared,
    device: &DeviceKey,
    uid: &str,
    name: &str,
    mut known: Option<Arc<OpenInvocation>>,
    answer: Answer,
) -> Result<Finish, (Answer, api::Error)> {
    let mut refused: Option<String> = None;
    for _ in 0..CONFLICTS {
        let invocation = match known.take() {
            Some(invocation) => invocation,
            None => match shared.requests.invocation(&device.namespace, name).await {
                Ok(Some(invocation)) => Arc::new(invocation),
                Ok(None) | Err(api::Error::Gone) => return Ok(Finish::LeftAside(LeftAside::Ended)),
                Err(error) => return Err((answer, error)),
            },
        };
        if invocation.device != *device {
            return Ok(Finish::LeftAside(LeftAside::OtherDevice));
        }
        if invocation.uid != uid {
            return Ok(Finish::LeftAside(LeftAside::OtherInvocation));
        }
        if invocation.phase().is_terminal() {
            return Ok(Finish::LeftAside(LeftAside::Ended));
        }
        let end = match (&refused, &answer) {
            (Some(why), _) => End::not_storable(why),
            (None, Answer::Ours(end)) => end.clone(),
            (None, Answer::Device { result, .. }) => {
                End::reported(result, invocation.spec().max_output_bytes)
            }
        };
        let phase = end.phase.as_str();
        let status = result::ended(&invocation, end, &shared.settings.gateway, now());
        match shared.requests.write_invocation(&invocation, &status).await {
            Ok(_) => return Ok(Finish::Written(phase)),
            Err(api::Error::Gone) => return Ok(Finish::LeftAside(LeftAside::Ended)),
            Err(api::Error::Conflict) => match answer {
                // What was decided on is not what is there.
                Answer::Ours(_) => return Ok(Finish::Changed),
                Answer::Device { .. } => {}
            },
            Err(api::Error::Invalid(why)) if refused.is_none() => {
                tracing::warn!(%device, invocation = name, why, "The API server refuses the end of an invocation");
                refused = Some(why);
                known = Some(invocation);
            }
            Err(error) => return Err((answer, error)),
        }
    }
    Err((answer, api::Error::Conflict))
}
