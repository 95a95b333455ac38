//! What this device can do now: put together from what is built in and what its administrator declares, and put together
//! anew when that changes.
//!
//! Invocations that run go on with what they started with.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use proto::node::{Availability, Execution};
use surface::MAX_DEVICE_PATTERN_BYTES;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    About, Registry,
    command::{
        Declared,
        account::Accounts,
        declaration::Surroundings,
        folder::{self, Fingerprint, Found},
        groups::Groups,
    },
    desktop,
    terms::{MAX_SCHEMAS_BYTES, Terms},
};
use crate::config::{Config, document::Problem, mediation::Mediation};

/// How often the folder is looked at. A change counts when it was seen twice: an editor may still be writing.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Most capabilities of one device, as the resource has it.
const MAX_CAPABILITIES: usize = 128;
/// The agent's own program, even after another was installed in its place.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// What this device can do now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Live(watch::Receiver<Arc<Registry>>);

impl Live {
    pub fn current(&self) -> Arc<Registry> {
        Arc::clone(&self.0.borrow())
    }

    /// What there is now, which counts as seen.
    pub fn see(&mut self) -> Arc<Registry> {
        Arc::clone(&self.0.borrow_and_update())
    }

    /// Until there is something else than what was seen.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// One that never changes.
impl From<Registry> for Live {
    fn from(registry: Registry) -> Self {
        Self(watch::channel(Arc::new(registry)).1)
    }
}

/// Where capabilities come from.
pub struct Source {
    /// The file that was named, if one was.
    config_path: Option<PathBuf>,
    config: Config,
    about: About,
    launcher: Arc<Path>,
    groups: Option<Arc<Groups>>,
    /// What was loaded last.
    fingerprint: Fingerprint,
    /// What was seen last.
    seen: Fingerprint,
    programs: Vec<PathBuf>,
}

impl Source {
    /// `launcher` is this program: [`OWN_PROGRAM`], but for tests.
    pub fn new(
        config_path: Option<PathBuf>,
        config: Config,
        about: About,
        launcher: &Path,
    ) -> Self {
        Self {
            config_path,
            config,
            about,
            launcher: launcher.into(),
            groups: None,
            fingerprint: Fingerprint::default(),
            seen: Fingerprint::default(),
            programs: Vec::new(),
        }
    }

    /// Has each run of a declared command in a control group of its own.
    pub fn with_groups(mut self, groups: Option<Groups>) -> Self {
        self.groups = groups.map(Arc::new);
        self
    }

    /// Everything that this device can do, and everything that is wrong with the rest.
    pub fn load(&mut self) -> (Registry, Vec<Problem>) {
        let folder = self.config.capabilities_dir.clone();
        let before = folder::fingerprint(&folder, []);
        let Found {
            declarations,
            mut problems,
        } = folder::read(&folder, &surroundings());
        self.programs = declarations.iter().map(|one| one.program.clone()).collect();
        self.seen = self.look();
        self.fingerprint = if folder::fingerprint(&folder, []) == before {
            self.seen.clone()
        } else {
            // Changed while it was read: nothing that will be seen is like this.
            Fingerprint::default()
        };

        let mut registry = Registry::built_in(self.about.clone());
        desktop::add(&mut registry, &self.config.desktop, &self.launcher);
        let mut schema_bytes: usize = registry.iter().map(|one| one.terms().schema_bytes()).sum();
        let mut pattern_bytes: usize = registry.iter().map(|one| one.terms().pattern_bytes()).sum();
        for declaration in declarations {
            if registry.len() >= MAX_CAPABILITIES {
                let message = format!(
                    "{} is left out: a device has {MAX_CAPABILITIES} capabilities at most",
                    declaration.name
                );
                problems.push(declaration.program_at.problem("capability", message));
                continue;
            }
            schema_bytes += declaration.terms.schema_bytes();
            if schema_bytes > MAX_SCHEMAS_BYTES {
                schema_bytes -= declaration.terms.schema_bytes();
                let message = format!(
                    "{} is left out: the schemas of a device are {MAX_SCHEMAS_BYTES} bytes long at most together",
                    declaration.name
                );
                problems.push(declaration.program_at.problem("capability", message));
                continue;
            }
            pattern_bytes += declaration.terms.pattern_bytes();
            if pattern_bytes > MAX_DEVICE_PATTERN_BYTES {
                pattern_bytes -= declaration.terms.pattern_bytes();
                schema_bytes -= declaration.terms.schema_bytes();
                let message = format!(
                    "{} is left out: the patterns in the schemas of a device take {MAX_DEVICE_PATTERN_BYTES} bytes of memory at most together; use smaller counts in them",
                    declaration.name
                );
                problems.push(declaration.program_at.problem("capability", message));
                continue;
            }
            let (declared, problem) =
                Declared::new(declaration, Arc::clone(&self.launcher), self.groups.clone());
            problems.extend(problem);
            registry.add(Arc::new(declared));
        }
        (registry, problems)
    }

