//! What a candidate makes of the election Lease: whether it takes it, and what is wrong with it. Pure.
//!
//! As in client-go's leader election, a holder lives while the Lease is seen to change, on the candidate's own clock. The
//! duration that the Lease names is capped ([`crds::lease`]), and a holder that is not an operator is never waited for
//! longer than that, however often it renews.
//!
//! Moments are durations since the candidate began, on a clock that only goes forward.

use std::time::Duration;

use crds::{lease, names};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

/// Longest identity of a stranger that is reported.
const MAX_HOLDER: usize = 64;

/// What the candidate knows of the Lease.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// As it was read last.
    record: Option<Record>,
    /// When it was seen to change.
    changed: Duration,
    /// Since when strangers have held it without a break.
    strangers_since: Option<Duration>,
    /// The operator whose Lease was deleted while it held it, and until when it may believe that it leads.
    bereft: Option<(String, Duration)>,
    /// What kind of fault was reported last: a stranger that changes its name causes no flood of Events.
    reported: Option<&'static str>,
}

/// A Lease as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Record {
    holder: Option<String>,
    renewed_at: Option<Timestamp>,
    acquired_at: Option<Timestamp>,
    lasts: Duration,
}

/// What a candidate does next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// There is no Lease: make it.
    Create,
    /// Nobody holds it, or nobody who lives: write onto the version that was read.
    Take,
    /// Another operator holds it until then, if it does not renew.
    Wait { until: Duration },
}

/// What is wrong with the Lease, for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It was there before.
    Gone,
    /// Its holder is not an operator.
    Stranger { holder: String },
    /// It claims a time that is not accepted.
    NotCredible { why: String },
}

impl Fault {
    /// One word for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Gone => "ElectionLeaseGone",
            Self::Stranger { .. } => "ElectionLeaseHeldByStranger",
            Self::NotCredible { .. } => "ElectionLeaseNotCredible",
        }
    }

    /// For people, with what they can do about it.
    pub fn message(&self) -> String {
        let most = lease::MAX_LEASE_SECONDS;
        match self {
            Self::Gone => "the Lease that operators elect their leader with was deleted: an operator makes it again; find out who may \
                           delete Leases in this namespace"
                .to_owned(),
            Self::Stranger { holder } => format!(
                "the Lease that operators elect their leader with is held by {holder:?}, which is not an operator: an operator takes it \
                 over within {most} seconds; find out who may write Leases in this namespace"
            ),
            Self::NotCredible { why } => format!(
                "the Lease that operators elect their leader with is not credible: {why}; find out who wrote it"
            ),
        }
    }
}

impl Seen {
    /// Takes in what was read, or that there is no Lease. Returns a fault that is new.
    pub fn read(&mut self, found: Option<&Lease>, now: Duration, time: Timestamp) -> Option<Fault> {
        let record = found.map(Record::of);
        if record.is_none()
            && let Some(before) = &self.record
        {
            let holder = before.holder.clone().filter(|_| before.held_by_operator());
            self.bereft = holder.map(|holder| (holder, self.changed + before.lasts));
        }
        if record != self.record {
            self.changed = now;
        }
        let fault = match (&record, found) {
            (None, _) => self.record.is_some().then_some(Fault::Gone),
            (Some(record), found) => record.stranger().or_else(|| {
                let why = lease::not_credible(found?, time)?;
                Some(Fault::NotCredible { why })
            }),
        };
        self.strangers_since = record
            .as_ref()
            .and_then(Record::stranger)
            .map(|_| self.strangers_since.unwrap_or(now));
        self.record = record;
        let reason = fault.as_ref().map(Fault::reason);
        let is_new = reason != self.reported;
        // An absent Lease stays reported until it is there again.
        if reason.is_some() || found.is_some() {
            self.reported = reason;
        }
        fault.filter(|_| is_new)
    }

    /// What the candidate of that identity does now.
    pub fn next(&self, identity: &str, now: Duration) -> Step {
        let Some(record) = &self.record else {
            return match &self.bereft {
                Some((holder, until)) if holder != identity && now < *until => {
                    Step::Wait { until: *until }
                }
                Some(_) | None => Step::Create,
            };
        };
        let from = match &record.holder {
            None => return Step::Take,
            Some(holder) if holder == identity => return Step::Take,
            Some(_) => self.strangers_since.unwrap_or(self.changed),
        };
        let until = from + record.lasts;
        if now < until {
            Step::Wait { until }
        } else {
            Step::Take
        }
    }

    /// The other operator that the Lease names, if it names one: who leads then is not the asker.
    pub fn other_operator(&self, identity: &str) -> Option<&str> {
        let record = self.record.as_ref()?;
        let holder = record.holder.as_deref().filter(|it| *it != identity)?;
        record.held_by_operator().then_some(holder)
    }
}

impl Record {
    fn of(found: &Lease) -> Self {
        let spec = found.spec.as_ref();
        Self {
            holder: spec
                .and_then(|spec| spec.holder_identity.clone())
                .filter(|holder| !holder.is_empty()),
            renewed_at: spec
                .and_then(|spec| spec.renew_time.as_ref())
                .map(|time| time.0),
            acquired_at: spec
                .and_then(|spec| spec.acquire_time.as_ref())
                .map(|time| time.0),
            lasts: lease::lasts(found).unsigned_abs(),
        }
    }

    fn held_by_operator(&self) -> bool {
        self.holder
            .as_deref()
            .is_some_and(names::is_operator_identity)
    }

    fn stranger(&self) -> Option<Fault> {
        let holder = self.holder.as_ref().filter(|_| !self.held_by_operator())?;
        Some(Fault::Stranger {
            holder: holder.chars().take(MAX_HOLDER).collect(),
        })
    }
}

#[cfg(test)]
mod tests;
