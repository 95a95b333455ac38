//! How soon after an outage a device does what was asked for meanwhile.
//!
//! The device is a real agent. What it is asked for leaves a file behind, so that its start is seen here, by one clock.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::CapabilityInvocation;
use crds::v1alpha1::capability_invocation::InvocationPhase;
use futures::future::try_join_all;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::percentile;
use crate::approval::FrontDesk;
use crate::capabilities::declare;
use crate::cluster::Cluster;
use crate::controlplane::ControlPlane;
use crate::stack::{Agent, Stack};
use crate::wait::Stopwatch;

const NAMESPACE: &str = "outage";
const DEVICE: &str = "waiting";
const CAPABILITY: &str = "trial.mark";
/// Made in each outage.
const QUEUED: usize = 3;
const SOON: Duration = Duration::from_mins(3);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Rounds of both outages, each with what is gone away for so many seconds.
pub async fn measure(
    control_plane: &mut ControlPlane,
    stack: &mut Stack,
    rounds: usize,
    seconds: u64,
) -> anyhow::Result<()> {
    let away = Duration::from_secs(seconds);
    let mut trial = Trial::start(control_plane.cluster(), stack).await?;
    let (mut gateways, mut api_server) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        gateways.push(trial.without_gateways(stack, round, away).await?);
        let name = format!("api-server-{round}");
        api_server.push(trial.without_api_server(control_plane, &name, away).await?);
    }
    trial.agent.stop().await?;
    println!(
        "outage: device=real, rounds={rounds}, away_s={seconds}, milliseconds as median/longest: gateway listens to start {}, to end {}; API server ready to made {}, to start {}, to end {}",
        words(&gateways, |took| took.start),
        words(&gateways, |took| took.end),
        words(&api_server, |took| took.made),
        words(&api_server, |took| took.start),
        words(&api_server, |took| took.end),
    );
    Ok(())
}

/// Milliseconds from the end of the outage.
struct Took {
    /// 0 where that was earlier.
    made: f64,
    start: f64,
    end: f64,
}

struct Trial {
    agent: Agent,
    invocations: Api<CapabilityInvocation>,
    /// There once something was started.
    mark: PathBuf,
}

impl Trial {
    async fn start(cluster: &Cluster, stack: &Stack) -> anyhow::Result<Self> {
        let mark = stack.folder().join("mark");
        let declared = format!(
            "[[capability]]\nname = \"{CAPABILITY}\"\ncommand = \"/usr/bin/touch\"\nargs = [\"--\", \"{}\"]\n",
            mark.display()
        );
        let config = declare(&stack.folder().join("waiting-config"), &declared)?;
        let mut agent = stack.agent(DEVICE)?.with_config(&config);
        FrontDesk::open(cluster.client(), NAMESPACE, 1)
            .await?
            .pair(&agent)
            .await?;
        agent.run()?;
        Ok(Self {
            agent,
            invocations: Api::namespaced(cluster.client(), NAMESPACE),
            mark,
        })
    }

    /// They are made while no gateway runs.
    async fn without_gateways(
        &mut self,
        stack: &mut Stack,
        round: usize,
        away: Duration,
    ) -> anyhow::Result<Took> {
        let name = format!("gateways-{round}");
        self.settle(&name).await?;
        for gateway in stack.gateways() {
            gateway.service().kill().await?;
        }
        let made = self.queue(&name).await?;
        tokio::time::sleep(away).await;
        ensure!(!self.mark.exists(), "something ran without a gateway");
        let addresses: Vec<SocketAddr> = stack
            .gateways()
            .iter()
            .map(|gateway| gateway.address().parse())
            .collect::<Result<_, _>>()?;
        let gateways = stack.gateways().iter_mut();
        let restarted = try_join_all(gateways.map(|gateway| gateway.service().start_again()));
        let listens = look("a gateway listens", async || {
            for address in &addresses {
                if tokio::net::TcpStream::connect(address).await.is_ok() {
                    return true;
                }
            }
            false
        });
        let all = async { tokio::try_join!(restarted, listens, self.started(), self.ended(&name)) };
        let (_, over, start, end) = all.await?;
        Ok(Took::since(over, made, start, end))
    }

