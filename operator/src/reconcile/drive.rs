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

use crds::Invalid;

use super::{Error, PASS, within};
use crate::{
    context::{Context, now},
    metrics::Timer,
    watch::Guard,
};

/// How many objects of a kind are reconciled at once: what the API server is asked for in parallel.
const CONCURRENCY: u16 = 16;

/// Tells the reconciles of the log apart.
static RECONCILES: AtomicU64 = AtomicU64::new(1);

/// A kind that has a loop.
pub trait Kind: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static {
    /// As metrics and logs name it.
    const NAME: &'static str;

    /// One pass. Says when time alone will change its mind.
    fn reconcile(
        self,
        context: Arc<Context>,
    ) -> impl Future<Output = Result<Option<Timestamp>, Error>> + Send;

    /// What happens to an object that cannot be read, after it was told.
    fn unreadable(
        invalid: Invalid,
        context: Arc<Context>,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Runs until `woken` ends and what it started is done.
pub async fn drive<K: Kind>(
    store: Store<Guard<K>>,
    woken: impl Stream<Item = ObjectRef<Guard<K>>> + Send + 'static,
    context: Arc<Context>,
) {
    let reconciler = |object: Arc<Guard<K>>, context: Arc<Context>| {
        let span = tracing::info_span!(
            "reconcile",
            kind = K::NAME,
            namespace = object.namespace().unwrap_or_default(),
            name = object.name_any(),
            reconcile_id = RECONCILES.fetch_add(1, Ordering::Relaxed),
        );
        Box::pin(once(object, context).instrument(span))
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
                    kind = K::NAME,
                    "Reconciling was interrupted"
                );
            }
        }
    })
    .await;
}

async fn once<K: Kind>(object: Arc<Guard<K>>, context: Arc<Context>) -> Result<Action, Error> {
    let metrics = &context.report.metrics;
    let timer = Timer::start();
    // Dependents go by their owner references; nothing is left to decide.
    if object.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let pass = async {
        match &object.0 {
            Ok(readable) => K::reconcile(readable.clone(), Arc::clone(&context)).await,
            Err(invalid) => {
                context.report.invalid(&*object, invalid).await;
                K::unreadable(invalid.clone(), Arc::clone(&context)).await?;
                Ok(None)
            }
        }
    };
    let done = within(PASS, pass).await;
    match &done {
        Ok(_) if object.0.is_err() => metrics.reconciled(K::NAME, "invalid_object", &timer),
        Ok(_) => metrics.reconciled(K::NAME, "ok", &timer),
        Err(error) => {
            metrics.reconciled(K::NAME, error.category(), &timer);
            if error.is_race() {
                tracing::debug!(error = error as &dyn std::error::Error, "Reconciling again");
            } else {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "Reconciling failed"
                );
            }
            if error.is_refusal() {
                // An event that hangs is given up with the pass.
                let told = context.report.refused(&*object, error);
                let _ = tokio::time::timeout(PASS, told).await;
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
    use crds::{Device, PairingCode, v1alpha1::PairingCodeSpec};

    use super::*;
    use crate::context::tests::{context, hanging};

    impl Kind for k8s_openapi::api::core::v1::ConfigMap {
        const NAME: &'static str = "ConfigMap";

        /// Asks an API server that does not answer, with the lock held that all codes are drawn under.
        async fn reconcile(self, context: Arc<Context>) -> Result<Option<Timestamp>, Error> {
            let _drawing = context.drawing.lock().await;
            let codes: kube::Api<PairingCode> = kube::Api::all(context.client.clone());
            let code = PairingCode::new("code", PairingCodeSpec::default());
            codes
                .create(&kube::api::PostParams::default(), &code)
                .await
                .map_err(super::super::api("create the code"))?;
            Ok(None)
        }

        async fn unreadable(_: Invalid, _: Arc<Context>) -> Result<(), Error> {
            Ok(())
        }
    }

    /// A pass that hangs fails its test.
    async fn in_the_end(
        pass: impl Future<Output = Result<Action, Error>>,
    ) -> Result<Action, Error> {
        tokio::time::timeout(PASS * 3, pass).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_whose_request_hangs_is_given_up_with_what_it_holds() {
        let context = Arc::new(context(hanging()));
        let object = k8s_openapi::api::core::v1::ConfigMap::default();
        let pass = Box::pin(once(Arc::new(Guard(Ok(object))), Arc::clone(&context)));
        let error = in_the_end(pass).await.unwrap_err();
        assert_eq!(error.category(), "timeout");
        assert_eq!(error.retry(), Action::requeue(Duration::from_secs(5)));
        assert!(context.drawing.try_lock().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_cannot_be_read_and_not_be_told_of_either_is_given_up() {
        let invalid = Invalid {
            metadata: kube::api::ObjectMeta::default(),
            error: "broken".to_owned(),
        };
        let object: Guard<Device> = Guard(Err(invalid));
        let pass = Box::pin(once(Arc::new(object), Arc::new(context(hanging()))));
        assert_eq!(in_the_end(pass).await.unwrap_err().category(), "timeout");
    }

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