    fn look(&self) -> Fingerprint {
        let programs = self.programs.iter().map(PathBuf::as_path);
        folder::fingerprint(&self.config.capabilities_dir, programs)
    }

    /// Whether the folder changed since it was loaded, and then did not between two looks.
    fn has_settled_anew(&mut self) -> bool {
        let now = self.look();
        let before = std::mem::replace(&mut self.seen, now);
        self.seen == before && self.seen != self.fingerprint
    }

    /// Reads the configuration again. What is wrong with it is said, and it stays as it was.
    fn read_config(&mut self) {
        match Config::read(self.config_path.as_deref()) {
            Ok(config) => {
                let fixed = |config: &Config| {
                    let Mediation { socket, groups, .. } = &config.mediation;
                    let (folder, runs) = (config.state_dir.clone(), config.max_concurrent);
                    let kept = config.artefacts_bytes;
                    let proxy = (config.proxy.clone(), config.no_proxy.clone());
                    let group = groups.first().cloned();
                    (folder, runs, kept, proxy, socket.clone(), group)
                };
                if fixed(&config) != fixed(&self.config) {
                    tracing::warn!(
                        "state_dir, max_concurrent, artefacts_bytes, proxy, no_proxy, mediation.socket and its group change at the next start only"
                    );
                }
                self.config = config;
            }
            Err(problem) => {
                tracing::warn!(%problem, "The configuration is wrong, and stays as it was");
            }
        }
    }
}

/// The machine, as declarations are checked against it.
pub fn surroundings() -> Surroundings {
    Surroundings {
        is_root: rustix::process::geteuid().is_root(),
        accounts: Accounts::read(),
    }
}

/// Says what is wrong.
pub fn complain(problems: &[Problem]) {
    for problem in problems {
        tracing::warn!(%problem, "A capability is not as declared");
    }
}

fn report(registry: &Registry, problems: &[Problem]) {
    complain(problems);
    tracing::info!(
        capabilities = registry.len(),
        problems = problems.len(),
        "Loaded the capabilities"
    );
}

/// Loads `source`; the [`Keeper`] keeps what comes of it up to date.
pub fn start(mut source: Source) -> (Live, Keeper) {
    let (registry, problems) = source.load();
    report(&registry, &problems);
    let (sender, receiver) = watch::channel(Arc::new(registry));
    let (mediation, _) = watch::channel(Arc::new(source.config.mediation.clone()));
    let keeper = Keeper {
        source,
        sender,
        mediation,
        every: LOOK_EVERY,
    };
    (Live(receiver), keeper)
}

/// Puts the registry together anew when what it comes from changes.
pub struct Keeper {
    source: Source,
    sender: watch::Sender<Arc<Registry>>,
    mediation: watch::Sender<Arc<Mediation>>,
    every: Duration,
}

impl Keeper {
    /// How a person is asked. Follows the configuration.
    pub fn mediation(&self) -> watch::Receiver<Arc<Mediation>> {
        self.mediation.subscribe()
    }

    /// With another time between two looks.
    pub fn looking_every(self, every: Duration) -> Self {
        Self { every, ..self }
    }

    /// Until `stop`: heeds SIGHUP, and looks at the folder now and then.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self {
            mut source,
            sender,
            mediation,
            every,
        } = self;
        let mut hangups = signal(SignalKind::hangup())?;
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_due = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = hangups.recv() => {
                    source.read_config();
                    mediation.send_replace(Arc::new(source.config.mediation.clone()));
                    true
                }
                _ = ticks.tick() => source.has_settled_anew(),
            };
            if is_due {
                let (registry, problems) = source.load();
                report(&registry, &problems);
                sender.send_replace(Arc::new(registry));
            }
        }
    }
}

/// Each capability, as `fairlead-agent capabilities` shows them: one line, and below it what it takes and answers.
pub fn table(registry: &Registry) -> String {
    let mut lines = Vec::new();
    for capability in registry.iter() {
        let execution = match capability.execution() {
            Execution::Mediated => "Mediated",
            Execution::Automatic | Execution::Unspecified => "Automatic",
        };
        let availability = match capability.availability() {
            Availability::Available => "available",
            Availability::Unavailable | Availability::Unspecified => "not available",
        };
        let Terms {
            version,
            input,
            output,
            ..
        } = capability.terms();
        let name = capability.name();
        let line = format!("{name:<32} {execution:<10} {availability:<14} {version}");
        lines.push(line.trim_end().to_owned());
        for (word, schema) in [("takes", input), ("answers", output)] {
            lines.extend(
                schema
                    .as_ref()
                    .map(|schema| format!("    {word:<8} {}", schema.text())),
            );
        }
    }
    lines.join("\n")
}
