//! `cargo faults`: real programs on a real API server, with everything done to them that happens to programs; at the end
//! the resources are compared with what capabilities really did.
//!
//! A schedule is drawn from its seed ([`schedule`]) and played at once; what it asked for may end much later, so the
//! next one begins meanwhile, and all are judged at the end ([`verdict`]) against the log of [`effects`]. Devices reach
//! their gateways through a [`proxy`] each.
#![expect(clippy::print_stdout, reason = "what is printed is the finding")]

mod disk;
pub mod effects;
mod findings;
mod proxy;
mod schedule;
pub mod verdict;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use crds::v1alpha1::CapabilityInvocationStatus;
use crds::v1alpha1::capability_invocation::InvocationPhase;
use crds::{CapabilityInvocation, Device};
use jiff::{SignedDuration, Timestamp};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use rustix::process::Signal;
use serde_json::json;

use crate::approval::FrontDesk;
use crate::controlplane::{Binaries, ControlPlane};
use crate::install::install;
use crate::private;
use crate::stack::{Agent, Place, Programs, Stack};
use crate::wait::{Stopwatch, until};
use disk::Disk;
use findings::Findings;
use proxy::{Proxy, Weather};
use schedule::{Action, Invocation, Stage, Victim};
use verdict::{Case, Verdict};

const NAMESPACE: &str = "faults";
const CAPABILITY: &str = "trial.effect";
const STAGE: Stage = Stage {
    gateways: 2,
    devices: 2,
};
const SOON: Duration = Duration::from_mins(1);
/// After the last schedule: the longest wait and timeout that is drawn, and what the operator takes to say Unknown.
const SETTLED_WITHIN: Duration = Duration::from_mins(1);
/// For one invocation after everything was over, when nothing goes wrong any more.
const LAST: Duration = Duration::from_secs(30);
/// All programs have one clock here; what they write of it has whole seconds.
const CLOCKS: SignedDuration = SignedDuration::from_secs(1);
/// How an agent ends whose state folder is another one's.
const BUSY: i32 = 9;
/// Read by debug builds of the agent: the capability is begun before the journal knows.
const BREAK: &str = "FAIRLEAD_TEST_EFFECT_BEFORE_JOURNAL";

/// Kill, freeze, cut and stall real programs, and compare what they say with what happened.
#[derive(Debug, Parser)]
#[command(name = "faults", bin_name = "cargo faults")]
pub struct Arguments {
    /// How many schedules are played
    #[arg(long, default_value_t = 200)]
    schedules: u64,

    /// The first schedule's seed; each that follows is one more
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Let the agents have effects before their journal knows: the end must then be red
    #[arg(long)]
    break_journal: bool,
}

impl Arguments {
    /// Plays the schedules.
    ///
    /// # Errors
    /// When a resource says what is not true, an effect was had twice, or something never ended; logs and states are
    /// kept then, and the message says where.
    pub async fn run(self) -> anyhow::Result<()> {
        let programs = Programs::build()?;
        let binaries = Binaries::find()?;
        let mut folder = tempfile::Builder::new()
            .prefix("fairlead-faults-")
            .tempdir()?;
        let control_plane =
            ControlPlane::start(&binaries, &folder.path().join("controlplane")).await?;
        install(&control_plane.cluster().client()).await?;
        let path = folder.path().to_owned();
        let mut world = World::start(control_plane, &programs, &path, self.break_journal).await?;
        let played = world.play(self.seed, self.schedules).await;
        let stopped = world.stop().await;
        let judged = played.and_then(|findings| findings.conclude());
        // What was broken on purpose is red, and nobody looks into why.
        if judged.is_err() && !self.break_journal {
            folder.disable_cleanup(true);
        }
        let ended = judged.and(stopped);
        if self.break_journal {
            return ended;
        }
        ended.with_context(|| format!("logs and states are in {}", path.display()))
    }
}

struct World {
    control_plane: Option<ControlPlane>,
    stack: Stack,
    agents: Vec<Agent>,
    /// Under the agents' states; absent where none can be had.
    disks: Vec<Option<Disk>>,
    proxies: Vec<Proxy>,
    log: PathBuf,
    invocations: Api<CapabilityInvocation>,
    /// When each agent was killed.
    kills: Vec<Vec<Timestamp>>,
}

