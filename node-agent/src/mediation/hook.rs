//! `on_pending`: what the administrator has run when something begins to wait for an answer. It rings; it does not answer.

use std::{
    collections::HashSet,
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{desk::Visitors, question::Digest};
use crate::{
    capability::command::{
        check_program,
        confine::Limits,
        groups::Bounds,
        process::{self, Job},
    },
    host::clock,
};

/// How long one run may take.
const RUN_TIME: Duration = Duration::from_secs(10);
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(1);
/// What it writes is thrown away past this; it ends it.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;
/// What it needs to reach a person. No other variable is passed on.
const ENVIRONMENT: [&str; 9] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "HOME",
    "LANG",
    "PATH",
    "USER",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
];

/// Rings for each question once, one after the other, until `stop`. `launcher` is the agent's own program.
pub async fn run(
    launcher: Arc<Path>,
    mut visitors: Visitors,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut rung: HashSet<Digest> = HashSet::new();
    loop {
        let asked = Arc::clone(&visitors.asked.borrow_and_update());
        // As bounded as what is asked.
        rung.retain(|digest| asked.questions.iter().any(|one| one.digest == *digest));
        let next = asked
            .questions
            .iter()
            .find(|one| !rung.contains(&one.digest));
        let Some(question) = next else {
            let is_gone = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = visitors.asked.changed() => changed.is_err(),
            };
            if is_gone {
                // The loop ended, and with it the process, soon.
                stop.cancelled().await;
                return Ok(());
            }
            continue;
        };
        rung.insert(question.digest);
        let command = visitors.settings.borrow().on_pending.clone();
        let input = serde_json::to_vec(&question.shown(clock::now()))?;
        let Some(job) = job(command, input) else {
            continue;
        };
        let uid = &question.order.uid;
        let carried_out = match check_program(&job.program, &[]) {
            Ok(()) => process::carry_out(&launcher, &job, &stop).await,
            Err(error) => Err(error),
        };
        if let Err(error) = carried_out {
            tracing::warn!(%uid, error, "on_pending failed; the question waits all the same");
        }
    }
}

/// `None` where nothing is to be run.
fn job(command: Vec<String>, input: Vec<u8>) -> Option<Job> {
    let mut words = command.into_iter();
    let environment = ENVIRONMENT.iter();
    Some(Job {
        program: PathBuf::from(words.next()?),
        arguments: words.collect(),
        environment: environment
            .filter_map(|&name| Some((name.to_owned(), env::var_os(name)?)))
            .collect(),
        working_directory: PathBuf::from("/"),
        account: None,
        limits: Limits::default(),
        max_told_bytes: MAX_OUTPUT_BYTES,
        max_output_bytes: MAX_OUTPUT_BYTES as u64,
        spool: None,
        timeout: Some(RUN_TIME),
        grace: GRACE,
        input,
        groups: None,
        bounds: Bounds::default(),
    })
}
