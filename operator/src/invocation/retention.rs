//! Deletes invocations that have ended, `ttlSecondsAfterFinished` later, and has it told how they ended.
//!
//! Nothing is asked for before the moment comes: a watch tells which have ended, and only their names and moments are
//! kept. An invocation that was replaced by another one of its name stays, for the deletion names its uid.

use std::{
    collections::{BTreeSet, HashMap},
    pin::pin,
    time::Duration,
};

use crds::{CapabilityInvocation, v1alpha1::capability_invocation::InvocationPhase};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Preconditions},
    runtime::{
        WatchStreamExt as _,
        watcher::{Config, Event, watcher},
    },
};
use tokio_util::sync::CancellationToken;

use super::ends::{self, Budget};
use crate::{
    context::now,
    reconcile::{Error, api, within},
    report::Report,
    watch::Guard,
};

/// How long after a deletion that failed it is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(30);
/// How long the Event about an end may take. The status has said it already.
const TELL: Duration = Duration::from_secs(2);
/// How long one deletion may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long an invocation that cannot be read is kept after it was seen to have ended: nobody can tell what it asks for.
const UNREADABLE: SignedDuration = SignedDuration::from_hours(24);

/// Runs until told to stop.
pub async fn run(client: Client, report: Report, stop: CancellationToken) {
    let ended = Api::<Guard<CapabilityInvocation>>::all(client.clone());
    let events = watcher(ended, Config::default().fields(&has_ended())).default_backoff();
    let mut events = pin!(events.take_until(stop.clone().cancelled_owned()));
    let mut kept = Kept::default();
    let mut budget = Budget::new(now());
    loop {
        let left = kept.next().map(|at| wait(at, now()));
        tokio::select! {
            event = events.next() => match event {
                None => return,
                Some(Ok(event)) => {
                    let at = now();
                    let note = kept.news(&event).and_then(|ended| Some((ended, ends::note(ended, at)?)));
                    if let Some((ended, note)) = note
                        && budget.take(at)
                    {
                        let told = tokio::time::timeout(TELL, report.tell(ended, &[note])).await;
                        if told.is_err() {
                            // Deletions must not wait for a slow API server again and again.
                            budget.empty();
                        }
                    }
                    kept.see(&event, at);
                }
                Some(Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "Watching invocations that have ended failed");
                }
            },
            () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => {
                while let Some((place, uid)) = kept.due(now()) {
                    let Some(deleted) = delete(&client, &place, &uid, &stop).await else {
                        return;
                    };
                    match deleted {
                        Ok(()) => report.metrics.transition(super::KIND, "Deleted"),
                        Err(error) => {
                            tracing::warn!(
                                error = &error as &dyn std::error::Error,
                                namespace = place.namespace, name = place.name,
                                "Deleting an invocation that has ended failed"
                            );
                            kept.keep(place, uid, now() + RETRY);
                        }
                    }
                }
            }
        }
    }
}

/// Selects the invocations that have ended. Selectors know no "or".
fn has_ended() -> String {
    [
        InvocationPhase::Queued,
        InvocationPhase::Dispatched,
        InvocationPhase::AwaitingMediation,
    ]
    .map(|phase| format!("status.phase!={}", phase.as_str()))
    .join(",")
}

/// `None` if told to stop: the next leader deletes it.
async fn delete(
    client: &Client,
    place: &Place,
    uid: &str,
    stop: &CancellationToken,
) -> Option<Result<(), Error>> {
    let delete = async {
        try_delete(client, place, uid)
            .await
            .map_err(api("delete the invocation"))
    };
    stop.run_until_cancelled(within(LIMIT, delete)).await
}

