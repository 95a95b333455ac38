//! One function per command, and the tasks of `run`.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use pairing::{code::PairingCode, key::KeyFingerprint, uri::PairingUri};
use proto::node;
use runtime::shutdown::{StopSignals, Supervisor};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::{
    agent::{self, plan::Limits},
    args::{Args, Command, Output, Pair},
    capability::{
        About,
        command::confine,
        live::{self, OWN_PROGRAM, Source},
    },
    config::Config,
    enrol::{self, Applicant, Invitation, PROOF_SETTLES, Progress},
    exit::{Exit, Interrupted, Refusal},
    host::{Facts, clock},
    journal::{Bounds, Journal},
    state::{Folder, Identity, Saved, Standing, View, access::default_path, identity::LifeState},
    status::Status,
    terminal,
    upstream::{Upstream, gateways::is_address},
};

/// Blocking work at once: a resolver, and capabilities. A thread costs memory for as long as it lives.
const MAX_BLOCKING_THREADS: usize = 8;
/// Words from the gateway that wait for the loop.
const WORDS: usize = 32;
/// How long tasks may take to stop. The loop itself takes five seconds at most; a command that it told to stop at the
/// end of the fourth has its usual grace, and is then killed.
const STOP_TIME: Duration = Duration::from_secs(12);

/// Runs the command, and says what went wrong.
pub fn main(args: Args) -> ExitCode {
    match run_command(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            Exit::of(&error).into()
        }
    }
}

fn run_command(args: Args) -> anyhow::Result<ExitCode> {
    let Args {
        state_dir,
        config: config_path,
        log,
        command,
    } = args;
    let settle = || -> anyhow::Result<Settings> {
        log.init()?;
        let config = Config::read(config_path.as_deref())?;
        let folder = match state_dir.or_else(|| config.state_dir.clone()) {
            Some(folder) => folder,
            None => default_folder()?,
        };
        Ok(Settings {
            folder,
            config_path,
            config,
        })
    };
    match command {
        // It runs as who the command runs as, who may not read anything of the agent's.
        Command::ExecCapability(confinement) => return Ok(confine::exec(&confinement)),
        Command::Pair(pair) => block_on(self::pair(&settle()?, pair))?,
        Command::Run => block_on(run(settle()?))?,
        Command::Status(status) => show_status(&settle()?.folder, status.output)?,
        Command::Unpair(unpair) => self::unpair(&settle()?.folder, unpair.yes)?,
        Command::Capabilities => show_capabilities(&settle()?)?,
    }
    Ok(Exit::Done.into())
}

/// What the command line and the configuration come to.
struct Settings {
    /// Of the state.
    folder: PathBuf,
    config_path: Option<PathBuf>,
    config: Config,
}

impl Settings {
    fn capabilities(&self, about: About) -> Source {
        let (path, config) = (self.config_path.clone(), self.config.clone());
        Source::new(path, config, about, Path::new(OWN_PROGRAM))
    }

    /// What an approver is shown.
    fn declared(&self) -> Vec<node::Capability> {
        let (registry, problems) = self.capabilities(About::default()).load();
        live::complain(&problems);
        registry.declared()
    }
}

fn default_folder() -> anyhow::Result<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from);
    default_path(
        rustix::process::geteuid().is_root(),
        variable("XDG_STATE_HOME"),
        variable("HOME"),
    )
    .ok_or_else(|| usage("no home folder is known: say where to keep the state with --state-dir"))
}

fn usage(message: impl Into<String>) -> anyhow::Error {
    Refusal::Usage(message.into()).into()
}

/// One thread is enough, and cheap.
fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(future);
    // Dropping it would wait for blocking work without an end: one file system that hangs, and no signal stops the agent.
    runtime.shutdown_background();
    result
}

