//! The programs as a user runs them: an operator or several, some gateways, and agents, each a process of its own.
//!
//! Operators and gateways have the rights of their service accounts and no others; gateways read their Secrets from
//! mounted folders. Agents know nothing of the API server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::future::try_join_all;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::install::SYSTEM_NAMESPACE;
use crate::process::{Process, Program};
use crate::secret_mount::SecretMount;
use crate::wait::until;
use crate::{admin, ports, private};

/// The trust domain of devices' identities.
pub const TRUST_DOMAIN: &str = "fairlead.local";

const OPERATOR_ACCOUNT: &str = "fairlead-operator";
const GATEWAY_ACCOUNT: &str = "fairlead-gateway";
/// Of the client.
const EXAMPLES: [&str; 4] = ["inventory", "pair", "invoke", "watch"];
const READY_WITHIN: Duration = Duration::from_mins(1);
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Has Cargo build them, with the profile that the running program was built with.
    ///
    /// # Errors
    /// When they cannot be built.
    pub fn build() -> anyhow::Result<Self> {
        let mut build = cargo_build();
        build.args([
            // With this crate among them, the features are those that it was built with.
            "--package=e2e",
            "--package=operator",
            "--package=gateway",
            "--package=node-agent",
            // Of this crate, only what runs beside them.
            "--bin=fairlead-operator",
            "--bin=fairlead-gateway",
            "--bin=fairlead-agent",
            "--bin=effect",
        ]);
        eprintln!("Building operator, gateway and agent");
        let status = build.status().context("run cargo build")?;
        ensure!(status.success(), "cargo build failed ({status})");
        let this = std::env::current_exe().context("find this program")?;
        let folder = this.parent().context("find this program's folder")?;
        // Test programs are one folder deeper than what they test.
        let folder = if folder.ends_with("deps") {
            folder.parent().unwrap_or(folder)
        } else {
            folder
        };
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Has Cargo build `kubectl-fairlead` and the examples of the client, too, as [`Programs::build`] does.
    ///
    /// # Errors
    /// When they cannot be built.
    pub fn build_clients() -> anyhow::Result<()> {
        let mut build = cargo_build();
        // Of the whole workspace, whose tests have built the examples already: nothing is built twice.
        build.args(["--workspace", "--bin=kubectl-fairlead"]);
        build.args(EXAMPLES.map(|name| format!("--example={name}")));
        eprintln!("Building kubectl-fairlead and the examples of the client");
        let status = build.status().context("run cargo build")?;
        ensure!(status.success(), "cargo build failed ({status})");
        Ok(())
    }

    /// Path of a program.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Path of an example.
    pub fn example(&self, name: &str) -> PathBuf {
        self.folder.join("examples").join(name)
    }
}

/// With the profile that the running program was built with.
fn cargo_build() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .args(["build", "--locked", "--quiet"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::null());
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    build
}

/// Operators, of which one leads, and the gateways.
pub struct Stack {
    cluster: Cluster,
    folder: PathBuf,
    programs: Programs,
    operators: Vec<Service>,
    gateways: Vec<Gateway>,
    _mounts: Vec<SecretMount>,
}

/// A program with an admin port that can be stopped and started again.
pub struct Service {
    program: Program,
    process: Process,
    admin: String,
}

/// Where a gateway is.
#[derive(Clone, Debug)]
pub struct Place {
    /// `HOST:PORT` where it listens.
    pub listen: String,
    /// `HOST:PORT` where devices find it: the same, unless something stands in between.
    pub advertise: String,
}

impl Place {
    /// A free port, where devices find it, too.
    ///
    /// # Errors
    /// When there is none.
    pub fn on_loopback() -> anyhow::Result<Self> {
        let listen = loopback()?;
        let advertise = listen.clone();
        Ok(Self { listen, advertise })
    }
}

/// A gateway.
pub struct Gateway {
    name: String,
    address: String,
    console: String,
    service: Service,
}

