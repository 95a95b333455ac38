//! `run`: serves until told to stop.

use std::{path::Path, sync::Arc, time::Duration};

use runtime::shutdown::{StopSignals, Supervisor};
use tokio::sync::mpsc;

use super::Settings;
use crate::{
    agent::{self, plan::Limits},
    capability::{
        About,
        command::{
            account::Accounts,
            groups::{Controllers, Groups},
        },
        live::{self, OWN_PROGRAM},
        spool::Spools,
    },
    enrol::{self, Applicant, PROOF_SETTLES, Progress},
    exit::Refusal,
    host::{Facts, clock},
    journal::{Bounds, Journal},
    mediation::{desk, hook, socket::Socket},
    state::{Folder, Identity, Saved, Standing},
    upstream::{Upstream, connect::chain, said::Said},
};

/// Words from the gateway that wait for the loop.
const WORDS: usize = 32;
/// In the place of a gateway, of which a pairing has one.
const PAIRING: &str = "pairing";
/// How long tasks may take to stop. The loop itself takes five seconds at most; a command that it told to stop at the
/// end of the fourth has its usual grace, and is then killed.
const STOP_TIME: Duration = Duration::from_secs(12);

pub(super) async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut stop = StopSignals::listen()?;
    let folder = Folder::open(&settings.folder)?;
    let facts = Facts::read();
    let identity = match folder.view().standing(clock::wall().as_second())? {
        Standing::Unpaired => return Err(Refusal::NotPaired.into()),
        Standing::Paired(identity) => identity,
        Standing::Pairing(saved) => tokio::select! {
            paired = finish_pairing(&settings, &folder, saved, &facts) => paired?,
            () = stop.recv() => {
                tracing::info!("Stopping; the pairing goes on with the next start");
                return Ok(());
            }
        },
    };
    let key = folder.key()?;
    folder.view().check_identity(&identity, &key)?;
    let source = settings.capabilities(About {
        namespace: identity.namespace.clone(),
        device: identity.device.clone(),
        public_key_sha256: key.fingerprint().to_string(),
        hostname: facts.hostname.clone(),
        os: facts.os.clone(),
        arch: facts.arch.clone(),
        agent_version: facts.agent_version.clone(),
    });
    let source = source.with_groups(control_groups());
    let (capabilities, keeper) = live::start(source);
    let (desk, visitors) = desk::open(keeper.mediation());
    let groups = &settings.config.mediation.groups;
    let socket = match Socket::open(&settings.socket(), groups, &Accounts::read()) {
        Ok(socket) => Some(socket),
        Err(error) => {
            // Not the end: what needs nobody's word runs all the same, and nobody could mend it from afar otherwise.
            let error = chain(&error);
            tracing::error!(
                error,
                "Nobody can be asked on this device: what is mediated is refused"
            );
            None
        }
    };
    let spools = Spools::new(folder.view().artefacts(), settings.config.artefacts_bytes);
    let journal = Journal::open(&folder.view().journal(), Bounds::default(), clock::now())?;
    tracing::info!(
        namespace = identity.namespace,
        device = identity.device,
        "Serving"
    );

    let supervisor = Supervisor::new();
    let tasks = supervisor.tasks();
    let (words, upstream) = mpsc::channel(WORDS);
    let limits = Limits {
        running: settings.config.max_concurrent,
        asking: socket.as_ref().map_or(0, |_| Limits::default().asking),
        ..Limits::default()
    };
    let connecting = Upstream {
        folder: Arc::new(folder),
        dialer: settings.dialer(),
        key,
        identity,
        platform: facts.to_platform(),
        capabilities: capabilities.clone(),
        concurrency: limits.at_once(),
        words,
    };
    let serving = agent::Parts {
        journal,
        capabilities,
        limits,
        desk,
        spools,
        upstream,
        tasks: tasks.clone(),
    };
    if let Some(socket) = socket {
        let ringing = hook::run(
            Path::new(OWN_PROGRAM).into(),
            visitors.clone(),
            tasks.token(),
        );
        tasks.spawn_essential("on_pending", ringing);
        tasks.spawn_essential("the agent's socket", socket.run(visitors, tasks.token()));
    }
    tasks.spawn_essential("the agent's loop", agent::run(serving, tasks.token()));
    tasks.spawn_essential("the connection to the gateway", connecting.run());
    tasks.spawn_essential("the capabilities", keeper.run(tasks.token()));
    supervisor.wait_with(stop, STOP_TIME).await
}

/// `run` on a device that waits for its approver. A stop ends the process: everything is on the disk.
async fn finish_pairing(
    settings: &Settings,
    folder: &Folder,
    saved: Saved,
    facts: &Facts,
) -> anyhow::Result<Identity> {
    let capabilities = settings.declared();
    let key = folder.key()?;
    let applicant = Applicant {
        folder,
        key: &key,
        dialer: &settings.dialer(),
        facts,
        capabilities: &capabilities,
        settles: PROOF_SETTLES,
    };
    let mut said = Said::default();
    let mut tell = |progress: Progress<'_>| match progress {
        Progress::Pending { request, .. } => tracing::info!(
            namespace = request.namespace,
            request = request.name,
            "Waiting for approval"
        ),
        Progress::Interrupted { reason, pause } => {
            if said.is_new(PAIRING, &reason) {
                tracing::warn!(reason, ?pause, "Interrupted while waiting for approval");
            } else {
                tracing::debug!(reason, ?pause, "Still interrupted");
            }
        }
        Progress::Proved { .. } => {}
    };
    Ok(enrol::resume(applicant, saved, &mut tell).await?)
}

/// Where the host gives none, commands run without: that is said once.
fn control_groups() -> Option<Groups> {
    match Groups::take() {
        Ok(groups) => {
            let Controllers { memory, pids } = groups.controllers();
            tracing::info!(memory, pids, "Commands run in control groups of their own");
            Some(groups)
        }
        Err(why) => {
            let why = chain(&why);
            tracing::info!(why, "Commands run without control groups");
            None
        }
    }
}