async fn try_delete(client: &Client, place: &Place, uid: &str) -> kube::Result<()> {
    let only_this = Preconditions {
        uid: Some(uid.to_owned()),
        ..Preconditions::default()
    };
    let params = DeleteParams::default().preconditions(only_this);
    let invocations: Api<CapabilityInvocation> = Api::namespaced(client.clone(), &place.namespace);
    match invocations.delete(&place.name, &params).await {
        Ok(_) => Ok(()),
        // Somebody else deleted it, or made another one.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

fn wait(until: Timestamp, now: Timestamp) -> Duration {
    until
        .duration_since(now)
        .max(SignedDuration::from_millis(50))
        .unsigned_abs()
}

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Place {
    namespace: String,
    name: String,
}

/// The invocations that have ended, by the moment of their deletion.
#[derive(Debug, Default)]
struct Kept {
    by_moment: BTreeSet<(Timestamp, Place)>,
    by_place: HashMap<Place, (Timestamp, String)>,
}

impl Kept {
    /// An invocation that has ended since the last event about it. What a list brings anew is not told again.
    fn news<'a>(
        &self,
        event: &'a Event<Guard<CapabilityInvocation>>,
    ) -> Option<&'a CapabilityInvocation> {
        let Event::Apply(Guard { 0: Ok(invocation) }) = event else {
            return None;
        };
        let known = self.by_place.get(&place(invocation));
        let is_known = known.is_some_and(|(_, uid)| Some(uid) == invocation.uid().as_ref());
        (!is_known).then_some(invocation)
    }

    fn see(&mut self, event: &Event<Guard<CapabilityInvocation>>, now: Timestamp) {
        match event {
            Event::Apply(Guard { 0: Ok(invocation) })
            | Event::InitApply(Guard { 0: Ok(invocation) }) => {
                let uid = invocation.uid().unwrap_or_default();
                self.keep(place(invocation), uid, until(invocation, now));
            }
            Event::Apply(unreadable) | Event::InitApply(unreadable) => {
                let place = place(unreadable);
                // Counted from the first sight.
                if !self.by_place.contains_key(&place) {
                    let uid = unreadable.uid().unwrap_or_default();
                    self.keep(place, uid, now + UNREADABLE);
                }
            }
            Event::Delete(invocation) => self.forget(&place(invocation)),
            Event::Init => *self = Self::default(),
            Event::InitDone => {}
        }
    }

    fn keep(&mut self, place: Place, uid: String, until: Timestamp) {
        self.forget(&place);
        self.by_moment.insert((until, place.clone()));
        self.by_place.insert(place, (until, uid));
    }

    fn forget(&mut self, place: &Place) {
        if let Some((until, _)) = self.by_place.remove(place) {
            self.by_moment.remove(&(until, place.clone()));
        }
    }

    fn next(&self) -> Option<Timestamp> {
        self.by_moment.first().map(|(until, _)| *until)
    }

    /// Takes out one whose moment has come.
    fn due(&mut self, now: Timestamp) -> Option<(Place, String)> {
        let first = self
            .by_moment
            .first()
            .filter(|(until, _)| *until <= now)?
            .clone();
        self.by_moment.remove(&first);
        let (_, place) = first;
        let (_, uid) = self.by_place.remove(&place)?;
        Some((place, uid))
    }
}