impl Stack {
    /// Starts an operator and `gateways` gateways, with states and logs in `folder`. What [`crate::install`] installs
    /// must be there. Returns when all are ready.
    ///
    /// # Errors
    /// When one ends or does not become ready, with the end of its log.
    pub async fn start(
        cluster: &Cluster,
        programs: &Programs,
        folder: &Path,
        gateways: usize,
    ) -> anyhow::Result<Self> {
        let places = (0..gateways)
            .map(|_| Place::on_loopback())
            .collect::<anyhow::Result<Vec<_>>>()?;
        Self::start_at(cluster, programs, folder, &places).await
    }

    /// The same, with a gateway at each of the places.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub async fn start_at(
        cluster: &Cluster,
        programs: &Programs,
        folder: &Path,
        places: &[Place],
    ) -> anyhow::Result<Self> {
        Self::start_with(cluster, programs, folder, 1, places).await
    }

    /// The same, with as many operators, which all start at once.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub async fn start_with(
        cluster: &Cluster,
        programs: &Programs,
        folder: &Path,
        operators: usize,
        places: &[Place],
    ) -> anyhow::Result<Self> {
        Self::start_with_flags(cluster, programs, folder, operators, places, &[]).await
    }

    /// The same, with further flags for the gateways.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub async fn start_with_flags(
        cluster: &Cluster,
        programs: &Programs,
        folder: &Path,
        operators: usize,
        places: &[Place],
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        private::folder(folder)?;
        let first = &places.first().context("a stack needs a gateway")?.advertise;
        let operators = start_operators(cluster, programs, folder, operators, first).await?;
        let tail = || operators.first().map(|operator| operator.process.tail());

        let mount = |name: &str| {
            SecretMount::start(cluster.client(), SYSTEM_NAMESPACE, name, &folder.join(name))
        };
        let mut tls = mount(crds::names::GATEWAY_TLS_SECRET)?;
        let mut setup = mount(crds::names::PAIRING_SETUP_SECRET)?;
        // Not waited for: a gateway serves all but logins without it.
        let keys = mount(crds::names::CONSOLE_KEYS_SECRET)?;
        for mount in [&mut tls, &mut setup] {
            mount
                .mounted(READY_WITHIN)
                .await
                .with_context(|| tail().unwrap_or_default())?;
        }

        let kubeconfig = folder.join("gateway.kubeconfig");
        cluster
            .service_account_kubeconfig(SYSTEM_NAMESPACE, GATEWAY_ACCOUNT, &kubeconfig)
            .await?;
        let store = store_in(folder);
        private::folder(&store)?;
        let console_tls = console_certificate(folder)?;
        let mut started = Vec::new();
        for (number, place) in places.iter().enumerate() {
            let name = format!("gateway-{number}");
            let console = loopback()?;
            let service = Service::start(loopback()?, |admin| {
                Program::new(
                    &name,
                    programs.path("fairlead-gateway"),
                    folder.join(format!("{name}.log")),
                )
                .env("KUBECONFIG", &kubeconfig)
                // docs/artefacts.md says why.
                .env("MALLOC_MMAP_THRESHOLD_", "1048576")
                .args([
                    "--namespace",
                    SYSTEM_NAMESPACE,
                    "--trust-domain",
                    TRUST_DOMAIN,
                    "--name",
                    &name,
                ])
                .args([
                    "--device-address",
                    &place.listen,
                    "--advertise",
                    &place.advertise,
                    "--admin-address",
                    admin,
                ])
                .arg("--tls-dir")
                .arg(tls.folder())
                .arg("--pairing-setup-dir")
                .arg(setup.folder())
                .arg("--artefact-store")
                .arg(format!("file://{}", store.display()))
                .args([
                    "--console-address",
                    &console,
                    "--console-advertise",
                    &console,
                ])
                .arg("--console-keys-dir")
                .arg(keys.folder())
                .arg("--console-tls-dir")
                .arg(&console_tls)
                .args(flags.iter().copied())
            })
            .await?;
            started.push(Gateway {
                name,
                address: place.advertise.clone(),
                console,
                service,
            });
        }
        Ok(Self {
            cluster: cluster.clone(),
            folder: folder.to_owned(),
            programs: programs.clone(),
            operators,
            gateways: started,
            _mounts: vec![tls, setup, keys],
        })
    }

    /// The certificate of the consoles, PEM: whoever asks them must trust it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn console_ca(&self) -> anyhow::Result<Vec<u8>> {
        std::fs::read(console_folder(&self.folder).join("tls.crt"))
            .context("read the consoles' certificate")
    }

    /// The cluster that it runs against.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Where its programs are.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The operator; of several, the first.
    pub fn operator(&mut self) -> &mut Service {
        &mut self.operators[0]
    }

    /// All operators.
    pub fn operators(&mut self) -> &mut [Service] {
        &mut self.operators
    }

    /// The gateways, in the order of their start: `gateway-0`, `gateway-1`, ...
    pub fn gateways(&mut self) -> &mut [Gateway] {
        &mut self.gateways
    }

    /// A gateway by name.
    pub fn gateway(&mut self, name: &str) -> anyhow::Result<&mut Gateway> {
        self.gateways
            .iter_mut()
            .find(|gateway| gateway.name == name)
            .with_context(|| format!("there is no gateway {name}"))
    }

    /// A device, not paired, with a state folder of its own.
    pub fn agent(&self, name: &str) -> anyhow::Result<Agent> {
        Agent::new(&self.programs, &self.folder, name)
    }

    /// The folder that the gateways share for large outputs.
    pub fn store(&self) -> PathBuf {
        store_in(&self.folder)
    }

    /// Where states and logs are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Stops gateways, then operators, all by SIGTERM.
    ///
    /// # Errors
    /// The first that did not stop in time or failed; all are gone in any case.
    pub async fn stop(self) -> anyhow::Result<()> {
        let mut stopped = Ok(());
        for gateway in self.gateways {
            stopped = stopped.and(gateway.service.stop().await);
        }
        for operator in self.operators {
            stopped = stopped.and(operator.stop().await);
        }
        stopped
    }
}

