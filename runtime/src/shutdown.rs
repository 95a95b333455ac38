//! How a process stops: a signal, then every task is told and waited for.
//!
//! No task is detached. One that ends before it was told to ends the process, for a half of it that goes on alone does
//! harm that nobody sees.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks of a process, and the token that stops them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
    ended: mpsc::Sender<Ended>,
}

/// Receives what [`Tasks`] report; held by who waits.
#[derive(Debug)]
pub struct Supervisor {
    tasks: Tasks,
    ended: mpsc::Receiver<Ended>,
}

#[derive(Debug)]
struct Ended {
    task: &'static str,
    error: Option<anyhow::Error>,
}

/// Tells of the end of a task, even where a panic unwinds it: nothing after the `await` runs then, but this is dropped.
struct Report {
    task: &'static str,
    ended: mpsc::Sender<Ended>,
    owed: bool,
}

impl Report {
    fn send(&self, error: Option<anyhow::Error>) {
        let task = self.task;
        // Full or closed only when the supervisor already knows of another.
        let _ = self.ended.try_send(Ended { task, error });
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.owed {
            self.send(Some(anyhow!("it panicked; what it said stands above")));
        }
    }
}

impl Supervisor {
    #[expect(
        clippy::new_without_default,
        reason = "a process has one, and makes it knowingly"
    )]
    pub fn new() -> Self {
        let (sender, ended) = mpsc::channel(16);
        let tasks = Tasks {
            token: CancellationToken::new(),
            tracker: TaskTracker::new(),
            ended: sender,
        };
        Self { tasks, ended }
    }

    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// Waits for SIGTERM, SIGINT, or an essential task that ends; then stops all and waits for them, `grace` at most.
    ///
    /// Fails when an essential task ended by itself, when a second signal came, or when the grace ran out.
    pub async fn wait(self, grace: Duration) -> anyhow::Result<()> {
        self.wait_with(StopSignals::listen()?, grace).await
    }

    /// The same, for who listened before there was anything to wait for.
    pub async fn wait_with(
        mut self,
        mut signals: StopSignals,
        grace: Duration,
    ) -> anyhow::Result<()> {
        let early = tokio::select! {
            () = signals.recv() => None,
            ended = self.ended.recv() => ended,
        };
        match &early {
            None => tracing::info!("Stopping"),
            Some(Ended { task, .. }) => tracing::error!(task, "Stopping: a task ended by itself"),
        }
        self.tasks.token.cancel();
        self.tasks.tracker.close();
        tokio::select! {
            () = self.tasks.tracker.wait() => {}
            () = tokio::time::sleep(grace) => bail!("tasks did not stop within {grace:?}"),
            () = signals.recv() => bail!("stopped by a second signal"),
        }
        match early {
            None => Ok(()),
            Some(Ended {
                task,
                error: Some(error),
            }) => Err(error.context(format!("run {task}"))),
            Some(Ended { task, error: None }) => bail!("{task} ended by itself"),
        }
    }
}

/// SIGTERM and SIGINT. From the first listener on they do nothing by themselves any more, and where this is process 1
/// they never did: whoever may have to wait for long listens before.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Begins to listen. Needs a runtime.
    pub fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
        })
    }

    /// Until one comes, or came since the last call.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Tasks {
    /// Told when the process stops.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts a task without which the process is of no use. It must end only after the token was cancelled.
    pub fn spawn_essential(
        &self,
        task: &'static str,
        future: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let token = self.token.clone();
        let mut report = Report {
            task,
            ended: self.ended.clone(),
            owed: true,
        };
        self.tracker.spawn(async move {
            let error = future.await.err();
            report.owed = false;
            if !token.is_cancelled() || error.is_some() {
                report.send(error);
            }
        });
    }

    /// Starts a task that may end: one connection, one exchange. It is stopped by the token and waited for.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longest wait of a test: far longer than anything takes.
    const DEADLINE: Duration = Duration::from_secs(20);

    async fn end_of(supervisor: Supervisor) -> anyhow::Result<()> {
        let ended = tokio::time::timeout(DEADLINE, supervisor.wait(DEADLINE / 2)).await;
        ended.expect("the process ends")
    }

    #[tokio::test]
    async fn an_essential_task_that_panics_ends_the_process_and_stops_the_others() {
        let supervisor = Supervisor::new();
        let tasks = supervisor.tasks();
        let token = tasks.token();
        tasks.spawn_essential("the patient one", async move {
            token.cancelled().await;
            Ok(())
        });
        tasks.spawn_essential("the clumsy one", async { panic!("as asked") });
        let error = format!("{:#}", end_of(supervisor).await.unwrap_err());
        assert!(error.contains("the clumsy one"), "{error}");
        assert!(error.contains("panicked"), "{error}");
    }

    #[tokio::test]
    async fn an_essential_task_that_ends_early_ends_the_process_whatever_it_says() {
        for (result, says) in [
            (Ok(()), "ended by itself"),
            (Err(anyhow!("no more disk")), "no more disk"),
        ] {
            let supervisor = Supervisor::new();
            let tasks = supervisor.tasks();
            tasks.spawn_essential("the short one", async { result });
            let error = format!("{:#}", end_of(supervisor).await.unwrap_err());
            assert!(error.contains("the short one"), "{error}");
            assert!(error.contains(says), "{error}");
        }
    }
}
