//! Runs one capability, and stops it when told to.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use proto::node::{self, Execution, FailureCode};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::order::{Ending, Order, Why};
use crate::{
    capability::{
        Call, Capability, Failure,
        progress::{Reporter, Step},
        spool::Spool,
    },
    host::clock::{self, Moment},
    journal::Uid,
};

/// How far past its deadline an invocation may run on to end in good order. A gateway waits five seconds for the device's
/// word and calls it unknown then; the rest of them is for the journal and the way.
const PAST_DEADLINE: Duration = Duration::from_secs(4);
/// Between two words of progress, and before the first.
const BETWEEN_PROGRESS: Duration = Duration::from_secs(1);

/// Runs `capability` until it ends or `stop` says why it must not go on. A panic in it is its failure alone.
pub(super) async fn run(
    capability: Option<Arc<dyn Capability>>,
    order: Arc<Order>,
    spool: Spool,
    stop: oneshot::Receiver<Why>,
    progressed: mpsc::Sender<node::Progress>,
) -> Ending {
    let Some(capability) = capability else {
        return Ending::Failed(
            FailureCode::NotDeclared,
            "the capability is gone".to_owned(),
        );
    };
    let must_be_allowed = order.mediate || capability.execution() == Execution::Mediated;
    if must_be_allowed && order.decision.is_none() {
        // The plan does not let this happen. Were it wrong, a person's word would be at stake.
        return Ending::Failed(
            FailureCode::Internal,
            "nobody allowed it, so it was not started".to_owned(),
        );
    }
    // The plan looked; but the capability may have changed while it waited.
    let Some(input) = order.json() else {
        return Ending::Failed(FailureCode::InvalidInput, "the input is no JSON".to_owned());
    };
    if let Err(Failure { code, message }) = capability.takes(input) {
        return Ending::Failed(code, message);
    }
    let stopped = CancellationToken::new();
    let (progress, said) = Reporter::new();
    let call = Call {
        input: input.to_vec(),
        max_output_bytes: order.max_output_bytes,
        requested_by: order.requested_by.clone(),
        spool: Some(spool.clone()),
        stopped: stopped.clone(),
        progress,
    };
    let grace = capability.grace();
    // A task of its own, so that a panic is contained; dropping the set ends it.
    let mut task = JoinSet::new();
    task.spawn(async move {
        let output = capability.run(call).await?;
        capability.terms().answers(output)
    });
    let why = tokio::select! {
        biased;
        ended = join(&mut task) => return of(ended, &spool),
        why = stopping(stop) => why,
        never = relay(&order.uid, said, progressed) => match never {},
    };
    stopped.cancel();
    let patience = patience(grace, order.deadline, clock::now());
    match timeout(patience, join(&mut task)).await {
        // It came to an end of its own: that is what happened, whoever wanted it stopped.
        Ok(Ok(Ok(output))) => done(output, &spool),
        Ok(Ok(Err(Failure {
            code: code @ FailureCode::CapabilityFailed,
            message,
        }))) => Ending::Failed(code, message),
        Ok(Ok(Err(_)) | Err(_)) | Err(_) => Ending::Stopped(why),
    }
}

/// How long it may take to end, now that it was told to, for whatever reason. Nothing is left of it after that.
fn patience(grace: Duration, deadline: Moment, now: Moment) -> Duration {
    grace.min(deadline.after(PAST_DEADLINE).since(now))
}

/// Passes on what it says of its progress: nothing of what ends soon, and not more than a gateway cares to hear.
async fn relay(
    uid: &Uid,
    mut said: watch::Receiver<Option<Step>>,
    progressed: mpsc::Sender<node::Progress>,
) -> Infallible {
    loop {
        sleep(BETWEEN_PROGRESS).await;
        if said.changed().await.is_err() {
            // The capability has nothing more to say.
            pending::<()>().await;
        }
        let step = said.borrow_and_update().clone();
        if let Some(Step { percent, message }) = step {
            let uid = uid.as_str().to_owned();
            // Where there is no room, the next word says more.
            let _ = progressed.try_send(node::Progress {
                uid,
                percent,
                message,
            });
        }
    }
}

/// Who holds the other end is gone when the agent goes.
async fn stopping(stop: oneshot::Receiver<Why>) -> Why {
    stop.await.unwrap_or(Why::Shutdown)
}

async fn join<T: 'static>(task: &mut JoinSet<T>) -> Result<T, JoinError> {
    match task.join_next().await {
        Some(ended) => ended,
        None => pending().await,
    }
}

/// What it wrote to a file is its output, where there is one.
fn done(output: Vec<u8>, spool: &Spool) -> Ending {
    spool
        .take()
        .map_or(Ending::Output(output), Ending::Artefact)
}