async fn pair(settings: &Settings, args: Pair) -> anyhow::Result<()> {
    let Pair {
        code,
        gateway,
        name,
    } = args;
    let folder = Folder::open(&settings.folder)?;
    let view = folder.view();
    let interrupted = match view.standing(clock::wall().as_second())? {
        Standing::Unpaired => None,
        Standing::Pairing(saved) => Some(saved),
        Standing::Paired(identity) => {
            refuse_while_it_holds(view, identity)?;
            None
        }
    };
    let facts = Facts::read();
    let typed = read_code(code, interrupted.is_some())?;
    let (invitation, gateway) = match typed {
        Some(text) => {
            let invitation = invitation(&text, gateway, name, &facts)?;
            let gateway = invitation.gateway.clone();
            (Some(invitation), Some(gateway))
        }
        None => (None, gateway.map(address).transpose()?),
    };
    let capabilities = settings.declared();
    let key = folder.key()?;
    let applicant = Applicant {
        folder: &folder,
        key: &key,
        facts: &facts,
        capabilities: &capabilities,
        settles: PROOF_SETTLES,
    };
    // Not before: whoever sits at a prompt can leave it.
    let mut stop = StopSignals::listen()?;
    let identity = tokio::select! {
        paired = carry_on(applicant, interrupted, invitation, gateway) => paired?,
        () = stop.recv() => return Err(Interrupted.into()),
    };
    terminal::say(&terminal::of_identity(&identity));
    warn_of_the_clock(view, &identity)?;
    Ok(())
}

/// An expired device comes back with its key and a new code.
fn refuse_while_it_holds(view: &View, identity: Identity) -> anyhow::Result<()> {
    if view
        .life_of(&identity)?
        .is_over_at(clock::wall().as_second())
    {
        return Ok(());
    }
    Err(Refusal::AlreadyPaired {
        namespace: identity.namespace,
        device: identity.device,
    }
    .into())
}

fn warn_of_the_clock(view: &View, identity: &Identity) -> anyhow::Result<()> {
    let now = clock::wall();
    if view.life_of(identity)?.at(now.as_second()) != LifeState::Valid {
        terminal::say(&format!(
            "This device's clock says {now:.0}, and the certificate does not hold then: set the clock before you start it."
        ));
    }
    Ok(())
}

/// Goes on with what was interrupted, unless the person brought another code; at `gateway`, where the person named one:
/// the one before may be gone for good, and any of them knows the key.
async fn carry_on(
    applicant: Applicant<'_>,
    interrupted: Option<Saved>,
    invitation: Option<Invitation>,
    gateway: Option<String>,
) -> Result<Identity, enrol::Error> {
    let mut tell = |progress: Progress<'_>| terminal::say(&terminal::of_progress(&progress));
    let redirect = |saved| match gateway {
        Some(gateway) => applicant.folder.redirect_pairing(saved, gateway),
        None => Ok(saved),
    };
    match (interrupted, invitation) {
        (Some(saved), None) => enrol::resume(applicant, redirect(saved)?, &mut tell).await,
        (Some(saved), Some(invitation)) if is_same(&saved, &invitation) => {
            let saved = redirect(saved)?;
            match enrol::resume(applicant, saved, &mut tell).await {
                // The stop came before the proof left. The person brought the code once more.
                Err(enrol::Error::NotAdmitted) => {
                    enrol::pair(applicant, invitation, &mut tell).await
                }
                other => other,
            }
        }
        (_, Some(invitation)) => enrol::pair(applicant, invitation, &mut tell).await,
        (None, None) => Err(enrol::Error::NotAdmitted),
    }
}

/// A code that was proved by this key already may be used up: proving it again would fail, and the request waits.
fn is_same(saved: &Saved, invitation: &Invitation) -> bool {
    saved.pairing().code_id == invitation.code.id()
}

