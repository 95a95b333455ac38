//! What happens to a code next. Pure.

use crds::{
    PairingCode,
    conditions::{self, READY, condition},
    names,
    v1alpha1::{PairingCodeStatus, pairing_code::CodePhase},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use pairing::code::PairingCode as Drawn;

use crate::{reconcile::settle, report::Note};

/// Everything that the plan may depend on.
#[derive(Clone, Debug)]
pub struct Observed {
    pub now: Timestamp,
    pub code: PairingCode,
    pub secret: CodeSecret,
    /// Where the code is not drawn yet.
    pub room: Room,
}

/// Whether there is room for one more code that can be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Room {
    Free,
    /// Older codes of the namespace fill its share.
    NamespaceIsFull {
        format: &'static str,
        /// How many of the format a namespace may have.
        most: usize,
    },
    /// Ids of the format run short in the cluster, and the namespace has some.
    ClusterIsFull {
        format: &'static str,
        usable: usize,
    },
}

/// How often a code is looked at again for which the cluster has no room: it is not seen when there is.
const CLUSTER_AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// The Secret that shows a code.
#[derive(Clone, Debug, PartialEq)]
pub enum CodeSecret {
    /// Nobody looked, for nothing depends on it.
    NotRead,
    Absent,
    /// Not the operator's, or not for a code.
    Foreign,
    /// Of a former code of the same name.
    Former {
        uid: String,
    },
    /// Of this code. `drawn` is absent where the Secret was tampered with.
    Ours {
        uid: String,
        drawn: Option<Drawn>,
    },
}

/// What must happen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order.
    pub changes: Vec<Change>,
    pub notes: Vec<Note>,
    pub requeue_at: Option<Timestamp>,
    /// The changes make no event that would bring the next pass.
    pub look_again: bool,
}

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Draw a code and show it in the Secret.
    Draw,
    /// Compute the password file and let the code be used. The status lacks the file.
    Activate {
        drawn: Drawn,
        secret_uid: String,
        status: Box<PairingCodeStatus>,
    },
    /// Stop showing the code.
    DeleteSecret {
        uid: String,
    },
    WriteStatus(Box<PairingCodeStatus>),
}

/// Whether nothing more will happen, and nothing is left to wipe.
pub fn has_ended(code: &PairingCode) -> bool {
    code.status.as_ref().is_some_and(|status| {
        matches!(
            status.phase,
            Some(CodePhase::Used | CodePhase::Expired | CodePhase::Locked)
        ) && status.password_file.is_none()
    })
}

/// Whether the code is still to be drawn, and in time.
pub fn waits_to_be_drawn(code: &PairingCode, now: Timestamp) -> bool {
    let status = code.status.as_ref();
    let created = code.metadata.creation_timestamp.as_ref();
    status.is_none_or(|status| status.phase.is_none())
        && created.is_some_and(|created| now < expires_at(code, created.0))
}

fn expires_at(code: &PairingCode, created_at: Timestamp) -> Timestamp {
    let ttl = SignedDuration::from_secs(code.spec.ttl_seconds.clamp(0, 86_400));
    let status = code.status.as_ref();
    status
        .and_then(|status| status.expires_at.as_ref())
        .map_or(created_at + ttl, |time| time.0)
}

/// Decides.
pub fn plan(observed: &Observed) -> Plan {
    let Some(created_at) = observed
        .code
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0)
    else {
        // Only an API server makes objects.
        return Plan::default();
    };
    let status = observed.code.status.clone().unwrap_or_default();
    let expires_at = expires_at(&observed.code, created_at);
    match status.phase {
        Some(CodePhase::Used | CodePhase::Expired | CodePhase::Locked) => wiped(observed, &status),
        Some(CodePhase::Active) => active(observed, &status, expires_at),
        None if observed.now >= expires_at => end(observed, &status, Ending::Expired),
        None => match no_room(observed) {
            None => undrawn(observed, &status, expires_at),
            Some((reason, message)) => {
                let plan = blocked(observed, &status, expires_at, reason, &message);
                let again = observed.now.checked_add(CLUSTER_AGAIN).ok();
                let again = again.filter(|_| matches!(observed.room, Room::ClusterIsFull { .. }));
                Plan {
                    requeue_at: again.into_iter().chain(plan.requeue_at).min(),
                    ..plan
                }
            }
        },
    }
}

