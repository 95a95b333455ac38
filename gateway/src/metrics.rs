//! What the door counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    handshakes: Family<HandshakeLabels, Counter>,
    connections: Family<ConnectionLabels, Gauge>,
    enrolments: Family<EnrolmentLabels, Counter>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct HandshakeLabels {
    outcome: Handshake,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ConnectionLabels {
    peer: Kind,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct EnrolmentLabels {
    step: Enrolment,
}

/// What became of a connection that was accepted.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Handshake {
    Served,
    /// Answered that there is no place.
    TurnedAway,
    /// Closed without an answer: no place even for that, or too many handshakes from one address.
    Dropped,
    /// Closed before its handshake was over, to make room for another one.
    Shed,
    Failed,
    TimedOut,
}

/// Who is connected.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Kind {
    Device,
    Enrollee,
    TurnedAway,
}

/// How far an enrolment came.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Enrolment {
    /// Too many tries.
    Limited,
    Challenged,
    NotProved,
    Proved,
    Resumed,
    Requested,
    Issued,
    Denied,
    Expired,
    Failed,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("fairlead_gateway");
        registry.register(
            "handshakes",
            "Connections that were accepted, by what became of them",
            metrics.handshakes.clone(),
        );
        registry.register(
            "connections",
            "Connections that are open",
            metrics.connections.clone(),
        );
        registry.register(
            "enrolments",
            "Enrolments, by how far they came",
            metrics.enrolments.clone(),
        );
        metrics
    }

    pub fn handshake(&self, outcome: Handshake) {
        self.handshakes
            .get_or_create(&HandshakeLabels { outcome })
            .inc();
    }

    pub fn enrolment(&self, step: Enrolment) {
        self.enrolments
            .get_or_create(&EnrolmentLabels { step })
            .inc();
    }

    /// Counts a connection for as long as the result lives.
    pub fn connection(&self, peer: Kind) -> Open {
        let gauge = self
            .connections
            .get_or_create(&ConnectionLabels { peer })
            .clone();
        gauge.inc();
        Open(gauge)
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
