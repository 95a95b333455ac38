//! Looks at this device and at its gateways. Changes nothing, and everything that waits for others has its bound.

use std::{
    env,
    fs::File,
    io::{self, Read as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::fmt::rfc2822;
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustls::RootCertStore;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    body::Body,
    codegen::{Service as _, http},
};
use tower::ServiceExt as _;

use super::judge::{Disk, Facts, Folder, Gateway, Screen, Socket, Standing, Tls, Visit};
use crate::{
    capability::{command::groups, live::Source},
    config::document::Problem,
    host::clock,
    journal::Journal,
    renewal::moment,
    state::{
        self, Identity, View,
        access::{Fault, Kind},
        identity::Life,
        key::Credentials,
    },
    upstream::{
        connect::{self, Liveness, chain},
        dial::{Dialer, Route, order},
    },
};

/// How long an answer may take.
const ATTEMPT_TIME: Duration = Duration::from_secs(5);
/// Who has one of these has a screen.
const SCREENS: [&str; 2] = ["DISPLAY", "WAYLAND_DISPLAY"];
/// Most of an environment that is read, in bytes.
const MAX_ENVIRONMENT_BYTES: u64 = 1024 * 1024;

/// Where to look.
pub struct Places {
    /// The way to the gateways.
    pub dialer: Dialer,
    /// Of the state.
    pub folder: PathBuf,
    pub socket: PathBuf,
    /// What is wrong with `agent.toml`; then the defaults are looked at.
    pub configuration: Option<Problem>,
    pub capabilities: Source,
    /// Whether something may be opened on the screen.
    pub uses_screen: bool,
}

/// Gathers everything.
pub async fn observe(places: Places) -> Facts {
    let Places {
        dialer,
        folder,
        socket,
        configuration,
        mut capabilities,
        uses_screen,
    } = places;
    let now = clock::wall();
    let (registry, problems) = capabilities.load();
    let (view, folder_found) = look_at(&folder);
    let absent = || "the state folder cannot be looked into".to_owned();
    let (standing, shown, gateways) = match &view {
        None => (Err(absent()), None, Vec::new()),
        Some(view) => standing(view, now.as_second()),
    };
    let process = view.as_ref().and_then(View::user);
    let is_missing = matches!(folder_found, Folder::Missing(_));
    Facts {
        now,
        configuration: configuration.map(|problem| problem.to_string()),
        capabilities: (
            problems.iter().map(Problem::to_string).collect(),
            registry.len(),
        ),
        folder: folder_found,
        disk: disk(&folder),
        standing: if is_missing {
            Ok(Standing::Unpaired)
        } else {
            standing
        },
        journal: match &view {
            Some(view) => Journal::peek(&view.journal()).map_err(|error| chain(&error)),
            None if is_missing => Ok(Default::default()),
            None => Err(absent()),
        },
        process,
        groups: process.and_then(groups::of_process),
        screen: if uses_screen {
            screen(process)
        } else {
            Screen::Unused
        },
        socket: knock(&socket),
        gateways: visit(&dialer, gateways, shown.as_ref()).await,
    }
}

fn look_at(path: &Path) -> (Option<View>, Folder) {
    let shown = path.display().to_string();
    match View::of(path) {
        Ok(None) => (None, Folder::Missing(shown)),
        Ok(Some(view)) => (Some(view), Folder::Fine(shown)),
        Err(error) => {
            let mut owner = None;
            if let state::Error::Refused { fault, .. } = &error
                && let Fault::Owner {
                    kind: Kind::Folder,
                    owner: found,
                    ..
                } = fault
            {
                owner = Some(*found);
            }
            let what = chain(&error);
            (None, Folder::Refused { what, owner })
        }
    }
}

/// What a gateway is shown, and whom to believe.
struct Shown {
    roots: RootCertStore,
    identity: Identity,
    key: state::DeviceKey,
}

impl Shown {
    fn credentials(&self) -> Credentials {
        self.key.certified(self.identity.chain())
    }
}

type Stands = (Result<Standing, String>, Option<Shown>, Vec<String>);

fn standing(view: &View, now: i64) -> Stands {
    match read_standing(view, now) {
        Ok((standing, shown, gateways)) => (Ok(standing), shown, gateways),
        Err(error) => (Err(chain(&error)), None, Vec::new()),
    }
}

fn read_standing(
    view: &View,
    now: i64,
) -> Result<(Standing, Option<Shown>, Vec<String>), state::Error> {
    let identity = match view.standing(now)? {
        state::Standing::Unpaired => return Ok((Standing::Unpaired, None, Vec::new())),
        state::Standing::Pairing(saved) => {
            let gateways = vec![saved.pairing().gateway.clone()];
            return Ok((Standing::Pairing, None, gateways));
        }
        state::Standing::Paired(identity) => identity,
    };
    let life = view.life_of(&identity)?;
    let key = view.key()?.ok_or_else(|| state::Error::NoKey {
        path: view.path().join("key.pem"),
    })?;
    view.check_identity(&identity, &key)?;
    let roots = identity.roots().map_err(|error| state::Error::Damaged {
        path: view.path().to_owned(),
        what: error.to_string(),
    })?;
    let jitter = identity
        .chain
        .first()
        .map_or(0.0, |leaf| moment::jitter(&leaf.0));
    let standing = Standing::Paired {
        device: format!("{}/{}", identity.namespace, identity.device),
        life,
        renews_at: moment::due_at(life, jitter),
        refused: view.refused()?.map(|refused| refused.reason),
    };
    let gateways = identity.addresses();
    let shown = Shown {
        roots,
        identity,
        key,
    };
    Ok((standing, Some(shown), gateways))
}

/// Of the folder, or of where it would be made.
fn disk(folder: &Path) -> Result<Disk, String> {
    let place = folder
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    let found = statvfs(place).map_err(|error| format!("{}: {error}", place.display()))?;
    Ok(Disk {
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        free_files: (found.f_files > 0).then_some(found.f_favail),
        read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}

/// Of the agent that runs; where none does, of who asks, who may be about to start it.
fn screen(process: Option<u32>) -> Screen {
    let has_one = match process {
        None => SCREENS.iter().any(|name| env::var_os(name).is_some()),
        Some(process) => match environment_of(process) {
            Err(_) => return Screen::Unknown,
            Ok(environment) => environment.split(|byte| *byte == 0).any(names_screen),
        },
    };
    if has_one {
        Screen::Session
    } else {
        Screen::NoSession
    }
}

fn names_screen(variable: &[u8]) -> bool {
    SCREENS.iter().any(|name| {
        let value = variable.strip_prefix(name.as_bytes());
        value.is_some_and(|value| value.starts_with(b"="))
    })
}

fn environment_of(process: u32) -> io::Result<Vec<u8>> {
    let mut environment = Vec::new();
    let file = File::open(format!("/proc/{process}/environ"))?;
    file.take(MAX_ENVIRONMENT_BYTES)
        .read_to_end(&mut environment)?;
    Ok(environment)
}

/// Whether somebody listens. Says nothing and goes.
fn knock(path: &Path) -> Socket {
    match UnixStream::connect(path) {
        Ok(_) => Socket::Open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Socket::Missing,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Socket::Forbidden,
        Err(_) => Socket::Closed,
    }
}

/// All at once: several that do not answer would take minutes.
async fn visit(dialer: &Dialer, gateways: Vec<String>, shown: Option<&Shown>) -> Vec<Gateway> {
    let mut visits = JoinSet::new();
    for (index, address) in gateways.into_iter().enumerate() {
        let shown = shown.map(|shown| (shown.roots.clone(), shown.credentials()));
        let route = dialer.route(&address);
        visits.spawn(async move { (index, call_on(address, route, shown).await) });
    }
    let mut visited = visits.join_all().await;
    visited.sort_by_key(|(index, _)| *index);
    visited.into_iter().map(|(_, gateway)| gateway).collect()
}

async fn call_on(
    address: String,
    route: Route,
    shown: Option<(RootCertStore, Credentials)>,
) -> Gateway {
    let found = route.addresses().await.map(|found| order::of(found, None));
    let tls = shown.map(|(roots, credentials)| {
        let verifier = connect::trusting(roots).map_err(|error| chain(&error))?;
        connect::tls(verifier, credentials).map_err(|error| chain(&error))
    });
    let mut visits = JoinSet::new();
    for (index, &address) in found.iter().flatten().enumerate() {
        let (route, tls) = (route.clone(), tls.clone());
        visits.spawn(async move { (index, call_at(address, &route, tls).await) });
    }
    let mut visited = visits.join_all().await;
    visited.sort_by_key(|(index, _)| *index);
    Gateway {
        address,
        proxy: route.proxy().map(ToString::to_string),
        dns: found.map_err(|error| chain(&error)),
        visits: visited.into_iter().map(|(_, visit)| visit).collect(),
    }
}

/// `tls` is missing where there is no certificate to show.
async fn call_at(
    address: SocketAddr,
    route: &Route,
    tls: Option<Result<TlsConnector, String>>,
) -> Visit {
    let port = route.knock(address).await.map_err(|error| chain(&error));
    let tls = match (&port, tls) {
        (Ok(()), Some(Ok(tls))) => Some(speak(address, route, &tls).await),
        (Ok(()), Some(Err(why))) => Some(Tls::Broken(why)),
        (Ok(()), None) => Some(Tls::NotPaired),
        (Err(_), _) => None,
    };
    Visit { address, port, tls }
}

async fn soon<T>(attempt: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match timeout(ATTEMPT_TIME, attempt).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ATTEMPT_TIME.as_secs())),
    }
}