/// Why the code waits to be drawn: a word for programs, and for people with what they can do.
fn no_room(observed: &Observed) -> Option<(&'static str, String)> {
    let instead = |format| match format {
        "numeric" => ", or make one with format Alphanumeric",
        _ => "",
    };
    match observed.room {
        Room::Free => None,
        Room::NamespaceIsFull { format, most } => Some((
            "TooManyCodes",
            format!(
                "the namespace has {most} older {format} codes, as many as it may: this one is drawn when one of them has ended; \
                 delete one{}",
                instead(format)
            ),
        )),
        // Without the number of them: a message that changes is a write.
        Room::ClusterIsFull { format, .. } => Some((
            "TooManyCodesInCluster",
            format!(
                "the ids of {format} codes run short in the cluster: this one is drawn when others have ended; delete codes that \
                 nobody needs{}",
                instead(format)
            ),
        )),
    }
}

/// Where the code stands before it can be used.
fn undrawn(observed: &Observed, status: &PairingCodeStatus, expires_at: Timestamp) -> Plan {
    let secret = names::code_secret(&observed.code.name_any());
    match &observed.secret {
        CodeSecret::NotRead => Plan::default(),
        CodeSecret::Absent => Plan {
            changes: vec![Change::Draw],
            look_again: true,
            ..Plan::default()
        },
        CodeSecret::Former { uid } => Plan {
            changes: vec![Change::DeleteSecret { uid: uid.clone() }],
            look_again: true,
            ..Plan::default()
        },
        CodeSecret::Foreign => blocked(
            observed,
            status,
            expires_at,
            "SecretConflict",
            &format!(
                "the Secret {secret} exists and is not this code's: delete this code, and make one with another name"
            ),
        ),
        CodeSecret::Ours { drawn: None, .. } => blocked(
            observed,
            status,
            expires_at,
            "SecretDamaged",
            &format!(
                "the Secret {secret} was changed before the code could be used: delete this code, and make another one"
            ),
        ),
        CodeSecret::Ours {
            uid,
            drawn: Some(drawn),
        } => {
            let message =
                format!("the code is in the Secret {secret} and can be used until {expires_at}");
            let status = PairingCodeStatus {
                phase: Some(CodePhase::Active),
                code_id: Some(drawn.id().to_owned()),
                expires_at: Some(Time(expires_at)),
                ..with_ready(observed, status.clone(), true, "Active", &message)
            };
            Plan {
                changes: vec![Change::Activate {
                    drawn: drawn.clone(),
                    secret_uid: uid.clone(),
                    status: Box::new(status),
                }],
                notes: vec![Note::normal("CodeActive", "Drawing", message)],
                requeue_at: Some(expires_at),
                look_again: false,
            }
        }
    }
}

/// A code that cannot be drawn waits for its end: a person has to help.
fn blocked(
    observed: &Observed,
    status: &PairingCodeStatus,
    expires_at: Timestamp,
    reason: &'static str,
    message: &str,
) -> Plan {
    let changed = with_ready(observed, status.clone(), false, reason, message);
    let change = settle(observed.code.status.as_ref(), changed).map(Change::WriteStatus);
    Plan {
        notes: change
            .iter()
            .map(|_| Note::warning(reason, "Drawing", message))
            .collect(),
        changes: change.into_iter().collect(),
        requeue_at: Some(expires_at),
        look_again: false,
    }
}

/// How a code ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    Used,
    Expired,
    Locked,
}

