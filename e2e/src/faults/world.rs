//! The programs, the devices and the networks between them: how a schedule is played on them, and what is found at the end.
#![expect(clippy::print_stdout, reason = "what is printed is the finding")]

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use crds::v1alpha1::CapabilityInvocationStatus;
use crds::v1alpha1::capability_invocation::{ErrorCode, InvocationPhase};
use crds::{CapabilityInvocation, Device};
use jiff::{SignedDuration, Timestamp};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use rustix::process::Signal;
use serde_json::json;

use super::disk::Disk;
use super::findings::Findings;
use super::proxy::{Proxy, Weather};
use super::schedule::{Action, Invocation, Stage, Victim};
use super::verdict::{Case, Verdict};
use crate::approval::FrontDesk;
use crate::capabilities;
use crate::controlplane::ControlPlane;
use crate::private;
use crate::stack::{Agent, Place, Programs, Stack};
use crate::wait::{Stopwatch, now, until};

const NAMESPACE: &str = "faults";
const CAPABILITY: &str = "trial.effect";
const STAGE: Stage = Stage {
    gateways: 2,
    devices: 2,
};
const SOON: Duration = Duration::from_mins(1);
/// After the last schedule: the longest wait and timeout that is drawn, and what the operator takes to say Unknown.
const SETTLED_WITHIN: Duration = Duration::from_mins(1);
/// How often it is seen meanwhile whether all agents still live.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// For one invocation after everything was over, when nothing goes wrong any more.
const LAST: Duration = Duration::from_secs(30);
const LAST_TRIES: usize = 5;
/// All programs have one clock here; what they write of it has whole seconds.
const CLOCKS: SignedDuration = SignedDuration::from_secs(1);
/// How an agent ends whose state folder is another one's.
const BUSY: i32 = 9;
/// Read by debug builds of the agent: the capability is begun before the journal knows.
const BREAK: &str = "FAIRLEAD_TEST_EFFECT_BEFORE_JOURNAL";
/// Read by them, too: one moment between the journal's write and an effect in so many is the agent's last.
const DEATHS: (&str, &str) = ("FAIRLEAD_TEST_DEATHS", "150");

/// Everything that runs, and what is known of what was done to it.
pub struct World {
    control_plane: Option<ControlPlane>,
    stack: Stack,
    agents: Vec<Agent>,
    /// Under the agents' states; absent where none can be had.
    disks: Vec<Option<Disk>>,
    proxies: Vec<Proxy>,
    log: PathBuf,
    invocations: Api<CapabilityInvocation>,
    /// When each agent was killed, or found dead.
    kills: Vec<Vec<Timestamp>>,
    /// Killed, and to be started again by its schedule.
    are_down: Vec<bool>,
    /// Which agents came to their state folder when a second one was there already.
    are_overtaken: Vec<bool>,
    /// Deaths between the journal and an effect.
    deaths: usize,
}