impl World {
    async fn start(
        control_plane: ControlPlane,
        programs: &Programs,
        folder: &Path,
        break_journal: bool,
    ) -> anyhow::Result<Self> {
        let cluster = control_plane.cluster().clone();
        let mut proxies = Vec::new();
        let mut places = Vec::new();
        for _ in 0..STAGE.gateways {
            let listen = crate::stack::loopback()?;
            let proxy = Proxy::start(&listen).await?;
            places.push(Place {
                listen,
                advertise: proxy.address().to_owned(),
            });
            proxies.push(proxy);
        }
        let stack = Stack::start_at(&cluster, programs, folder, &places).await?;
        let log = folder.join("effects.log");
        let config = declare(folder, &programs.path("effect"), &log)?;
        let desk = FrontDesk::open(cluster.client(), NAMESPACE, STAGE.devices).await?;
        let mut agents = Vec::new();
        let mut disks = Vec::new();
        for number in 0..STAGE.devices {
            let mut agent = stack.agent(&device(number))?.with_config(&config);
            if break_journal {
                agent = agent.with_env(BREAK, "1");
            }
            private::folder(&agent.state())?;
            disks.push(Disk::mount(&agent.state()));
            desk.pair(&agent).await?;
            agent.run()?;
            agents.push(agent);
        }
        let devices: Api<Device> = Api::namespaced(cluster.client(), NAMESPACE);
        for number in 0..STAGE.devices {
            until("the device declares its capability", SOON, async || {
                let status = devices.get(&device(number)).await?.status;
                let capabilities = status.map(|status| status.capabilities).unwrap_or_default();
                let declared = capabilities
                    .iter()
                    .any(|capability| capability.name == CAPABILITY);
                Ok(declared.then_some(()))
            })
            .await?;
        }
        Ok(Self {
            invocations: Api::namespaced(cluster.client(), NAMESPACE),
            control_plane: Some(control_plane),
            stack,
            agents,
            disks,
            proxies,
            log,
            kills: vec![Vec::new(); STAGE.devices],
        })
    }

    async fn play(&mut self, first: u64, count: u64) -> anyhow::Result<Findings> {
        let watch = Stopwatch::start();
        for seed in first..first.saturating_add(count) {
            self.schedule(seed)
                .await
                .with_context(|| format!("seed {seed}"))?;
        }
        let played = watch.elapsed();
        let settled = until("everything ends and is told", SETTLED_WITHIN, async || {
            let open = self.judge().await?;
            let open = open.iter().filter(|(_, verdict)| verdict.may_change());
            Ok((open.count() == 0).then_some(()))
        })
        .await;
        if let Err(error) = settled {
            println!("{error:#}");
        }
        let disks = self.disks.iter().flatten().count();
        let mut findings = Findings::of(count, played, disks);
        for number in 0..STAGE.devices {
            if let Err(error) = self.last(number).await {
                findings.add(&format!("{}: {error:#}", device(number)), Verdict::Stuck);
            }
        }
        for (name, verdict) in self.judge().await? {
            findings.add(&name, verdict);
        }
        Ok(findings)
    }

    /// Whatever was done to a device, it works when it is over.
    async fn last(&self, device_number: usize) -> anyhow::Result<()> {
        let name = format!("last-{device_number}");
        let input = json!({ "id": name, "holdMs": 0 });
        let spec = json!({
            "deviceRef": { "name": device(device_number) },
            "capability": CAPABILITY,
            "input": input,
            "whenOffline": "Queue",
            "queueSeconds": LAST.as_secs(),
        });
        self.create(&name, &spec).await?;
        until("a device works at last", 2 * LAST, async || {
            let status = status_of(&self.invocations.get(&name).await?);
            let is_over = status.phase.is_terminal();
            ensure!(
                !is_over || status.phase == InvocationPhase::Succeeded,
                "{name} is {}: {:?}",
                status.phase.as_str(),
                status.error
            );
            Ok(is_over.then_some(()))
        })
        .await
    }