fn active(observed: &Observed, status: &PairingCodeStatus, expires_at: Timestamp) -> Plan {
    let spec = &observed.code.spec;
    let proof = SignedDuration::from_secs(names::PROOF_SECONDS);
    let out_of_attempts = status.attempts >= spec.max_attempts;
    // While the last challenge may still be answered, the tries that are counted may turn out right.
    let locks_at = out_of_attempts.then(|| {
        status
            .last_attempt_at
            .as_ref()
            .map_or(observed.now, |time| {
                time.0.saturating_add(proof).unwrap_or(time.0)
            })
    });
    if status.uses >= spec.max_uses {
        return end(observed, status, Ending::Used);
    }
    if observed.now >= expires_at {
        return end(observed, status, Ending::Expired);
    }
    if locks_at.is_some_and(|at| observed.now >= at) {
        return end(observed, status, Ending::Locked);
    }
    let secret = names::code_secret(&observed.code.name_any());
    let (ready, reason, message) = match &observed.secret {
        CodeSecret::Ours { .. } | CodeSecret::NotRead => (
            true,
            "Active",
            format!("the code is in the Secret {secret} and can be used until {expires_at}"),
        ),
        CodeSecret::Absent | CodeSecret::Foreign | CodeSecret::Former { .. } => (
            false,
            "SecretMissing",
            format!(
                "the Secret {secret} was deleted and cannot be made again; who has read the code can still use it. \
                 Delete this code to stop that, and make another one to have a code to show"
            ),
        ),
    };
    let changed = with_ready(observed, status.clone(), ready, reason, &message);
    let change = settle(observed.code.status.as_ref(), changed).map(Change::WriteStatus);
    let told = change.is_some() && !ready;
    Plan {
        changes: change.into_iter().collect(),
        notes: told
            .then(|| Note::warning(reason, "Showing", message))
            .into_iter()
            .collect(),
        requeue_at: Some(locks_at.map_or(expires_at, |at| at.min(expires_at))),
        look_again: false,
    }
}

fn end(observed: &Observed, status: &PairingCodeStatus, ending: Ending) -> Plan {
    let spec = &observed.code.spec;
    let (phase, reason, note, message) = match ending {
        Ending::Used => (
            CodePhase::Used,
            "Used",
            Note::normal as fn(_, _, String) -> _,
            format!(
                "{} of {} devices proved the code",
                status.uses, spec.max_uses
            ),
        ),
        Ending::Expired => (
            CodePhase::Expired,
            "Expired",
            Note::normal as fn(_, _, String) -> _,
            format!(
                "{} of {} devices proved the code in its {} seconds",
                status.uses, spec.max_uses, spec.ttl_seconds
            ),
        ),
        Ending::Locked => (
            CodePhase::Locked,
            "Locked",
            Note::warning as fn(_, _, String) -> _,
            format!(
                "{} tries were wrong or broken off: make another code, and find out who tried",
                status.attempts
            ),
        ),
    };
    let event = match ending {
        Ending::Used => "CodeUsed",
        Ending::Expired => "CodeExpired",
        Ending::Locked => "CodeLocked",
    };
    let status = PairingCodeStatus {
        phase: Some(phase),
        password_file: None,
        ..with_ready(observed, status.clone(), false, reason, &message)
    };
    let mut changes = Vec::new();
    // First the Secret: once the status says that the code has ended, nobody looks for it any more.
    if let CodeSecret::Ours { uid, .. } | CodeSecret::Former { uid } = &observed.secret {
        changes.push(Change::DeleteSecret { uid: uid.clone() });
    }
    changes.push(Change::WriteStatus(Box::new(status)));
    Plan {
        changes,
        notes: vec![note(event, "Wiping", message)],
        requeue_at: None,
        look_again: false,
    }
}

/// A code that has ended keeps no password file, whoever wrote that it has.
fn wiped(observed: &Observed, status: &PairingCodeStatus) -> Plan {
    let without = PairingCodeStatus {
        password_file: None,
        ..status.clone()
    };
    let mut changes = Vec::new();
    if status.password_file.is_some() {
        if let CodeSecret::Ours { uid, .. } | CodeSecret::Former { uid } = &observed.secret {
            changes.push(Change::DeleteSecret { uid: uid.clone() });
        }
        changes.push(Change::WriteStatus(Box::new(without)));
    }
    Plan {
        changes,
        ..Plan::default()
    }
}

fn with_ready(
    observed: &Observed,
    status: PairingCodeStatus,
    ready: bool,
    reason: &str,
    message: &str,
) -> PairingCodeStatus {
    let generation = observed.code.metadata.generation;
    let next = condition(observed.now, generation, READY, ready, reason, message);
    PairingCodeStatus {
        observed_generation: generation,
        conditions: conditions::set(status.conditions, next),
        ..status
    }
}

#[cfg(test)]
mod tests;
