//! What became of an object: an event for its owner, a log line, a count.
//!
//! Never a pairing code, a key or a certificate: who may read events may not read those.

use crds::Invalid;
use kube::{
    Client, Resource, ResourceExt as _,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::{metrics::Metrics, reconcile::Error};

/// Most characters of an event's note that the API server takes.
const MAX_NOTE: usize = 1024;

/// Whether somebody should look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    Normal,
    Warning,
}

/// Something that happened to an object. Part of a plan, told once the plan was carried out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    pub severity: Severity,
    /// Why, in one word for programs.
    pub reason: &'static str,
    /// What the operator did, in one word.
    pub action: &'static str,
    /// For people, with what they can do about it.
    pub message: String,
}

impl Note {
    pub fn normal(reason: &'static str, action: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Normal,
            reason,
            action,
            message: message.into(),
        }
    }

    pub fn warning(reason: &'static str, action: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            reason,
            action,
            message: message.into(),
        }
    }
}

/// Tells what happened.
#[derive(Clone)]
pub struct Report {
    recorder: Recorder,
    pub metrics: Metrics,
}

impl Report {
    /// `identity` tells the replicas apart.
    pub fn new(client: Client, identity: &str, metrics: Metrics) -> Self {
        let reporter = Reporter {
            controller: crds::names::OPERATOR.to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            metrics,
        }
    }

    /// Tells all of it. An event that cannot be written is logged and given up: the object's status says it too.
    pub async fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, notes: &[Note]) {
        let kind = K::kind(&());
        for note in notes {
            let Note {
                severity,
                reason,
                action,
                message,
            } = note;
            self.metrics.transition(kind_label(&kind), reason);
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            let type_ = match severity {
                Severity::Normal => {
                    tracing::info!(%kind, namespace, name, reason, note = message, "Reconciled");
                    EventType::Normal
                }
                Severity::Warning => {
                    tracing::warn!(%kind, namespace, name, reason, note = message, "Reconciled");
                    EventType::Warning
                }
            };
            let event = Event {
                type_,
                reason: (*reason).to_owned(),
                note: Some(message.chars().take(MAX_NOTE).collect()),
                action: (*action).to_owned(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    %kind, namespace, name, reason, "Writing the event failed"
                );
            }
        }
    }

    /// Tells that an object cannot be read as its kind.
    pub async fn invalid<K: Resource<DynamicType = ()>>(&self, object: &K, error: &Invalid) {
        let message = format!(
            "the object cannot be read, and is not treated as its kind: {}",
            error.error
        );
        self.tell(
            object,
            &[Note::warning("InvalidObject", "Reading", message)],
        )
        .await;
    }

    /// Tells that the API server refuses what the operator must write: it will not change its mind by itself.
    pub async fn refused<K: Resource<DynamicType = ()>>(&self, object: &K, error: &Error) {
        let message =
            format!("the API server refuses what must be written: {error}; see the operator's log");
        self.tell(object, &[Note::warning("WriteRefused", "Writing", message)])
            .await;
    }
}

/// A closed set, as labels of metrics must be.
fn kind_label(kind: &str) -> &'static str {
    match kind {
        "PairingCode" => "PairingCode",
        "PairingRequest" => "PairingRequest",
        "Device" => "Device",
        "CapabilityInvocation" => "CapabilityInvocation",
        "Secret" => "Secret",
        "Lease" => "Lease",
        _ => "other",
    }
}