/// Each draws a name of its own, also when it is started again: whether it may lead is not to hang on who it was.
async fn start_operators(
    cluster: &Cluster,
    programs: &Programs,
    folder: &Path,
    number: usize,
    gateway: &str,
) -> anyhow::Result<Vec<Service>> {
    ensure!(number > 0, "a stack needs an operator");
    let kubeconfig = folder.join("operator.kubeconfig");
    cluster
        .service_account_kubeconfig(SYSTEM_NAMESPACE, OPERATOR_ACCOUNT, &kubeconfig)
        .await?;
    let kubeconfig = &kubeconfig;
    let start = |number: usize| async move {
        let log = match number {
            0 => "operator.log".to_owned(),
            _ => format!("operator-{number}.log"),
        };
        Service::start(loopback()?, |admin| {
            Program::new(
                "fairlead-operator",
                programs.path("fairlead-operator"),
                folder.join(log),
            )
            .env("KUBECONFIG", kubeconfig)
            .args([
                "--namespace",
                SYSTEM_NAMESPACE,
                "--trust-domain",
                TRUST_DOMAIN,
            ])
            .args(["--gateway-address", gateway, "--admin-address", admin])
        })
        .await
    };
    try_join_all((0..number).map(start)).await
}

impl Gateway {
    /// Its name, and that of its Lease.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `HOST:PORT` for devices.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `HOST:PORT` of its console: HTTPS, with the certificate of [`Stack::console_ca`].
    pub fn console(&self) -> &str {
        &self.console
    }

    /// The process behind it.
    pub fn service(&mut self) -> &mut Service {
        &mut self.service
    }
}

