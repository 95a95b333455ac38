//! `system.health`: load, memory, disks, uptime, versions.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use proto::node::FailureCode;
use tokio::{sync::Semaphore, time::timeout};

use super::{Call, Capability, Failure, Running, terms::Terms};
use crate::host::health::{self, Health};

/// How long to wait for a reading that somebody else asked for. One takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

static TERMS: LazyLock<Terms> = LazyLock::new(|| {
    let output = r#"{"type":"object","required":["disks","versions"]}"#;
    Terms::built_in(None, Some(output))
});

pub(super) struct SystemHealth {
    read: Arc<dyn Fn() -> Health + Send + Sync>,
    /// A reading can hang for ever, on a file system whose server is gone, and nothing can stop its thread: there is one
    /// at a time, whether anybody still waits for it or not. Each more would cost a thread, and those are few.
    turn: Arc<Semaphore>,
    patience: Duration,
}

impl Default for SystemHealth {
    fn default() -> Self {
        Self {
            read: Arc::new(health::read),
            turn: Arc::new(Semaphore::new(1)),
            patience: PATIENCE,
        }
    }
}

impl Capability for SystemHealth {
    fn name(&self) -> &'static str {
        "system.health"
    }

    fn terms(&self) -> &Terms {
        &TERMS
    }

    fn run(&self, _call: Call) -> Running {
        let (read, turn) = (Arc::clone(&self.read), Arc::clone(&self.turn));
        let patience = self.patience;
        Box::pin(async move {
            let internal = |error: String| Failure::new(FailureCode::Internal, error);
            let Ok(Ok(turn)) = timeout(patience, turn.acquire_owned()).await else {
                return Err(Failure::new(
                    FailureCode::Unavailable,
                    "an earlier reading of this device's health has not come back: a file system that is mounted on it \
                     does not answer",
                ));
            };
            let reading = move || {
                let _turn = turn;
                read()
            };
            let health = tokio::task::spawn_blocking(reading)
                .await
                .map_err(|error| internal(error.to_string()))?;
            serde_json::to_vec(&health).map_err(|error| internal(error.to_string()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use tokio::task::JoinSet;

    use super::{super::tests::call, *};

    /// Longest wait of a test: far longer than anything takes.
    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_is_answered_has_all_parts_under_the_names_that_stay() {
        let output = SystemHealth::default().run(call("null")).await.unwrap();
        let output = TERMS.answers(output).unwrap();
        let health: serde_json::Value = serde_json::from_slice(&output).unwrap();
        let part = |path: &str| {
            let part = health.pointer(path);
            part.unwrap_or_else(|| panic!("{path}: {health}"))
        };
        for path in [
            "/load/one",
            "/load/five",
            "/load/fifteen",
            "/memory/totalBytes",
            "/memory/availableBytes",
            "/memory/swapTotalBytes",
            "/memory/swapUsedBytes",
            "/uptimeSeconds",
        ] {
            assert!(part(path).is_number(), "{path}");
        }
        for path in ["/versions/agent", "/versions/kernel", "/versions/os"] {
            assert!(part(path).is_string(), "{path}");
        }
        for disk in part("/disks").as_array().unwrap() {
            assert!(disk["mount"].is_string(), "{disk}");
            assert!(disk["totalBytes"].is_u64() && disk["availableBytes"].is_u64());
        }
    }

    #[tokio::test]
    async fn one_reading_that_hangs_costs_one_thread_and_the_next_is_told() {
        let (release, hangs) = mpsc::channel::<()>();
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let hangs = Mutex::new(hangs);
        let mut health = SystemHealth {
            read: Arc::new(move || {
                begun.send(()).unwrap();
                // Until the other end is dropped; at once from then on.
                let _ = hangs.lock().unwrap().recv();
                Health::default()
            }),
            patience: Duration::ZERO,
            ..SystemHealth::default()
        };
        // Its deadline comes: whoever waited for it does so no more.
        let mut first = JoinSet::new();
        first.spawn(health.run(call("null")));
        begins.recv().await.unwrap();
        first.shutdown().await;
        let failure = health.run(call("null")).await.unwrap_err();
        assert_eq!(failure.code, FailureCode::Unavailable);
        assert!(failure.message.contains("file system"), "{failure}");
        assert!(begins.try_recv().is_err(), "a second reading began");

        drop(release);
        health.patience = DEADLINE;
        health.run(call("null")).await.unwrap();
    }
}
