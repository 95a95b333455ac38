//! What may be opened on this device's screen, where its administrator wants that. A person is asked each time.
//!
//! - [`url`]: `desktop.open_url`, and which addresses it opens;
//! - [`path`]: `desktop.open_path`, and which files it opens.

pub mod path;
pub mod url;

use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use proto::node::FailureCode;
use tokio::{process::Command, time::timeout};

use super::{
    Failure, Registry,
    command::confine::{Confinement, Limits},
};
use crate::config::Desktop;

/// How long the opener may take to say that it failed. One that goes on is the program itself, which a person uses now.
const OPENING_TIME: Duration = Duration::from_secs(5);
/// What a program needs to find the screen and its user's settings. No other variable is passed on.
const ENVIRONMENT: [&str; 15] = [
    "BROWSER",
    "DBUS_SESSION_BUS_ADDRESS",
    "DESKTOP_SESSION",
    "DISPLAY",
    "HOME",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "PATH",
    "USER",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_CURRENT_DESKTOP",
    "XDG_DATA_DIRS",
    "XDG_RUNTIME_DIR",
];

/// Adds what is configured.
pub(super) fn add(registry: &mut Registry, desktop: &Desktop, launcher: &Arc<Path>) {
    let Desktop {
        open_url,
        opener,
        open_path_roots,
    } = desktop;
    let opener = Opener {
        launcher: Arc::clone(launcher),
        words: opener.iter().map(OsString::from).collect(),
    };
    if *open_url {
        registry.add(Arc::new(url::OpenUrl::new(opener.clone())));
    }
    if !open_path_roots.is_empty() {
        registry.add(Arc::new(path::OpenPath::new(
            opener,
            open_path_roots.clone(),
        )));
    }
}

/// The program that opens what it is given.
#[derive(Clone, Debug)]
struct Opener {
    /// The agent's own program.
    launcher: Arc<Path>,
    words: Vec<OsString>,
}

impl Opener {
    /// Starts it with one more argument. What it starts is a person's now: it is not stopped, whatever becomes of the
    /// invocation or of the agent.
    async fn open(&self, what: &OsStr) -> Result<(), Failure> {
        let words = self.words.iter().cloned();
        let confinement = Confinement {
            parent: None,
            wait: false,
            limits: Limits::default(),
            command: words.chain([what.to_owned()]).collect(),
        };
        let environment = ENVIRONMENT.iter();
        let mut child = Command::new(self.launcher.as_ref())
            .args(confinement.to_arguments())
            .env_clear()
            .envs(environment.filter_map(|name| Some((name, env::var_os(name)?))))
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                Failure::new(
                    FailureCode::Unavailable,
                    format!("the opener cannot be started: {error}"),
                )
            })?;
        // Dropped while it runs, it is reaped by the runtime when it ends.
        match timeout(OPENING_TIME, child.wait()).await {
            Ok(Ok(status)) if !status.success() => Err(Failure::new(
                FailureCode::CapabilityFailed,
                format!("the opener failed: {status}"),
            )),
            Ok(Ok(_)) | Err(_) => Ok(()),
            Ok(Err(error)) => Err(Failure::new(
                FailureCode::CapabilityFailed,
                format!("how the opener ended cannot be told: {error}"),
            )),
        }
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureCode::InvalidInput, message)
}

/// What both answer.
fn opened(what: &str) -> Vec<u8> {
    serde_json::json!({ "opened": what })
        .to_string()
        .into_bytes()
}