fn of(ended: Result<Result<Vec<u8>, Failure>, JoinError>, spool: &Spool) -> Ending {
    match ended {
        Ok(Ok(output)) => done(output, spool),
        Ok(Err(Failure { code, message })) => Ending::Failed(code, message),
        Err(_) => Ending::Failed(
            FailureCode::Internal,
            "the capability broke: see the agent's log".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::{Running, spool::Spools};

    /// Ends as its input says.
    struct Odd {
        grace: Duration,
    }

    /// One that a person must allow.
    struct Asking;

    impl Capability for Asking {
        fn name(&self) -> &'static str {
            "test.asking"
        }

        fn execution(&self) -> Execution {
            Execution::Mediated
        }

        fn run(&self, _call: Call) -> Running {
            panic!("nobody was asked")
        }
    }

    impl Capability for Odd {
        fn name(&self) -> &'static str {
            "test.odd"
        }

        fn grace(&self) -> Duration {
            self.grace
        }

        fn run(&self, call: Call) -> Running {
            Box::pin(async move {
                match call.input.as_slice() {
                    b"\"panic\"" => panic!("as asked"),
                    b"\"hang\"" => pending().await,
                    b"\"heed\"" => {
                        call.stopped.cancelled().await;
                        Ok(b"\"stopped in good order\"".to_vec())
                    }
                    b"\"fail\"" => {
                        call.stopped.cancelled().await;
                        Err(Failure::new(FailureCode::CapabilityFailed, "of its own"))
                    }
                    _ => Ok(call.input),
                }
            })
        }
    }

    const LATER: Moment = Moment::from_millis(u64::MAX / 2);

    async fn ending(input: &str, grace: Duration, why: Option<Why>) -> Ending {
        let odd = Arc::new(Odd { grace });
        ending_of(odd, input, LATER, why).await
    }

    async fn ending_of(
        capability: Arc<dyn Capability>,
        input: &str,
        deadline: Moment,
        why: Option<Why>,
    ) -> Ending {
        let order = Order {
            uid: Uid::parse("a").unwrap(),
            name: "check".to_owned(),
            capability: "test.odd".to_owned(),
            input: input.as_bytes().to_vec(),
            deadline,
            max_output_bytes: 100,
            requested_by: String::new(),
            sharing: super::super::order::Sharing::Alone,
            mediate: false,
            decision: None,
        };
        let (sender, stop) = oneshot::channel();
        let _kept = match why {
            Some(why) => {
                sender.send(why).unwrap();
                None
            }
            None => Some(sender),
        };
        let spool = Spools::new("/nowhere".into(), 0).spool(&order.uid);
        let (progressed, _) = mpsc::channel(1);
        run(Some(capability), Arc::new(order), spool, stop, progressed).await
    }

    #[tokio::test]
    async fn a_panic_is_the_capabilitys_failure_alone() {
        assert!(matches!(
            ending("\"panic\"", Duration::ZERO, None).await,
            Ending::Failed(FailureCode::Internal, _)
        ));
    }

    #[tokio::test]
    async fn what_a_person_must_allow_does_not_run_where_nobody_did() {
        let ending = ending_of(Arc::new(Asking), "null", LATER, None).await;
        let Ending::Failed(code, message) = ending else {
            unreachable!("it must not run");
        };
        assert_eq!(code, FailureCode::Internal);
        assert!(message.contains("nobody allowed it"));
    }

    #[tokio::test]
    async fn what_hangs_is_stopped_and_what_heeds_may_end_in_good_order() {
        let hour = Duration::from_hours(1);
        assert_eq!(
            ending("\"hang\"", Duration::ZERO, Some(Why::Deadline)).await,
            Ending::Stopped(Why::Deadline)
        );
        assert_eq!(
            ending("\"heed\"", hour, Some(Why::Cancelled)).await,
            Ending::Output(b"\"stopped in good order\"".to_vec())
        );
        assert_eq!(
            ending("\"fail\"", hour, Some(Why::Deadline)).await,
            Ending::Failed(FailureCode::CapabilityFailed, "of its own".to_owned())
        );
        assert_eq!(
            ending("\"hang\"", Duration::from_millis(1), Some(Why::Cancelled)).await,
            Ending::Stopped(Why::Cancelled)
        );
    }

    #[test]
    fn whatever_grace_it_has_the_device_answers_while_a_gateway_listens() {
        let deadline = Moment::from_millis(60_000);
        let seconds = Duration::from_secs;
        for (grace, now, expected) in [
            // Cancelled long before its deadline, it has all of its grace.
            (seconds(30), 10_000, seconds(30)),
            (seconds(30), 50_000, seconds(14)),
            (seconds(30), 60_000, seconds(4)),
            (seconds(3), 60_000, seconds(3)),
            (seconds(3), 62_000, seconds(2)),
            (seconds(3), 90_000, Duration::ZERO),
        ] {
            let now = Moment::from_millis(now);
            assert_eq!(patience(grace, deadline, now), expected, "{now:?}");
        }
    }

    #[tokio::test]
    async fn what_is_past_its_deadline_for_long_has_no_grace_left() {
        let odd = Arc::new(Odd {
            grace: Duration::from_hours(1),
        });
        let ending = ending_of(odd, "\"hang\"", Moment::default(), Some(Why::Cancelled));
        let ended = timeout(Duration::from_secs(20), ending).await.unwrap();
        assert_eq!(ended, Ending::Stopped(Why::Cancelled));
    }

    #[tokio::test]
    async fn input_must_be_json_and_none_is_null() {
        assert_eq!(
            ending("", Duration::ZERO, None).await,
            Ending::Output(b"null".to_vec())
        );
        for wrong in ["{", "nonsense", "1 2"] {
            assert!(matches!(
                ending(wrong, Duration::ZERO, None).await,
                Ending::Failed(FailureCode::InvalidInput, _)
            ));
        }
    }
}
