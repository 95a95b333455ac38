//! What the streams count. Every label has a closed set of values.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub streams: Gauge,
    stream_ends: Family<StreamEndLabels, Counter>,
    dispatches: Histogram,
    results: Family<ResultLabels, Counter>,
    left_aside: Family<LeftAsideLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    artefacts: Family<ArtefactLabels, Counter>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StreamEndLabels {
    reason: StreamEnd,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabels {
    phase: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct LeftAsideLabels {
    reason: LeftAside,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct WriteLabels {
    kind: Kind,
    outcome: Outcome,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ArtefactLabels {
    outcome: Artefact,
}

/// What became of an artefact that a device offered.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Artefact {
    Stored,
    Refused,
    /// The store did not answer; it is tried again.
    PutOff,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum StreamEnd {
    /// The device ended it, or its connection broke.
    Left,
    NotAdmitted,
    /// The certificate of its connection expired.
    Expired,
    NotRegistered,
    Malformed,
    Silent,
    NeverReads,
    Replaced,
    Moved,
    /// The device begins sessions, or declares what it can do, too often.
    TooOften,
    Full,
    Stopped,
}

/// Why a device's result was not written.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum LeftAside {
    /// The invocation is for another device.
    OtherDevice,
    /// The name is that of another invocation.
    OtherInvocation,
    /// It has ended already, or was deleted.
    Ended,
    /// It has ended otherwise: a condition tells.
    Late,
    /// It has no name, or one that nothing can have, and the uid is not known.
    Unnamed,
    /// Its uid is none.
    Malformed,
    /// Too many wait to be written; the device repeats it.
    TooMany,
}

/// What was written to.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Kind {
    Device,
    Invocation,
    /// No status, but told beside one.
    Event,
}

/// What became of a request that writes.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Outcome {
    Written,
    Conflict,
    Gone,
    Invalid,
    Unavailable,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            streams: Gauge::default(),
            stream_ends: Family::default(),
            // From a tenth of a millisecond to a minute.
            dispatches: Histogram::new([
                0.0001, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0,
            ]),
            results: Family::default(),
            left_aside: Family::default(),
            writes: Family::default(),
            artefacts: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("fairlead_gateway");
        registry.register("streams", "Streams of devices", metrics.streams.clone());
        registry.register(
            "stream_ends",
            "Streams that ended",
            metrics.stream_ends.clone(),
        );
        registry.register(
            "dispatch_seconds",
            "From hearing of an invocation to sending it to its device",
            metrics.dispatches.clone(),
        );
        registry.register(
            "invocations_ended",
            "Ends of invocations that were written",
            metrics.results.clone(),
        );
        registry.register(
            "results_left_aside",
            "Results of devices that were not written",
            metrics.left_aside.clone(),
        );
        registry.register(
            "status_writes",
            "Requests that write a status, or an event beside it",
            metrics.writes.clone(),
        );
        registry.register(
            "artefacts",
            "Artefacts that devices offered",
            metrics.artefacts.clone(),
        );
        metrics
    }

    pub fn stream_ended(&self, reason: StreamEnd) {
        self.stream_ends
            .get_or_create(&StreamEndLabels { reason })
            .inc();
    }

    pub fn dispatched(&self, after: Duration) {
        self.dispatches.observe(after.as_secs_f64());
    }

    /// `phase` is one of the terminal ones.
    pub fn ended(&self, phase: &'static str) {
        self.results.get_or_create(&ResultLabels { phase }).inc();
    }

    pub fn left_aside(&self, reason: LeftAside) {
        self.left_aside
            .get_or_create(&LeftAsideLabels { reason })
            .inc();
    }

    pub fn artefact(&self, outcome: Artefact) {
        self.artefacts
            .get_or_create(&ArtefactLabels { outcome })
            .inc();
    }

    pub fn wrote(&self, kind: Kind, outcome: Outcome) {
        self.writes
            .get_or_create(&WriteLabels { kind, outcome })
            .inc();
    }

    #[cfg(test)]
    pub fn written(&self, kind: Kind, outcome: Outcome) -> u64 {
        self.writes
            .get_or_create(&WriteLabels { kind, outcome })
            .get()
    }
}