impl Service {
    async fn start(admin: String, program: impl FnOnce(&str) -> Program) -> anyhow::Result<Self> {
        let program = program(&admin);
        let process = program.spawn()?;
        let mut service = Self {
            program,
            process,
            admin,
        };
        service.ready().await?;
        Ok(service)
    }

    /// `HOST:PORT` of `/live`, `/ready` and `/metrics`.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its metrics, as Prometheus text.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        admin::get(&self.admin, "/metrics").await
    }

    /// SIGKILL: nothing is said to anybody.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().await
    }

    /// Starts it again after it was killed, on the same ports, and waits until it is ready.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        ensure!(
            self.process.ended()?.is_some(),
            "{} is running",
            self.process.name()
        );
        self.process = self.program.spawn()?;
        self.ready().await
    }

    /// Waits until it is ready.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let what = format!("{} is ready", self.process.name());
        let admin = self.admin.clone();
        let ready = until(&what, READY_WITHIN, async || {
            admin::get(&admin, "/ready").await.map(Some)
        });
        let result = tokio::select! {
            ready = ready => ready.map(drop),
            ended = self.process.wait() => match ended {
                Ok(status) => Err(anyhow::anyhow!("{} ended as it started ({status})", self.process.name())),
                Err(error) => Err(error),
            },
        };
        result.with_context(|| self.process.tail())
    }

    /// SIGTERM, and waits for a clean end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if self.process.ended()?.is_some() {
            return Ok(());
        }
        let status = self.process.terminate(STOP_WITHIN).await?;
        ensure!(
            status.success(),
            "{} stopped with {status}\n{}",
            self.process.name(),
            self.process.tail()
        );
        Ok(())
    }
}

/// A device: `fairlead-agent` with a state folder.
pub struct Agent {
    name: String,
    folder: PathBuf,
    path: PathBuf,
    config: Option<PathBuf>,
    environment: Vec<(String, String)>,
    running: Option<Process>,
}

impl Agent {
    /// A device that was never paired. `name` names its folder and log in `folder`.
    pub fn new(programs: &Programs, folder: &Path, name: &str) -> anyhow::Result<Self> {
        let folder = folder.join(name);
        private::folder(&folder)?;
        Ok(Self {
            name: name.to_owned(),
            folder,
            path: programs.path("fairlead-agent"),
            config: None,
            environment: Vec::new(),
            running: None,
        })
    }

