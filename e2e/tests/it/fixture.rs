//! What the trials share: one control plane with everything installed, and a way to write a trial.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use e2e::cluster::Cluster;
use e2e::controlplane::{Binaries, ControlPlane};
use e2e::install::install;
use e2e::stack::{Agent, Programs, Stack};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use libtest_mimic::{Failed, Trial};
use tokio::runtime::Runtime;

const TRIAL_WITHIN: Duration = Duration::from_mins(2);

/// Made before it is booted, as the list of trials must be known before it is known whether any is to run.
pub struct Fixture {
    runtime: Runtime,
    folder: PathBuf,
    cluster: OnceLock<Cluster>,
    programs: OnceLock<Programs>,
    control_plane: Mutex<Option<ControlPlane>>,
    /// Started by the first trial that needs it.
    stack: tokio::sync::Mutex<Option<Stack>>,
    namespaces: AtomicU32,
}

/// What a trial gets.
pub struct Scene {
    /// Cluster administrator.
    pub client: Client,
    /// This trial's own namespace.
    pub namespace: String,
    /// This trial's own folder, for states and logs.
    pub folder: PathBuf,
    pub fixture: Arc<Fixture>,
}

impl Scene {
    /// Addresses of the gateways of the run's one stack, an operator and two gateways.
    pub async fn gateways(&self) -> anyhow::Result<Vec<String>> {
        let mut stack = self.stack().await?;
        let gateways = stack.as_mut().map(Stack::gateways).unwrap_or_default();
        Ok(gateways
            .iter()
            .map(|gateway| gateway.address().to_owned())
            .collect())
    }

    /// The run's one stack, started by whoever needs it first. Held only while it is looked at or tampered with.
    pub async fn stack(&self) -> anyhow::Result<tokio::sync::MutexGuard<'_, Option<Stack>>> {
        let mut stack = self.fixture.stack.lock().await;
        if stack.is_none() {
            let folder = self.fixture.folder.join("stack");
            let programs = self.fixture.programs();
            *stack = Some(Stack::start(self.fixture.cluster(), programs, &folder, 2).await?);
        }
        Ok(stack)
    }

    /// A device of this trial, not paired.
    pub async fn agent(&self, name: &str) -> anyhow::Result<Agent> {
        let stack = self.stack().await?;
        let stack = stack.as_ref().context("there is no stack")?;
        Agent::new(stack.programs(), &self.folder, name)
    }
}

impl Fixture {
    pub fn new() -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            runtime: Runtime::new().context("start the runtime")?,
            folder: Path::new(env!("CARGO_TARGET_TMPDIR"))
                .join(format!("it-{}", std::process::id())),
            cluster: OnceLock::new(),
            programs: OnceLock::new(),
            control_plane: Mutex::new(None),
            stack: tokio::sync::Mutex::new(None),
            namespaces: AtomicU32::new(0),
        }))
    }

    /// The run's folder. It is removed after a run in which nothing failed.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn boot(&self) -> anyhow::Result<()> {
        // Both may take minutes on a fresh machine, and no trial's time is for that.
        let binaries = Binaries::find()?;
        let _ = self.programs.set(Programs::build()?);
        self.runtime.block_on(async {
            let control_plane =
                ControlPlane::start(&binaries, &self.folder.join("controlplane")).await?;
            install(&control_plane.client()).await?;
            let _ = self.cluster.set(control_plane.cluster().clone());
            *self.lock() = Some(control_plane);
            Ok(())
        })
    }

    /// Stops the control plane. What it and the trials wrote stays for reading when a trial failed.
    pub fn tear_down(&self, failed: bool) -> anyhow::Result<()> {
        let Some(control_plane) = self.lock().take() else {
            return Ok(());
        };
        let stopped = self.runtime.block_on(async {
            let stack = match self.stack.lock().await.take() {
                Some(stack) => stack.stop().await,
                None => Ok(()),
            };
            stack.and(control_plane.stop().await)
        });
        if failed {
            eprintln!("Logs and states are in {}", self.folder.display());
        } else {
            std::fs::remove_dir_all(&self.folder).context("remove the run's folder")?;
        }
        stopped
    }

    fn lock(&self) -> MutexGuard<'_, Option<ControlPlane>> {
        self.control_plane
            .lock()
            .expect("nobody panics while holding it")
    }

    pub fn cluster(&self) -> &Cluster {
        self.cluster.get().expect("booted before any trial runs")
    }

    pub fn programs(&self) -> &Programs {
        self.programs.get().expect("built before any trial runs")
    }

    /// Kills the API server without a warning and starts it again on the same port.
    pub async fn restart_api_server(&self) -> anyhow::Result<()> {
        // Not held over an await.
        let mut control_plane = self.lock().take().context("no control plane is booted")?;
        let restarted = async {
            // Not SIGTERM: it would wait for its watches, a minute or more.
            control_plane.kill_api_server().await?;
            control_plane.start_api_server().await
        }
        .await;
        *self.lock() = Some(control_plane);
        restarted
    }

    /// The kubeconfig of an ordinary user, known by a client certificate.
    pub fn user_kubeconfig(&self, user: &str, groups: &[&str], path: &Path) -> anyhow::Result<()> {
        self.lock()
            .as_ref()
            .context("no control plane is booted")?
            .user_kubeconfig(user, groups, path)
    }

    /// A client of an ordinary user.
    pub async fn user(&self, scene: &Scene, user: &str, groups: &[&str]) -> anyhow::Result<Client> {
        let path = scene.folder.join(format!("{user}.kubeconfig"));
        self.user_kubeconfig(user, groups, &path)?;
        Ok(Cluster::connect(&path, self.cluster().kubectl())
            .await?
            .client())
    }

    /// A trial with a namespace and a folder of its own, cut off after two minutes.
    pub fn trial<Body, Running>(self: &Arc<Self>, name: &str, body: Body) -> Trial
    where
        Body: FnOnce(Scene) -> Running + Send + 'static,
        Running: Future<Output = anyhow::Result<()>> + Send,
    {
        self.trial_within(TRIAL_WITHIN, name, body)
    }

    /// The same, cut off after another time.
    pub fn trial_within<Body, Running>(
        self: &Arc<Self>,
        within: Duration,
        name: &str,
        body: Body,
    ) -> Trial
    where
        Body: FnOnce(Scene) -> Running + Send + 'static,
        Running: Future<Output = anyhow::Result<()>> + Send,
    {
        let fixture = Arc::clone(self);
        Trial::test(name, move || {
            let run = async {
                let scene = Self::scene(&fixture).await?;
                let folder = scene.folder.clone();
                tokio::time::timeout(within, body(scene))
                    .await
                    .unwrap_or_else(|_| {
                        Err(anyhow::anyhow!("not done after {} s", within.as_secs()))
                    })
                    .with_context(|| format!("its folder is {}", folder.display()))
            };
            fixture
                .runtime
                .block_on(run)
                .map_err(|error: anyhow::Error| Failed::from(format!("{error:?}")))
        })
    }

    async fn scene(fixture: &Arc<Self>) -> anyhow::Result<Scene> {
        let namespace = format!(
            "trial-{}",
            fixture.namespaces.fetch_add(1, Ordering::Relaxed)
        );
        let client = fixture.cluster().client();
        let object = Namespace {
            metadata: ObjectMeta {
                name: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &object)
            .await
            .context("make a namespace")?;
        let folder = fixture.folder.join(&namespace);
        e2e::private::folder(&folder)?;
        Ok(Scene {
            client,
            namespace,
            folder,
            fixture: Arc::clone(fixture),
        })
    }
}
