//! What the console counts. Labels are closed sets: routes and permissions of the table, outcomes of a few kinds.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::registry::{Bound, Permission, RouteId};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    denials: Family<DenialLabels, Counter>,
    reviews: Family<ReviewLabels, Counter>,
    connections: Gauge,
    closed: Family<ClosedLabels, Counter>,
    full: Family<FullLabels, Counter>,
    subscribers: Gauge,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    route: RouteLabel,
    outcome: Outcome,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RouteLabels {
    route: RouteLabel,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DenialLabels {
    permission: PermissionLabel,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReviewLabels {
    source: Source,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ClosedLabels {
    cause: Closed,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct FullLabels {
    kind: Kind,
}

/// Why this side closed a connection.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Closed {
    /// No room for one more of its address, or it came too soon.
    Refused,
    /// Its place went to another stranger.
    Evicted,
    /// No request came for too long.
    Idle,
    /// A peer did not read an answer.
    Stalled,
    /// It was open for as long as one may be.
    Aged,
}

/// A kind of requests, as they are bounded.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
enum Kind {
    Short,
    Wait,
    Stream,
    Download,
}

impl From<Bound> for Kind {
    fn from(bound: Bound) -> Self {
        match bound {
            Bound::Short => Self::Short,
            Bound::Wait => Self::Wait,
            Bound::Stream => Self::Stream,
            Bound::Download => Self::Download,
        }
    }
}

/// `None`: no route of the table.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct RouteLabel(Option<RouteId>);

impl EncodeLabelValue for RouteLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self.0 {
            Some(id) => EncodeLabelValue::encode(&format!("{id:?}").as_str(), encoder),
            None => EncodeLabelValue::encode(&"None", encoder),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct PermissionLabel(Permission);

impl EncodeLabelValue for PermissionLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Outcome {
    Done,
    /// The caller did something wrong.
    Refused,
    /// No credentials that are taken.
    Unauthenticated,
    Forbidden,
    /// Too many requests.
    Limited,
    /// Not now, or a fault.
    Failed,
}

impl Outcome {
    pub fn of(status: http::StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::Unauthenticated,
            403 => Self::Forbidden,
            429 => Self::Limited,
            400..=499 => Self::Refused,
            500.. => Self::Failed,
            _ => Self::Done,
        }
    }
}

/// Where a decision came from.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Source {
    Memory,
    ApiServer,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| {
                Histogram::new([
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0,
                ])
            }),
            denials: Family::default(),
            reviews: Family::default(),
            connections: Gauge::default(),
            closed: Family::default(),
            full: Family::default(),
            subscribers: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("fairlead_console");
        registry.register(
            "requests",
            "Requests, by what came of them",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "Time to the beginning of an answer, without those that wait",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "denials",
            "Requests that were refused for want of a permission",
            metrics.denials.clone(),
        );
        registry.register(
            "access_reviews",
            "Access decisions, by where they came from",
            metrics.reviews.clone(),
        );
        registry.register(
            "connections",
            "Connections that are open",
            metrics.connections.clone(),
        );
        registry.register(
            "connections_closed",
            "Connections that the console closed, by cause",
            metrics.closed.clone(),
        );
        registry.register(
            "requests_without_room",
            "Requests that were refused because a bound or a share of it was used up, by kind",
            metrics.full.clone(),
        );
        registry.register(
            "subscribers",
            "Event streams that are open",
            metrics.subscribers.clone(),
        );
        metrics
    }

    /// Without anybody who reads them.
    pub fn unread() -> Self {
        Self::register(&mut Registry::default())
    }

    pub fn answered(&self, route: Option<RouteId>, outcome: Outcome) {
        let route = RouteLabel(route);
        self.requests
            .get_or_create(&RequestLabels { route, outcome })
            .inc();
    }

    pub fn took(&self, route: RouteId, time: Duration) {
        let route = RouteLabel(Some(route));
        self.durations
            .get_or_create(&RouteLabels { route })
            .observe(time.as_secs_f64());
    }

    pub fn denied(&self, permission: Permission) {
        let permission = PermissionLabel(permission);
        self.denials
            .get_or_create(&DenialLabels { permission })
            .inc();
    }

    pub fn reviewed(&self, source: Source) {
        self.reviews.get_or_create(&ReviewLabels { source }).inc();
    }

    /// Counts a connection for as long as the result lives.
    pub fn connection(&self) -> Open {
        Open::new(&self.connections)
    }

    pub fn closed(&self, cause: Closed) {
        self.closed.get_or_create(&ClosedLabels { cause }).inc();
    }

    pub fn full(&self, bound: Bound) {
        let kind = bound.into();
        self.full.get_or_create(&FullLabels { kind }).inc();
    }

    /// Counts an event stream for as long as the result lives.
    pub fn subscriber(&self) -> Open {
        Open::new(&self.subscribers)
    }
}

/// Something that is counted.
#[derive(Debug)]
pub struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