/// What the person brought; `None` where there is something to go on with instead.
fn read_code(
    given: Option<String>,
    interrupted: bool,
) -> anyhow::Result<Option<Zeroizing<String>>> {
    let text = match given.map(Zeroizing::new) {
        Some(text) if text.as_str() == "-" => {
            terminal::read_line().context("read the code from standard input")?
        }
        Some(text) => text,
        None if interrupted => return Ok(None),
        None if terminal::is_interactive() => terminal::ask("Pairing code:")?,
        None => {
            return Err(usage(
                "no pairing code: give it as an argument, in FAIRLEAD_CODE, or on standard input with -",
            ));
        }
    };
    Ok(Some(text))
}

fn invitation(
    text: &str,
    gateway: Option<String>,
    name: Option<String>,
    facts: &Facts,
) -> anyhow::Result<Invitation> {
    let requested_name = name.unwrap_or_else(|| facts.hostname.clone());
    if !(1..=253).contains(&requested_name.len()) || requested_name.chars().any(char::is_control) {
        return Err(usage("--name has 1 to 253 characters that can be printed"));
    }
    let text = text.trim();
    let (code, pin, told) = if text.contains("://") {
        let uri: PairingUri = text.parse().map_err(|error| usage(in_one_line(&error)))?;
        (uri.code, Some(uri.authority), Some(uri.gateway))
    } else {
        let code = PairingCode::parse(text).map_err(|error| usage(in_one_line(&error)))?;
        (code, None::<KeyFingerprint>, None)
    };
    let gateway = match gateway.or(told) {
        Some(gateway) => gateway,
        None if terminal::is_interactive() => {
            terminal::ask("Gateway (HOST:PORT):")?.trim().to_owned()
        }
        None => {
            return Err(usage(
                "a typed code does not say where the gateway is: add --gateway HOST:PORT",
            ));
        }
    };
    Ok(Invitation {
        gateway: address(gateway)?,
        code,
        pin,
        requested_name,
    })
}

fn address(gateway: String) -> anyhow::Result<String> {
    if is_address(&gateway) {
        Ok(gateway)
    } else {
        Err(usage("the gateway's address is not HOST:PORT"))
    }
}

fn in_one_line(error: &(dyn std::error::Error + 'static)) -> String {
    crate::upstream::connect::chain(error)
}

async fn run(settings: Settings) -> anyhow::Result<()> {
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
    let (capabilities, keeper) = live::start(source);
    let journal = Journal::open(&folder.view().journal(), Bounds::default(), clock::now())?;
    tracing::info!(
        namespace = identity.namespace,
        device = identity.device,
        "Serving"
    );

    let supervisor = Supervisor::new();
    let tasks = supervisor.tasks();
    let (words, upstream) = mpsc::channel(WORDS);
    let connecting = Upstream {
        folder: Arc::new(folder),
        key,
        identity,
        platform: facts.to_platform(),
        capabilities: capabilities.clone(),
        words,
    };
    let serving = agent::Parts {
        journal,
        capabilities,
        limits: Limits {
            running: settings.config.max_concurrent,
            ..Limits::default()
        },
        upstream,
        tasks: tasks.clone(),
    };
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
        facts,
        capabilities: &capabilities,
        settles: PROOF_SETTLES,
    };
    let mut tell = |progress: Progress<'_>| match progress {
        Progress::Pending { request, .. } => tracing::info!(
            namespace = request.namespace,
            request = request.name,
            "Waiting for approval"
        ),
        Progress::Interrupted { reason, pause } => {
            tracing::warn!(reason, ?pause, "Interrupted while waiting for approval");
        }
        Progress::Proved { .. } => {}
    };
    Ok(enrol::resume(applicant, saved, &mut tell).await?)
}

/// What this device has, to standard output; what is wrong, to standard error.
fn show_capabilities(settings: &Settings) -> anyhow::Result<()> {
    let (registry, problems) = settings.capabilities(About::default()).load();
    terminal::say(&live::table(&registry));
    let Some((last, others)) = problems.split_last() else {
        return Ok(());
    };
    for problem in others {
        eprintln!("error: {problem}");
    }
    Err(last.clone().into())
}