    /// With a configuration file.
    #[must_use]
    pub fn with_config(mut self, file: &Path) -> Self {
        self.config = Some(file.to_owned());
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where it keeps its key, its certificate and its journal.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The file that is there from the moment it has its certificate: written beside it and renamed, so never a part.
    pub fn identity(&self) -> PathBuf {
        self.state().join("identity.json")
    }

    /// Where it logs.
    pub fn log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// Starts `fairlead-agent pair`, which ends when the device has its certificate or was refused. A URI says which
    /// gateway; a PIN needs `gateway`.
    ///
    /// The code goes by standard input, from a file that is removed when the returned value is dropped.
    pub fn pair(&self, code: &str, gateway: Option<&str>) -> anyhow::Result<Pairing> {
        let input = self.folder.join("code");
        private::write(&input, format!("{code}\n").as_bytes())?;
        let mut program = self
            .program()
            .args(["pair", "-", "--name", &self.name])
            .input(&input);
        if let Some(gateway) = gateway {
            program = program.args(["--gateway", gateway]);
        }
        Ok(Pairing {
            process: program.spawn()?,
            input,
        })
    }

    /// Starts `fairlead-agent pair` without a code: it goes on where an earlier one was stopped.
    pub fn pair_on(&self) -> anyhow::Result<Pairing> {
        Ok(Pairing {
            process: self.program().arg("pair").spawn()?,
            input: self.folder.join("code"),
        })
    }

    /// Starts `fairlead-agent run`.
    pub fn run(&mut self) -> anyhow::Result<&mut Process> {
        if let Some(process) = &mut self.running {
            ensure!(process.ended()?.is_some(), "{} is running", self.name);
        }
        let process = self.program().arg("run").spawn()?;
        Ok(self.running.insert(process))
    }

    /// Starts another `fairlead-agent run` on the same state.
    pub fn second(&self) -> anyhow::Result<Process> {
        self.program().arg("run").spawn()
    }

    /// The `run` process, if one was started.
    pub fn running(&mut self) -> Option<&mut Process> {
        self.running.as_mut()
    }

    /// What `fairlead-agent status --output json` says.
    pub async fn status(&self) -> anyhow::Result<Value> {
        let output = self.call(&["status", "--output", "json"]).await?;
        serde_json::from_slice(&output).context("read what the agent says about itself")
    }

    /// `fairlead-agent unpair --yes`.
    pub async fn unpair(&self) -> anyhow::Result<()> {
        self.call(&["unpair", "--yes"]).await.map(drop)
    }

    /// SIGKILL for `run`.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        match &mut self.running {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Stops `run` by SIGTERM.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.running.take() {
            let status = process.terminate(STOP_WITHIN).await?;
            ensure!(
                status.success(),
                "{} stopped with {status}\n{}",
                self.name,
                process.tail()
            );
        }
        Ok(())
    }

    fn program(&self) -> Program {
        let mut program = Program::new(&self.name, &self.path, self.log())
            .arg("--state-dir")
            .arg(self.state());
        if let Some(config) = &self.config {
            program = program.arg("--config").arg(config);
        }
        for (name, value) in &self.environment {
            program = program.env(name, value);
        }
        program
    }

    /// What `fairlead-agent` writes to standard output, with these arguments.
    ///
    /// # Errors
    /// When it ends with another code than 0, with what it says.
    pub async fn call(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = tokio::process::Command::new(&self.path)
            .arg("--state-dir")
            .arg(self.state())
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("run fairlead-agent")?;
        if !output.status.success() {
            bail!(
                "fairlead-agent {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(output.stdout)
    }
}

/// A running `fairlead-agent pair`.
pub struct Pairing {
    process: Process,
    input: PathBuf,
}

impl Pairing {
    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until the device is paired.
    ///
    /// # Errors
    /// When it is not, within `deadline`; the message has the end of the agent's log.
    pub async fn paired(&mut self, deadline: Duration) -> anyhow::Result<()> {
        let status = tokio::time::timeout(deadline, self.process.wait())
            .await
            .with_context(|| {
                format!(
                    "not paired after {} s\n{}",
                    deadline.as_secs(),
                    self.process.tail()
                )
            })??;
        ensure!(
            status.success(),
            "not paired ({status})\n{}",
            self.process.tail()
        );
        Ok(())
    }
}

impl Drop for Pairing {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the folder goes with the run.
        let _ = std::fs::remove_file(&self.input);
    }
}

fn console_folder(folder: &Path) -> PathBuf {
    folder.join("console-tls")
}

/// A certificate for where the consoles are: that of the gateways names what devices expect, and no address.
fn console_certificate(folder: &Path) -> anyhow::Result<PathBuf> {
    let folder = console_folder(folder);
    private::folder(&folder)?;
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made =
        rcgen::generate_simple_self_signed(names).context("make the consoles' certificate")?;
    private::write(&folder.join("tls.crt"), made.cert.pem().as_bytes())?;
    private::write(
        &folder.join("tls.key"),
        made.signing_key.serialize_pem().as_bytes(),
    )?;
    Ok(folder)
}

fn store_in(folder: &Path) -> PathBuf {
    folder.join("store")
}

/// A free `HOST:PORT` on loopback.
pub fn loopback() -> anyhow::Result<String> {
    Ok(format!("127.0.0.1:{}", ports::free()?))
}
