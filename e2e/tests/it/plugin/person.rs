//! Somebody with `kubectl-fairlead` and a kubeconfig: in a script, where nothing is a terminal, or at one.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use e2e::private;
use e2e::process::{Process, Program};
use e2e::wait::until;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::fixture::Scene;

const ENDS_WITHIN: Duration = Duration::from_secs(40);

/// Nobody here has the `KUBECONFIG` of whoever runs the tests.
pub struct Person {
    name: String,
    program: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
    folder: PathBuf,
    runs: AtomicU32,
}

/// How a run ended, and what it said.
pub struct Said {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Said")
            .field("code", &self.code)
            .field("out", &without_code(&String::from_utf8_lossy(&self.out)))
            .field("err", &self.err)
            .finish()
    }
}

/// What may stand in the message of a failure: nothing up to the end of a code that was shown.
fn without_code(shown: &str) -> &str {
    let after = shown.rsplit_once("fairlead-agent pair");
    after.map_or(shown, |(_, after)| after)
}

impl Said {
    pub fn out(&self) -> anyhow::Result<&str> {
        std::str::from_utf8(&self.out).context("standard output is not text")
    }

    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.out).with_context(|| format!("no JSON: {self:?}"))
    }

    /// That it ended so, and said all that on standard error.
    pub fn with(self, code: i32, parts: &[&str]) -> anyhow::Result<Self> {
        ensure!(self.code == Some(code), "not {code}: {self:?}");
        for part in parts {
            ensure!(self.err.contains(part), "{part} is not said: {self:?}");
        }
        Ok(self)
    }
}

impl Person {
    pub fn new(scene: &Scene, name: &str, kubeconfig: &Path) -> anyhow::Result<Self> {
        let folder = scene.folder.join(format!("{name}-runs"));
        private::folder(&folder)?;
        Ok(Self {
            name: name.to_owned(),
            program: scene.fixture.programs().path("kubectl-fairlead"),
            kubeconfig: kubeconfig.to_owned(),
            namespace: scene.namespace.clone(),
            folder,
            runs: AtomicU32::new(0),
        })
    }

    /// An account of the trial's namespace that has these roles there, by its token.
    pub async fn account(scene: &Scene, name: &str, roles: &[&str]) -> anyhow::Result<Self> {
        crate::console::token(scene, name, roles).await?;
        let kubeconfig = scene.folder.join(format!("{name}.kubeconfig"));
        let cluster = scene.fixture.cluster();
        cluster
            .service_account_kubeconfig(&scene.namespace, name, &kubeconfig)
            .await?;
        Self::new(scene, name, &kubeconfig)
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// In the trial's namespace, unless the arguments say another.
    fn program(&self, log: impl Into<PathBuf>, arguments: &[&str]) -> Program {
        let program =
            Program::new(&self.name, &self.program, log).env("KUBECONFIG", &self.kubeconfig);
        let elsewhere = ["-n", "-A"].iter().any(|flag| arguments.contains(flag));
        let program = if elsewhere {
            program
        } else {
            program.args(["-n", &self.namespace])
        };
        program.args(arguments)
    }

    /// In a script: starts it.
    pub fn start(&self, arguments: &[&str]) -> anyhow::Result<Running> {
        self.start_with(arguments, Path::new("/dev/null"))
    }

    /// The same, with a file to read from.
    pub fn start_with(&self, arguments: &[&str], input: &Path) -> anyhow::Result<Running> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let err = self.folder.join(format!("{number}.err"));
        let out = self.folder.join(format!("{number}.out"));
        let program = self.program(&err, arguments).output(&out).input(input);
        Running::of(&program, out)
    }

    /// Runs it to its end, whatever that is.
    pub async fn says(&self, arguments: &[&str]) -> anyhow::Result<Said> {
        self.start(arguments)?.ends().await
    }

    /// The same, with something on standard input.
    pub async fn says_to(&self, arguments: &[&str], input: &str) -> anyhow::Result<Said> {
        let path = self.folder.join("input");
        private::write(&path, input.as_bytes())?;
        self.start_with(arguments, &path)?.ends().await
    }

    /// Runs it to a good end, and gives standard output.
    pub async fn gets(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let said = self.says(arguments).await?.with(0, &[])?;
        Ok(said.out()?.to_owned())
    }