    /// Compares all resources to the file.
    async fn judge(&self) -> anyhow::Result<Vec<(String, Verdict)>> {
        let all = self.invocations.list(&ListParams::default()).await?.items;
        let effects = effects::read(&self.log)?;
        let cases: Vec<Case> = all
            .into_iter()
            .map(|invocation| {
                let name = invocation.name_any();
                let id = invocation.spec.idempotency_key.as_ref().unwrap_or(&name);
                let effect = effects.get(id).copied().unwrap_or_default();
                Case {
                    effect,
                    own: None,
                    written: written(&invocation),
                    clocks: CLOCKS,
                    restarted: self.was_killed(&invocation),
                    calm: false,
                    invocation,
                }
            })
            .collect();
        Ok(verdict::judge_all(&cases))
    }

    /// Whether the agent was killed while the invocation was open.
    fn was_killed(&self, invocation: &CapabilityInvocation) -> bool {
        let device_name = &invocation.spec.device_ref.name;
        let place = (0..STAGE.devices).find(|number| device(*number) == *device_name);
        let kills = place.and_then(|place| self.kills.get(place));
        let created = invocation.metadata.creation_timestamp.as_ref();
        let (Some(kills), Some(created), Some(ended)) = (kills, created, written(invocation))
        else {
            return false;
        };
        kills
            .iter()
            .any(|kill| *kill >= created.0 && *kill <= ended + CLOCKS)
    }

    async fn schedule(&mut self, seed: u64) -> anyhow::Result<()> {
        let watch = Stopwatch::start();
        for (at, action) in schedule::draw(seed, STAGE) {
            tokio::time::sleep(at.saturating_sub(watch.elapsed())).await;
            let what = format!("{action:?}");
            self.act(seed, action).await.context(what)?;
        }
        Ok(())
    }

