//! Runs a reconciler on every object that is woken, never twice at once on the same one.

use std::{
    convert::Infallible,
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Resource, ResourceExt as _,
    runtime::{
        applier,
        controller::{self, Action},
        reflector::{ObjectRef, Store},
    },
};
use tracing::Instrument as _;

use super::Error;
use crate::{
    context::{Context, now},
    metrics::Timer,
    watch::Guard,
};

/// How many objects of a kind are reconciled at once: what the API server is asked for in parallel.
const CONCURRENCY: u16 = 16;

/// Tells the reconciles of the log apart.
static RECONCILES: AtomicU64 = AtomicU64::new(1);

/// Runs until `woken` ends and what it started is done. The reconciler says when time alone will change its mind.
pub async fn drive<K, R, F>(
    kind: &'static str,
    store: Store<Guard<K>>,
    woken: impl Stream<Item = ObjectRef<Guard<K>>> + Send + 'static,
    context: Arc<Context>,
    reconcile: R,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    R: Fn(K, Arc<Context>) -> F + Copy + Send + Sync + 'static,
    F: Future<Output = Result<Option<Timestamp>, Error>> + Send + 'static,
{
    let reconciler = move |object: Arc<Guard<K>>, context: Arc<Context>| {
        let span = tracing::info_span!(
            "reconcile",
            kind,
            namespace = object.namespace().unwrap_or_default(),
            name = object.name_any(),
            reconcile_id = RECONCILES.fetch_add(1, Ordering::Relaxed),
        );
        Box::pin(once(kind, object, context, reconcile).instrument(span))
    };
    applier(
        reconciler,
        |_, error: &Error, _| error.retry(),
        context,
        store,
        woken.map(Ok::<_, Infallible>),
        controller::Config::default().concurrency(CONCURRENCY),
    )
    .for_each(|done| async move {
        match done {
            // Done; gone before its turn came; or logged where it happened.
            Ok(_)
            | Err(controller::Error::ObjectNotFound(_) | controller::Error::ReconcilerFailed(..)) =>
                {}
            Err(error @ (controller::Error::QueueError(_) | controller::Error::RunnerError(_))) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    kind,
                    "Reconciling was interrupted"
                );
            }
        }
    })
    .await;
}

async fn once<K, R, F>(
    kind: &'static str,
    object: Arc<Guard<K>>,
    context: Arc<Context>,
    reconcile: R,
) -> Result<Action, Error>
where
    K: Resource<DynamicType = ()> + Clone,
    R: Fn(K, Arc<Context>) -> F,
    F: Future<Output = Result<Option<Timestamp>, Error>>,
{
    let metrics = &context.report.metrics;
    let timer = Timer::start();
    let readable = match &object.0 {
        Ok(readable) => readable,
        Err(invalid) => {
            context.report.invalid(&*object, invalid).await;
            metrics.reconciled(kind, "invalid_object", &timer);
            return Ok(Action::await_change());
        }
    };
    // Dependents go by their owner references; nothing is left to decide.
    if readable.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let done = reconcile(readable.clone(), Arc::clone(&context)).await;
    match &done {
        Ok(_) => metrics.reconciled(kind, "ok", &timer),
        Err(error) => {
            metrics.reconciled(kind, error.category(), &timer);
            if error.is_refusal() {
                context.report.refused(readable, error).await;
            }
            if error.is_race() {
                tracing::debug!(error = error as &dyn std::error::Error, "Reconciling again");
            } else {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "Reconciling failed"
                );
            }
        }
    }
    Ok(done?.map_or_else(Action::await_change, |at| Action::requeue(wait(at, now()))))
}

/// How long until a moment; never so short that a moment that has just passed makes a loop.
fn wait(at: Timestamp, now: Timestamp) -> Duration {
    at.duration_since(now)
        .max(SignedDuration::from_millis(50))
        .unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_that_has_passed_is_no_hot_loop() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        assert_eq!(
            wait(now - SignedDuration::from_secs(5), now),
            Duration::from_millis(50)
        );
        assert_eq!(
            wait(now + SignedDuration::from_secs(5), now),
            Duration::from_secs(5)
        );
    }
}