    /// A client tries to make them as long as there is no API server, and on.
    async fn without_api_server(
        &mut self,
        control_plane: &mut ControlPlane,
        name: &str,
        away: Duration,
    ) -> anyhow::Result<Took> {
        self.settle(name).await?;
        control_plane.kill_api_server().await?;
        tokio::time::sleep(away).await;
        let client = control_plane.client();
        let ready = look("the API server is ready", async || {
            let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else {
                return false;
            };
            client.request_text(request).await.is_ok()
        });
        let all = async {
            tokio::try_join!(
                control_plane.start_api_server(),
                ready,
                self.queue(name),
                self.started(),
                self.ended(name)
            )
        };
        let ((), over, made, start, end) = all.await?;
        Ok(Took::since(over, made, start, end))
    }

    /// Waits until the device is there and does what it is asked for at once, and takes the mark of that away.
    async fn settle(&self, name: &str) -> anyhow::Result<()> {
        let name = format!("{name}-before");
        self.make(&name).await?;
        self.ended(&name).await?;
        // What was queued earlier has run by then, as a device is sent its invocations in order.
        match std::fs::remove_file(&self.mark) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("take the mark away")
            }
            _ => Ok(()),
        }
    }

    /// The first one has the name itself; gives when that was made.
    async fn queue(&self, name: &str) -> anyhow::Result<Stopwatch> {
        let made = self.make(name).await?;
        for number in 1..QUEUED {
            self.make(&format!("{name}-{number}")).await?;
        }
        Ok(made)
    }

    async fn make(&self, name: &str) -> anyhow::Result<Stopwatch> {
        let object = serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1",
            "kind": "CapabilityInvocation",
            "metadata": { "name": name },
            "spec": {
                "deviceRef": { "name": DEVICE },
                "capability": CAPABILITY,
                "whenOffline": "Queue",
                "queueSeconds": 600,
            },
        }))?;
        look("an invocation is made", async || {
            match self
                .invocations
                .create(&PostParams::default(), &object)
                .await
            {
                Ok(_) => true,
                // The answer to an earlier try was lost.
                Err(kube::Error::Api(status)) => status.code == 409,
                Err(_) => false,
            }
        })
        .await
    }

    async fn started(&self) -> anyhow::Result<Stopwatch> {
        let mark: &Path = &self.mark;
        look("the device has started it", async || mark.exists()).await
    }

    async fn ended(&self, name: &str) -> anyhow::Result<Stopwatch> {
        let phase = async || {
            let status = self.invocations.get(name).await?.status;
            Ok::<_, kube::Error>(status.unwrap_or_default().phase)
        };
        let at = look("an invocation has ended", async || {
            phase().await.is_ok_and(InvocationPhase::is_terminal)
        })
        .await?;
        let phase = phase().await?;
        ensure!(
            phase == InvocationPhase::Succeeded,
            "{name} ended as {}",
            phase.as_str()
        );
        Ok(at)
    }
}

impl Took {
    fn since(over: Stopwatch, made: Stopwatch, start: Stopwatch, end: Stopwatch) -> Self {
        Self {
            made: over.until(&made),
            start: over.until(&start),
            end: over.until(&end),
        }
    }
}

/// Looks often, as what is awaited is measured. Gives the moment when it was there.
async fn look(what: &str, there: impl AsyncFn() -> bool) -> anyhow::Result<Stopwatch> {
    let looking = async {
        while !there().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Stopwatch::start()
    };
    tokio::time::timeout(SOON, looking)
        .await
        .with_context(|| format!("{what}: not within {} s", SOON.as_secs()))
}

fn words(all: &[Took], which: impl Fn(&Took) -> f64) -> String {
    let mut took: Vec<f64> = all.iter().map(which).collect();
    took.sort_by(f64::total_cmp);
    format!("{:.0}/{:.0}", percentile(&took, 50), percentile(&took, 100))
}
