//! Writes what became of an invocation: that it was sent, how far it came, and how it ended. Always to the version that
//! was seen; where somebody else wrote first, what is there is read and decided on again.

use std::sync::Arc;

use crds::conditions::{ANSWERED_LATE, find};
use jiff::Timestamp;
use proto::node;
use tokio::sync::OwnedSemaphorePermit;

use super::{Shared, api, metrics::LeftAside};
use crate::{
    artefact::Artefacts,
    clock::now,
    domain::{
        artefact::{Claim, Place},
        device::DeviceKey,
        invocation::OpenInvocation,
        late,
        repeated::{self, Told},
        result::{self, End},
        underway::{self, Underway},
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
    /// Its phase is another one, or nobody wants it.
    LeftAside(LeftAside),
    /// Somebody else wrote to the invocation, and what the gateway decided, or what a device could not do just then, is not
    /// decided any more.
    Changed,
}

/// Writes that it was sent, or that a person is asked; returns what is there then. `None`: it has ended or is gone.
pub async fn mark(
    shared: &Shared,
    mut invocation: Arc<OpenInvocation>,
    underway: Underway,
) -> Result<Option<Arc<OpenInvocation>>, api::Error> {
    for _ in 0..CONFLICTS {
        if invocation.phase().is_terminal() {
            return Ok(None);
        }
        let gateway = &shared.settings.gateway;
        let Some(status) = underway::status(&invocation, gateway, underway.clone()) else {
            return Ok(Some(invocation));
        };
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

/// Writes how far it came, once and only where that keeps nobody waiting: the next progress says more.
pub async fn tell(
    shared: &Shared,
    invocation: Arc<OpenInvocation>,
    underway: Underway,
) -> Result<Option<Arc<OpenInvocation>>, api::Error> {
    let Some(status) = underway::status(&invocation, &shared.settings.gateway, underway) else {
        return Ok(Some(invocation));
    };
    let version = shared.requests.write_progress(&invocation, &status).await?;
    Ok(Some(Arc::new(invocation.written(status, version))))
}

/// Writes the end of an invocation, if it is this device's and has not ended. `known` spares a read. Where it has ended
/// otherwise, what the device says is kept beside that. Gives the answer back where trying again may help.
pub async fn finish(
    shared: &Shared,
    device: &DeviceKey,
    uid: &str,
    name: &str,
    mut known: Option<Arc<OpenInvocation>>,
    answer: Answer,
) -> Result<Finish, (Answer, api::Error)> {
    let mut refused: Option<String> = None;
    let mut sent: Option<Sent> = None;
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
        let now_sent = Sent::of(&invocation);
        if is_of_the_moment(&answer) && *sent.get_or_insert_with(|| now_sent.clone()) != now_sent {
            // Another stream sent it since: that one's answer counts.
            return Ok(Finish::Changed);
        }
        let end = match (&refused, &answer) {
            (Some(why), _) => End::not_storable(why),
            (None, Answer::Ours(end)) => end.clone(),
            (None, Answer::Device { result, .. }) => {
                match read(shared, &invocation, result).await {
                    Ok(end) => end,
                    Err(error) => return Err((answer, error)),
                }
            }
        };
        if invocation.phase().is_terminal() {
            if let Answer::Ours(_) = answer {
                return Ok(Finish::LeftAside(LeftAside::Ended));
            }
            match tell_late(shared, &invocation, &end).await {
                Ok(aside) => return Ok(Finish::LeftAside(aside)),
                Err(api::Error::Conflict) => continue,
                Err(error) => return Err((answer, error)),
            }
        }
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

/// By whom and when it was sent, as far as that is written.
#[derive(Clone, Eq, PartialEq)]
struct Sent {
    gateway: Option<String>,
    at: Option<Timestamp>,
}

impl Sent {
    fn of(invocation: &OpenInvocation) -> Self {
        let status = invocation.status();
        Self {
            gateway: status.and_then(|status| status.gateway.clone()),
            at: status.and_then(|status| Some(status.dispatched_at.as_ref()?.0)),
        }
    }
}

/// Whether the device may say otherwise when it is asked again. What it answers is in its journal, but for this: that it
/// cannot write to it.
fn is_of_the_moment(answer: &Answer) -> bool {
    match answer {
        Answer::Ours(_) => false,
        Answer::Device { result, .. } => {
            let failure = result.failure.as_ref();
            failure.is_some_and(|failure| failure.code() == node::FailureCode::JournalUnavailable)
        }
    }
}

/// How it ended, as the device says. Of an artefact the store is asked: a device that says that one is there is not
/// believed.
async fn read(
    shared: &Shared,
    invocation: &OpenInvocation,
    result: &node::Result,
) -> Result<End, api::Error> {
    let succeeded = result.outcome() == node::Outcome::Succeeded;
    let Some(artefact) = result.artefact.as_ref().filter(|_| succeeded) else {
        if let Some(end) = repeat(shared, invocation, result).await? {
            return Ok(end);
        }
        return Ok(End::reported(result, invocation.spec().max_output_bytes));
    };
    let Some(Artefacts { store, .. }) = &shared.settings.artefacts else {
        return Ok(End::not_stored(
            result,
            "this gateway has no store to find its output in",
        ));
    };
    let claim = match Claim::read(artefact, u64::MAX) {
        Ok(claim) => claim,
        Err(why) => return Ok(End::not_stored(result, &why)),
    };
    let place = Place {
        namespace: invocation.device.namespace.clone(),
        name: invocation.name.clone(),
        uid: invocation.uid.clone(),
        claim,
    };
    if store.has(&place).await.map_err(api::Error::Store)? {
        Ok(End::stored(result, &place))
    } else {
        Ok(End::not_stored(
            result,
            "the output that the device speaks of is not in the store",
        ))
    }
}

/// How one ended whose output is the artefact of another with its key. `None` where that cannot be told any more.
async fn repeat(
    shared: &Shared,
    invocation: &OpenInvocation,
    result: &node::Result,
) -> Result<Option<End>, api::Error> {
    let Some(name) = repeated::first(invocation, result) else {
        return Ok(None);
    };
    let namespace = &invocation.device.namespace;
    let first = match shared.requests.invocation(namespace, name).await {
        Ok(Some(first)) => first,
        Ok(None) | Err(api::Error::Gone | api::Error::Unreadable) => return Ok(None),
        Err(error) => return Err(error),
    };
    match repeated::told(invocation, result, &first) {
        Told::End(end) => Ok(Some(*end)),
        // The device told its end as well: it is being written.
        Told::NotYet => Err(api::Error::NotYet),
        Told::Nothing => Ok(None),
    }
}

/// Keeps what the device says beside another end that was written before.
async fn tell_late(
    shared: &Shared,
    invocation: &OpenInvocation,
    end: &End,
) -> Result<LeftAside, api::Error> {
    let Some(conditions) = late::told(invocation, end, now()) else {
        return Ok(LeftAside::Ended);
    };
    match shared
        .requests
        .write_conditions(invocation, &conditions)
        .await
    {
        Ok(()) => {
            tracing::info!(
                device = %invocation.device,
                invocation = invocation.name,
                written = invocation.phase().as_str(),
                answered = end.phase.as_str(),
                "Answered late"
            );
            let note = find(&conditions, ANSWERED_LATE).map_or("", |late| &late.message);
            if let Err(error) = shared.requests.tell_late(invocation, note).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    device = %invocation.device,
                    invocation = invocation.name,
                    "Writing the event of a late answer failed: its condition tells"
                );
            }
            Ok(LeftAside::Late)
        }
        Err(api::Error::Gone) => Ok(LeftAside::Ended),
        Err(api::Error::Invalid(why)) => {
            tracing::warn!(
                device = %invocation.device,
                invocation = invocation.name,
                why,
                "The API server refuses a late answer"
            );
            Ok(LeftAside::Ended)
        }
        Err(error) => Err(error),
    }
}