    async fn act(&mut self, seed: u64, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Invoke(invocation) => self.invoke(seed, &invocation).await?,
            Action::Cancel(number) => {
                let patch = json!({ "spec": { "cancel": "Requested" } });
                self.invocations
                    .patch(
                        &name(seed, number),
                        &PatchParams::default(),
                        &Patch::Merge(patch),
                    )
                    .await?;
            }
            Action::Kill(Victim::Agent(number)) => {
                self.agent(number)?.kill().await?;
                self.kills
                    .get_mut(number)
                    .context("no such agent")?
                    .push(now());
            }
            Action::Start(Victim::Agent(number)) => {
                self.agent(number)?.run()?;
            }
            Action::Kill(victim) => self.service(victim)?.kill().await?,
            Action::Start(victim) => self.service(victim)?.start_again().await?,
            Action::Freeze(victim) => self.signal(victim, Signal::STOP)?,
            Action::Thaw(victim) => self.signal(victim, Signal::CONT)?,
            Action::Cut(gateway) => self.proxy(gateway)?.cut(),
            Action::Stall(gateway) => self.proxy(gateway)?.weather(Weather::Stalled),
            Action::Clear(gateway) => self.proxy(gateway)?.weather(Weather::Fair),
            Action::HalfClose(way, gateway) => self.proxy(gateway)?.half_close(way),
            Action::Second(number) => self.second(number).await?,
            Action::FillDisk(number) => {
                if let Some(Some(disk)) = self.disks.get(number) {
                    disk.fill()?;
                }
            }
            Action::FreeDisk(number) => {
                if let Some(Some(disk)) = self.disks.get(number) {
                    disk.free()?;
                }
            }
            Action::RestartApiServer => {
                let mut control_plane = self.control_plane.take().context("no control plane")?;
                control_plane.kill_api_server().await?;
                control_plane.start_api_server().await?;
                self.control_plane = Some(control_plane);
            }
        }
        Ok(())
    }

    async fn invoke(&self, seed: u64, invocation: &Invocation) -> anyhow::Result<()> {
        let name = name(seed, invocation.number);
        let key = format!("seed-{seed}-key");
        let id = if invocation.keyed { &key } else { &name };
        let mut input = json!({ "id": id, "holdMs": invocation.hold_ms });
        if invocation.fails {
            input["fail"] = json!("told to");
        }
        let mut spec = json!({
            "deviceRef": { "name": device(invocation.device) },
            "capability": CAPABILITY,
            "input": input,
            "timeoutSeconds": invocation.timeout_seconds,
            "ttlSecondsAfterFinished": 86_400,
        });
        if let Some(seconds) = invocation.queue_seconds {
            spec["whenOffline"] = json!("Queue");
            spec["queueSeconds"] = json!(seconds);
        }
        if invocation.keyed {
            spec["idempotencyKey"] = json!(key);
        }
        self.create(&name, &spec).await
    }

    async fn create(&self, name: &str, spec: &serde_json::Value) -> anyhow::Result<()> {
        let object = serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1",
            "kind": "CapabilityInvocation",
            "metadata": { "name": name },
            "spec": spec,
        }))?;
        // The API server may have been killed a moment ago, with the first try in it.
        until("the invocation is made", SOON, async || {
            match self
                .invocations
                .create(&PostParams::default(), &object)
                .await
            {
                Ok(_) => Ok(Some(())),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(Some(())),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Two agents with one journal would each know half of it.
    async fn second(&mut self, number: usize) -> anyhow::Result<()> {
        let agent = self.agent(number)?;
        let runs = match agent.running() {
            Some(process) => process.ended()?.is_none(),
            None => false,
        };
        if !runs {
            return Ok(());
        }
        let mut second = agent.second()?;
        let status = tokio::time::timeout(SOON, second.wait())
            .await
            .context("a second agent on the same state goes on")??;
        ensure!(
            status.code() == Some(BUSY),
            "a second agent on the same state ended with {status}"
        );
        Ok(())
    }

    fn agent(&mut self, number: usize) -> anyhow::Result<&mut Agent> {
        self.agents.get_mut(number).context("no such agent")
    }

    fn proxy(&self, number: usize) -> anyhow::Result<&Proxy> {
        self.proxies.get(number).context("no such proxy")
    }

    fn service(&mut self, victim: Victim) -> anyhow::Result<&mut crate::stack::Service> {
        match victim {
            Victim::Operator => Ok(self.stack.operator()),
            Victim::Gateway(number) => Ok(self
                .stack
                .gateways()
                .get_mut(number)
                .context("no such gateway")?
                .service()),
            Victim::Agent(_) => bail!("an agent is no service"),
        }
    }

    fn signal(&mut self, victim: Victim, signal: Signal) -> anyhow::Result<()> {
        match victim {
            Victim::Agent(number) => self
                .agent(number)?
                .running()
                .context("the agent does not run")?
                .signal(signal),
            Victim::Operator | Victim::Gateway(_) => self.service(victim)?.process().signal(signal),
        }
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        let mut stopped = Ok(());
        for mut agent in self.agents {
            stopped = stopped.and(agent.stop().await);
        }
        stopped = stopped.and(self.stack.stop().await);
        drop(self.disks);
        match self.control_plane.take() {
            Some(control_plane) => stopped.and(control_plane.stop().await),
            None => stopped,
        }
    }
}

fn name(seed: u64, number: usize) -> String {
    format!("seed-{seed}-{number}")
}

fn device(number: usize) -> String {
    format!("device-{number}")
}

/// When the end was written, as who wrote it says.
fn written(invocation: &CapabilityInvocation) -> Option<Timestamp> {
    Some(invocation.status.as_ref()?.finished_at.as_ref()?.0)
}

#[expect(
    clippy::disallowed_methods,
    reason = "resources have moments of the same clock"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

fn status_of(invocation: &CapabilityInvocation) -> CapabilityInvocationStatus {
    invocation.status.clone().unwrap_or_default()
}

/// The agents' configuration: one capability, this crate's program.
fn declare(folder: &Path, program: &Path, log: &Path) -> anyhow::Result<PathBuf> {
    let capabilities = folder.join("capabilities.d");
    private::folder(&capabilities)?;
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .context("a path is not text")
    };
    let declared = format!(
        "[[capability]]\nname = \"{CAPABILITY}\"\ndescription = \"Writes to a log\"\ncommand = {:?}\nargs = [{:?}]\ntimeout_seconds = 60\nconcurrency = 4\n",
        text(program)?,
        text(log)?
    );
    private::write(&capabilities.join("effect.toml"), declared.as_bytes())?;
    let config = folder.join("agent.toml");
    let said = format!("capabilities_dir = {:?}\n", text(&capabilities)?);
    private::write(&config, said.as_bytes())?;
    Ok(config)
}