/// A handshake with this device's own certificate, and one question whose answer does not matter: each says what time it
/// is there.
async fn speak(address: SocketAddr, route: &Route, tls: &TlsConnector) -> Tls {
    let mut stream = match route.open_by(address, tls).await {
        Ok(stream) => stream,
        Err(error @ connect::Error::Untrusted(_)) => return Tls::Untrusted(chain(&error)),
        Err(error) => return Tls::Broken(chain(&error)),
    };
    match soon(connect::first_word(&mut stream)).await {
        Ok(None) => {}
        Ok(Some(alert)) => return Tls::Refused(format!("{alert:?}")),
        Err(why) => return Tls::Broken(why),
    }
    let presented = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let life = presented.first().and_then(|leaf| Life::of(leaf).ok());
    // Both believe each other; a clock that is not told is no fault of the connection.
    let clocks = timeout(ATTEMPT_TIME, ask(stream)).await;
    Tls::Fine {
        life,
        clocks: clocks.ok().flatten(),
    }
}

/// What time it is there and here, where the answer says.
async fn ask(stream: TlsStream<TcpStream>) -> Option<(i64, i64)> {
    let connection = connect::channel_over(stream, Liveness::Heartbeats).await;
    let mut channel = connection.ok()?.channel;
    let question = http::Request::post("/").body(Body::empty()).ok()?;
    let answer = channel.ready().await.ok()?.call(question).await.ok()?;
    let date = answer.headers().get(http::header::DATE)?.to_str().ok()?;
    let theirs = rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some((theirs.as_second(), clock::wall().as_second()))
}
