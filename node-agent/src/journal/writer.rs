//! The journal's own thread: whatever else hangs on this machine, the journal has its turn.

use std::{io, thread};

use tokio::sync::{mpsc, oneshot};

use super::log::Log;

type Job = Box<dyn FnOnce(&mut Log) + Send>;

/// Does one after the other what may wait for a disk. Not on the runtime's blocking threads: those are few, and
/// capabilities use them too; with one that hangs on each, nothing could be recorded any more.
///
/// The thread ends when this is dropped and what it was given is done. Nobody waits for that: a disk that hangs must not
/// keep the process alive, and what is not on the disk yet, nobody was told of.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    pub(super) fn start(mut log: Log) -> io::Result<Self> {
        let (jobs, mut given) = mpsc::channel::<Job>(1);
        thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                while let Some(job) = given.blocking_recv() {
                    job(&mut log);
                }
            })?;
        Ok(Self { jobs })
    }

    /// Once begun, it is done, though nobody may wait for it any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Log) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |log| {
            let _ = answer.send(run(log));
        });
        self.jobs.send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

fn gone() -> io::Error {
    io::Error::other("the journal's thread is gone")
}