fn show_status(path: &Path, output: Output) -> anyhow::Result<()> {
    let status = Status::read(path, clock::wall())?;
    match output {
        Output::Text => terminal::say(&status.to_string()),
        Output::Json => terminal::say(&serde_json::to_string_pretty(&status)?),
    }
    Ok(())
}

fn unpair(path: &Path, yes: bool) -> anyhow::Result<()> {
    let Some(view) = View::of(path)? else {
        return Err(Refusal::NotPaired.into());
    };
    // What is damaged can be removed all the same.
    let device = match view.identity() {
        Ok(Some(identity)) => Some(format!("{}/{}", identity.namespace, identity.device)),
        Ok(None) | Err(_) => None,
    };
    if !yes {
        if !terminal::is_interactive() {
            return Err(usage("nobody to ask: add --yes"));
        }
        let answer = terminal::ask(&format!(
            "Remove the key, the identity and the journal of {}? They cannot be brought back. [y/N]",
            device.as_deref().unwrap_or("this device")
        ))?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(usage("nothing was removed"));
        }
    }
    Folder::open(path)?.clear()?;
    terminal::say("This device is not paired any more.");
    if let Some(device) = device {
        terminal::say(&format!(
            "The cluster still knows it as {device}: an administrator must revoke or delete that Device."
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            agent_version: "0".to_owned(),
            hostname: "box".to_owned(),
        }
    }

    fn uri() -> String {
        PairingUri {
            gateway: "gateway.example:7443".to_owned(),
            namespace: "kitchen".to_owned(),
            authority: KeyFingerprint::of_spki(b"authority"),
            code: PairingCode::parse("7KQ2-ABCDEF").unwrap(),
        }
        .expose()
    }

    #[test]
    fn a_uri_brings_its_gateway_and_its_authority_and_a_code_neither() {
        let scanned = invitation(&uri(), None, None, &facts()).unwrap();
        assert_eq!(scanned.gateway, "gateway.example:7443");
        assert!(scanned.pin.is_some());
        assert_eq!(scanned.requested_name, "box");

        let elsewhere = Some("other.example:1".to_owned());
        let moved = invitation(&uri(), elsewhere.clone(), None, &facts()).unwrap();
        assert_eq!(moved.gateway, "other.example:1");
        assert_eq!(moved.pin, scanned.pin);

        let typed =
            invitation("7kq2 abcdef", elsewhere, Some("lamp".to_owned()), &facts()).unwrap();
        assert_eq!((typed.pin, typed.requested_name.as_str()), (None, "lamp"));
    }

    #[test]
    fn work_that_hangs_does_not_keep_the_process_from_ending() {
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        let (ended, ends) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let result = block_on(async move {
                let (begun, begins) = tokio::sync::oneshot::channel();
                drop(tokio::task::spawn_blocking(move || {
                    begun.send(()).unwrap();
                    let _ = hangs.recv();
                }));
                begins.await?;
                Ok(())
            });
            ended.send(result).unwrap();
        });
        let result = ends.recv_timeout(Duration::from_secs(20));
        drop(release);
        result.unwrap().unwrap();
    }

    #[test]
    fn what_cannot_be_read_is_a_usage_error_that_shows_no_code() {
        let gateway = || Some("g:1".to_owned());
        for (text, gateway, name) in [
            ("7KQ2-ABCDE", gateway(), None),
            ("https://x/#7KQ2-ABCDEF", gateway(), None),
            ("7KQ2-ABCDEF", Some("nowhere".to_owned()), None),
            ("7KQ2-ABCDEF", gateway(), Some(String::new())),
            ("7KQ2-ABCDEF", gateway(), Some("a\nb".to_owned())),
        ] {
            let error = invitation(text, gateway, name, &facts()).unwrap_err();
            assert_eq!(Exit::of(&error), Exit::Usage, "{text}");
            assert!(!format!("{error:#}").contains("ABCDE"), "{error:#}");
        }
    }
}