    /// At a terminal: starts it there. Variables are NAME and value.
    pub fn sits_at(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Sitting> {
        let terminal = Terminal::open()?;
        let mut program = self
            .program(&terminal.path, arguments)
            .input(&terminal.path)
            .env("TERM", "xterm");
        for (name, value) in variables {
            program = program.env(*name, *value);
        }
        Ok(Sitting {
            process: program.spawn()?,
            terminal,
        })
    }
}

/// A run in a script.
pub struct Running {
    process: Process,
    out: PathBuf,
}

impl Running {
    /// Starts a program whose standard output goes to `out`.
    pub fn of(program: &Program, out: PathBuf) -> anyhow::Result<Self> {
        let process = program.spawn()?;
        Ok(Self { process, out })
    }

    /// Waits until it has said this on standard error, and gives all of that.
    pub async fn says(&mut self, what: &str) -> anyhow::Result<String> {
        let log = self.process.log().to_owned();
        let said = || -> anyhow::Result<Option<String>> {
            let text = std::fs::read_to_string(&log)?;
            Ok(text.contains(what).then_some(text))
        };
        let shown = tokio::select! {
            shown = until(what, ENDS_WITHIN, async || said()) => shown,
            // It may have said it last.
            ended = self.process.wait() => said()?.with_context(|| format!("{what}: it ended ({ended:?})")),
        };
        shown.with_context(|| self.process.tail())
    }

    /// Waits until standard output has this.
    pub async fn shows(&self, what: &str) -> anyhow::Result<String> {
        until(what, ENDS_WITHIN, async || {
            let text = std::fs::read_to_string(&self.out)?;
            Ok(text.contains(what).then_some(text))
        })
        .await
        .with_context(|| self.process.tail())
    }

    /// Ctrl-C.
    pub fn interrupt(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::INT)
    }

    pub async fn ends(&mut self) -> anyhow::Result<Said> {
        let status = tokio::time::timeout(ENDS_WITHIN, self.process.wait())
            .await
            .context("it goes on")
            .with_context(|| self.process.tail())??;
        Ok(Said {
            code: status.code(),
            out: std::fs::read(&self.out)?,
            err: std::fs::read_to_string(self.process.log())?,
        })
    }
}

/// A run at a terminal.
pub struct Sitting {
    process: Process,
    terminal: Terminal,
}

impl Sitting {
    /// Waits until the terminal shows this, and gives all that it has shown.
    pub async fn sees(&self, what: &str) -> anyhow::Result<String> {
        let terminal = &self.terminal;
        until(what, ENDS_WITHIN, async || {
            let shown = terminal.shown()?;
            ensure!(shown.contains(what), "{}", without_code(&shown));
            Ok(Some(shown))
        })
        .await
    }

    pub fn types(&self, line: &str) -> anyhow::Result<()> {
        (&self.terminal.master)
            .write_all(format!("{line}\n").as_bytes())
            .context("type")
    }

    /// What Ctrl-C sends.
    pub fn interrupt(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::INT)
    }

    /// The exit code, and all that the terminal has shown.
    pub async fn ends(&mut self) -> anyhow::Result<(Option<i32>, String)> {
        let Ok(status) = tokio::time::timeout(ENDS_WITHIN, self.process.wait()).await else {
            bail!("it goes on:\n{}", without_code(&self.terminal.shown()?))
        };
        Ok((status?.code(), self.terminal.shown()?))
    }
}

/// A pseudo-terminal, from the side of the person.
struct Terminal {
    master: File,
    path: PathBuf,
    /// All that came so far.
    shown: Mutex<Vec<u8>>,
}

impl Terminal {
    fn open() -> anyhow::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .context("open a pseudo-terminal")?;
        grantpt(&master).context("get the pseudo-terminal")?;
        unlockpt(&master).context("unlock the pseudo-terminal")?;
        let path = ptsname(&master, Vec::new()).context("name the pseudo-terminal")?;
        rustix::fs::fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        Ok(Self {
            master: master.into(),
            path: Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())).to_owned(),
            shown: Mutex::default(),
        })
    }

    /// All that was shown until now.
    fn shown(&self) -> anyhow::Result<String> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut part = [0; 4096];
        loop {
            match rustix::io::read(&self.master, &mut part) {
                // Nothing is there, or nobody has the other side open: not yet, or not any more.
                Ok(0) | Err(Errno::AGAIN | Errno::IO) => break,
                Ok(read) => shown.extend_from_slice(&part[..read]),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("read the pseudo-terminal"),
            }
        }
        Ok(String::from_utf8_lossy(&shown).replace("\r\n", "\n"))
    }
}