fn place<K: kube::Resource>(object: &K) -> Place {
    Place {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

/// Until when an invocation is kept. Whoever wrote an end without its moment gets the time from now.
fn until(invocation: &CapabilityInvocation, now: Timestamp) -> Timestamp {
    let finished_at = invocation
        .status
        .as_ref()
        .and_then(|status| status.finished_at.as_ref());
    let ttl = SignedDuration::from_secs(invocation.spec.ttl_seconds_after_finished.max(0));
    finished_at
        .map_or(now, |time| time.0)
        .checked_add(ttl)
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::{CapabilityInvocationSpec, CapabilityInvocationStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn ended(name: &str, finished_at: i64, ttl: i64) -> Guard<CapabilityInvocation> {
        let spec = CapabilityInvocationSpec {
            ttl_seconds_after_finished: ttl,
            ..CapabilityInvocationSpec::default()
        };
        let mut invocation = CapabilityInvocation::new(name, spec);
        invocation.metadata.uid = Some(format!("{name}-uid"));
        invocation.status = Some(CapabilityInvocationStatus {
            finished_at: Some(Time(at(finished_at))),
            ..CapabilityInvocationStatus::default()
        });
        Guard(Ok(invocation))
    }

    fn due(kept: &mut Kept, now: Timestamp) -> Vec<String> {
        std::iter::from_fn(|| kept.due(now))
            .map(|(place, _)| place.name)
            .collect()
    }

    #[test]
    fn an_invocation_is_deleted_when_its_time_after_the_end_is_over() {
        let mut kept = Kept::default();
        kept.see(&Event::InitApply(ended("long", 0, 100)), at(1));
        kept.see(&Event::Apply(ended("short", 0, 10)), at(1));
        kept.see(&Event::Apply(ended("gone", 0, 5)), at(1));
        kept.see(&Event::Delete(ended("gone", 0, 5)), at(2));
        assert_eq!(kept.next(), Some(at(10)));
        assert_eq!(due(&mut kept, at(9)), [""; 0]);
        assert_eq!(due(&mut kept, at(10)), ["short"]);
        assert_eq!(kept.next(), Some(at(100)));
        assert_eq!(
            kept.due(at(500)),
            Some((place(&ended("long", 0, 0)), "long-uid".to_owned()))
        );
        assert_eq!(kept.due(at(500)), None);
        assert_eq!(kept.next(), None);
    }

    #[test]
    fn an_end_is_news_once_and_what_a_list_brings_is_not() {
        let mut kept = Kept::default();
        let is_news = |kept: &mut Kept, event: Event<Guard<CapabilityInvocation>>| {
            let is_news = kept.news(&event).is_some();
            kept.see(&event, at(1));
            is_news
        };
        assert!(!is_news(&mut kept, Event::InitApply(ended("a", 0, 100))));
        assert!(
            !is_news(&mut kept, Event::Apply(ended("a", 0, 100))),
            "a late answer, say"
        );
        assert!(is_news(&mut kept, Event::Apply(ended("b", 0, 100))));
        assert!(!is_news(&mut kept, Event::Apply(ended("b", 0, 100))));
        assert!(!is_news(&mut kept, Event::Delete(ended("b", 0, 100))));
    }

    #[test]
    fn a_list_that_is_read_anew_replaces_what_was_known() {
        let mut kept = Kept::default();
        kept.see(&Event::Apply(ended("old", 0, 10)), at(1));
        kept.see(&Event::Init, at(2));
        kept.see(&Event::InitApply(ended("new", 0, 20)), at(2));
        kept.see(&Event::InitDone, at(2));
        assert_eq!(due(&mut kept, at(500)), ["new"]);
    }

    #[test]
    fn what_cannot_be_read_is_kept_for_a_day_from_the_first_sight() {
        let mut kept = Kept::default();
        let unreadable = || {
            let mut metadata = kube::Resource::meta(&ended("deep", 0, 0)).clone();
            metadata.resource_version = Some("1".to_owned());
            let error = "nested".to_owned();
            Guard(Err(crds::Invalid { metadata, error }))
        };
        kept.see(&Event::InitApply(unreadable()), at(1));
        kept.see(&Event::Apply(unreadable()), at(50));
        assert_eq!(kept.next(), Some(at(86_401)));
        assert_eq!(due(&mut kept, at(86_401)), ["deep"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_that_hangs_is_given_up_and_a_stop_is_heard_during_it() {
        let client = crate::context::tests::hanging();
        let place = place(&ended("i", 0, 0));
        let stop = CancellationToken::new();
        let given_up = delete(&client, &place, "uid", &stop);
        let given_up = tokio::time::timeout(LIMIT * 2, given_up).await.unwrap();
        assert_eq!(given_up.unwrap().unwrap_err().category(), "timeout");
        let started = tokio::time::Instant::now();
        let stopped = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.cancel();
        };
        let (stopped, ()) = futures::join!(delete(&client, &place, "uid", &stop), stopped);
        assert!(stopped.is_none());
        assert_eq!(started.elapsed(), Duration::from_secs(1));
    }

    #[test]
    fn an_end_without_a_moment_is_kept_from_now() {
        let mut invocation = ended("i", 0, 10).0.unwrap();
        invocation.status = None;
        assert_eq!(until(&invocation, at(50)), at(60));
        invocation.spec.ttl_seconds_after_finished = i64::MAX;
        assert_eq!(until(&invocation, at(50)), Timestamp::MAX);
    }

    #[test]
    fn only_invocations_that_have_ended_are_watched() {
        assert_eq!(
            has_ended(),
            "status.phase!=Queued,status.phase!=Dispatched,status.phase!=AwaitingMediation"
        );
    }
}
