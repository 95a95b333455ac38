//! Devices that can be asked: real agents, or ones that this process plays.

use std::time::Duration;

use anyhow::Context as _;
use crds::Device;
use kube::Api;
use kube::api::ListParams;
use tokio::task::JoinSet;

use super::crowd::{self, Crowd};
use crate::approval::FrontDesk;
use crate::cluster::Cluster;
use crate::stack::{Agent, Stack};
use crate::wait::until;

const REAL_NAMESPACE: &str = "fleet";
const SOON: Duration = Duration::from_mins(2);

/// Devices named `device-0`, `device-1`, ..., all of them connected, spread over the gateways.
pub struct Fleet {
    namespace: &'static str,
    names: Vec<String>,
    behind: Behind,
}

enum Behind {
    Agents(Vec<Agent>),
    /// What ended one of them.
    Played(JoinSet<anyhow::Error>),
}

impl Fleet {
    /// Pairs and runs so many agents.
    pub async fn real(cluster: &Cluster, stack: &Stack, count: usize) -> anyhow::Result<Self> {
        let desk = FrontDesk::open(cluster.client(), REAL_NAMESPACE, count).await?;
        let mut agents = Vec::with_capacity(count);
        for name in names(count) {
            let mut agent = stack.agent(&name)?;
            desk.pair(&agent).await?;
            agent.run()?;
            agents.push(agent);
        }
        Self {
            namespace: REAL_NAMESPACE,
            names: names(count),
            behind: Behind::Agents(agents),
        }
        .connected(cluster)
        .await
    }

    /// Connects so many devices that answer at once, from this process: what they cost a real device is not in it.
    pub async fn played(
        cluster: &Cluster,
        stack: &mut Stack,
        count: usize,
    ) -> anyhow::Result<Self> {
        let mut crowd = Crowd::gather(cluster, stack, count).await?;
        crowd.spread(stack, count).await?;
        Self {
            namespace: crowd::NAMESPACE,
            names: names(count),
            behind: Behind::Played(crowd.play()),
        }
        .connected(cluster)
        .await
    }

    async fn connected(self, cluster: &Cluster) -> anyhow::Result<Self> {
        let devices: Api<Device> = Api::namespaced(cluster.client(), self.namespace);
        until("all devices are connected", SOON, async || {
            let all = devices.list(&ListParams::default()).await?;
            let here = all
                .iter()
                .filter(|device| {
                    let status = device.status.as_ref();
                    status.is_some_and(|status| status.session.is_some())
                })
                .count();
            Ok((here == self.names.len()).then_some(()))
        })
        .await?;
        Ok(self)
    }

    /// Where their Devices are.
    pub fn namespace(&self) -> &'static str {
        self.namespace
    }

    /// Names of their Devices.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How a figure calls them.
    pub fn kind(&self) -> &'static str {
        match self.behind {
            Behind::Agents(_) => "real",
            Behind::Played(_) => "played",
        }
    }

    /// Waits until one of those played can go on no longer, and says why. Agents come back by themselves.
    pub async fn failed(&mut self) -> anyhow::Error {
        match &mut self.behind {
            Behind::Agents(_) => std::future::pending().await,
            Behind::Played(tasks) => match tasks.join_next().await {
                Some(Ok(error)) => error.context("a played device has ended"),
                Some(Err(error)) => anyhow::Error::new(error).context("a played device has ended"),
                None => std::future::pending().await,
            },
        }
    }

    /// Ends them.
    pub async fn stop(self) -> anyhow::Result<()> {
        match self.behind {
            Behind::Agents(mut agents) => {
                for agent in &mut agents {
                    agent.stop().await.context("stop an agent")?;
                }
            }
            Behind::Played(mut tasks) => tasks.shutdown().await,
        }
        Ok(())
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("device-{number}"))
        .collect()
}
