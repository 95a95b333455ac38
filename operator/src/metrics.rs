//! What the operator counts.

use std::time::{Duration, Instant};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// The operator's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: Family<Reconcile, Histogram, fn() -> Histogram>,
    transitions: Family<Transition, Counter>,
    certificates: Family<Certificate, Counter>,
    leading: Gauge,
    policy_checks: Family<PolicyCheck, Counter>,
    authority_refused: Gauge,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Reconcile {
    kind: &'static str,
    /// `ok`, or the category of the error.
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Transition {
    kind: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Certificate {
    purpose: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct PolicyCheck {
    policy: &'static str,
    result: &'static str,
}

/// A reconcile that runs.
#[derive(Debug)]
pub struct Timer(Instant);

impl Timer {
    #[expect(clippy::disallowed_methods, reason = "measures; decides nothing")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Metrics {
    /// Makes the metrics known to the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let buckets: fn() -> Histogram = || {
            Histogram::new([
                0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
            ])
        };
        let metrics = Self {
            reconciles: Family::new_with_constructor(buckets),
            transitions: Family::default(),
            certificates: Family::default(),
            leading: Gauge::default(),
            policy_checks: Family::default(),
            authority_refused: Gauge::default(),
        };
        registry.register(
            "reconcile_duration_seconds",
            "Time that reconciles took, by kind and outcome",
            metrics.reconciles.clone(),
        );
        registry.register(
            "transitions",
            "Changes that objects went through, by kind and reason",
            metrics.transitions.clone(),
        );
        registry.register(
            "certificates_issued",
            "Certificates that were signed, by purpose",
            metrics.certificates.clone(),
        );
        registry.register(
            "leading",
            "1 while this process reconciles",
            metrics.leading.clone(),
        );
        registry.register(
            "policy_checks",
            "Looks at admission policies before a signature, by policy and result: in_force, not_in_force, unverified",
            metrics.policy_checks.clone(),
        );
        registry.register(
            "authority_refused",
            "1 while the Secret of the authority is missing, damaged or another one's",
            metrics.authority_refused.clone(),
        );
        metrics
    }

    pub(crate) fn reconciled(&self, kind: &'static str, outcome: &'static str, timer: &Timer) {
        let took: Duration = timer.0.elapsed();
        self.reconciles
            .get_or_create(&Reconcile { kind, outcome })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn transition(&self, kind: &'static str, reason: &'static str) {
        self.transitions
            .get_or_create(&Transition { kind, reason })
            .inc();
    }

    pub(crate) fn certificate(&self, purpose: &'static str) {
        self.certificates
            .get_or_create(&Certificate { purpose })
            .inc();
    }

    pub(crate) fn policy_checked(&self, policy: &'static str, result: &'static str) {
        self.policy_checks
            .get_or_create(&PolicyCheck { policy, result })
            .inc();
    }

    pub(crate) fn refuse_authority(&self, is_refused: bool) {
        self.authority_refused.set(i64::from(is_refused));
    }

    pub(crate) fn lead(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }
}