impl World {
    pub async fn start(
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
            let mut agent = stack
                .agent(&device(number))?
                .with_config(&config)
                .with_env(DEATHS.0, DEATHS.1);
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
            are_down: vec![false; STAGE.devices],
            are_overtaken: vec![false; STAGE.devices],
            deaths: 0,
        })
    }

    pub async fn play(&mut self, first: u64, count: u64) -> anyhow::Result<Findings> {
        let watch = Stopwatch::start();
        for seed in first..first.saturating_add(count) {
            self.schedule(seed)
                .await
                .with_context(|| format!("seed {seed}"))?;
        }
        let played = watch.elapsed();
        if let Err(error) = self.settle().await {
            println!("{error:#}");
        }
        let disks = self.disks.iter().flatten().count();
        let mut findings = Findings::of(count, played, disks, self.deaths);
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

    /// Waits until everything has ended and is told. Agents go on dying, and are started again.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let watch = Stopwatch::start();
        loop {
            self.revive()?;
            let left = SETTLED_WITHIN.saturating_sub(watch.elapsed());
            let settled = until(
                "everything ends and is told",
                left.min(LOOK_AFTER),
                async || {
                    let open = self.judge().await?;
                    let open = open.iter().filter(|(_, verdict)| verdict.may_change());
                    Ok((open.count() == 0).then_some(()))
                },
            )
            .await;
            if settled.is_ok() || left.is_zero() {
                return settled;
            }
        }
    }

    /// Starts the agents again that have died by themselves.
    fn revive(&mut self) -> anyhow::Result<()> {
        for number in 0..STAGE.devices {
            if self.are_down.get(number).copied().unwrap_or_default() {
                continue;
            }
            let agent = self.agent(number)?;
            let status = match agent.running() {
                Some(process) => process.ended()?,
                None => None,
            };
            let Some(status) = status else {
                continue;
            };
            let overtaken = self
                .are_overtaken
                .get_mut(number)
                .is_some_and(std::mem::take);
            ensure!(
                status.signal() == Some(Signal::ABORT.as_raw())
                    || overtaken && status.code() == Some(BUSY),
                "{} ended with {status}, and nobody asked it to",
                device(number)
            );
            self.agent(number)?.run()?;
            self.deaths += 1;
            self.kills
                .get_mut(number)
                .context("no such agent")?
                .push(now());
        }
        Ok(())
    }

    /// Whatever was done to a device, it works when it is over. Sudden deaths go on, so it has more than one try.
    async fn last(&mut self, number: usize) -> anyhow::Result<()> {
        for attempt in 0..LAST_TRIES {
            let name = format!("last-{number}-{attempt}");
            let spec = json!({
                "deviceRef": { "name": device(number) },
                "capability": CAPABILITY,
                "input": { "id": name, "holdMs": 0 },
                "whenOffline": "Queue",
                "queueSeconds": LAST.as_secs(),
            });
            self.create(&name, &spec).await?;
            let watch = Stopwatch::start();
            let status = loop {
                self.revive()?;
                ensure!(watch.elapsed() < 4 * LAST, "{name} does not end");
                let ended = until("the last invocation ends", LOOK_AFTER, async || {
                    let status = status_of(&self.invocations.get(&name).await?);
                    Ok(status.phase.is_terminal().then_some(status))
                });
                if let Ok(status) = ended.await {
                    break status;
                }
            };
            let code = status.error.as_ref().map(|error| error.code);
            match (status.phase, code) {
                (InvocationPhase::Succeeded, _) => return Ok(()),
                (InvocationPhase::Unknown, Some(ErrorCode::AgentRestarted)) => {}
                _ => bail!("{name} is {}: {:?}", status.phase.as_str(), status.error),
            }
        }
        bail!("it died at each of {LAST_TRIES} tries")
    }

    /// Compares all resources to the file.
    async fn judge(&self) -> anyhow::Result<Vec<(String, Verdict)>> {
        let all = self.invocations.list(&ListParams::default()).await?.items;
        let effects = super::effects::read(&self.log)?;
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
        Ok(super::verdict::judge_all(&cases))
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
        for (at, action) in super::schedule::draw(seed, STAGE) {
            tokio::time::sleep(at.saturating_sub(watch.elapsed())).await;
            self.revive()?;
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
                *self.are_down.get_mut(number).context("no such agent")? = true;
                self.kills
                    .get_mut(number)
                    .context("no such agent")?
                    .push(now());
            }
            Action::Start(Victim::Agent(number)) => {
                *self.are_down.get_mut(number).context("no such agent")? = false;
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
        let watch = Stopwatch::start();
        loop {
            let status = tokio::time::timeout(LOOK_AFTER, second.wait()).await;
            if let Ok(status) = status {
                let status = status?;
                ensure!(
                    status.code() == Some(BUSY),
                    "a second agent on the same state ended with {status}"
                );
                return Ok(());
            }
            // Where the first has died, the second takes its place, as it may.
            let first = agent.running().context("no agent")?;
            if first.ended()?.is_some() {
                // Or came later: it was started a moment before.
                *self
                    .are_overtaken
                    .get_mut(number)
                    .context("no such agent")? = true;
                return second.kill().await;
            }
            ensure!(
                watch.elapsed() < SOON,
                "a second agent on the same state goes on"
            );
        }
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

    pub async fn stop(mut self) -> anyhow::Result<()> {
        let mut stopped = self.revive();
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

fn status_of(invocation: &CapabilityInvocation) -> CapabilityInvocationStatus {
    invocation.status.clone().unwrap_or_default()
}

/// The agents' configuration: one capability, this crate's program.
fn declare(folder: &Path, program: &Path, log: &Path) -> anyhow::Result<PathBuf> {
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
    capabilities::declare(folder, &declared)
}
