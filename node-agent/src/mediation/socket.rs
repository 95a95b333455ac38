//! The agent's end of the socket: who is there, what is asked, what they answer.
//!
//! The file's mode keeps most users out; who comes in is looked at once more, for the mode is only as good as the folder.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream as StdStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::{fs::Gid, process::geteuid};
use tokio::{
    io::BufReader,
    net::{UnixListener, UnixStream},
    sync::oneshot,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    access::{self, Peer},
    desk::{Given, Visitors},
    question::Digest,
    rules::{Decision, MAX_REASON_BYTES},
    wire::{self, MAX_REQUEST_BYTES, Refused, Request, Response, Said},
};
use crate::{
    agent::plan::Reply,
    capability::command::account::Accounts,
    config::document::check_writers,
    config::mediation::Mediation,
    host::clock,
    journal::Uid,
    terminal::{cut, printable_within},
};

/// Name of the socket in the state folder.
pub const NAME: &str = "agent.sock";
/// People at once. Further ones wait for a place.
const MAX_CONNECTIONS: usize = 16;
/// How long one may take for a request.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long a reply may take to be read.
const REPLY_TIME: Duration = Duration::from_secs(5);
/// How long one may wait for something else to be asked.
const WATCH_TIME: Duration = Duration::from_secs(20);
/// How long a connection lasts, whatever it does: whoever wants more comes again.
const CONNECTION_TIME: Duration = Duration::from_mins(1);
/// After a connection could not be taken: there are too many files, and that does not change at once.
const PAUSE: Duration = Duration::from_millis(200);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {fault}", path.display())]
    Refused { path: PathBuf, fault: String },
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// A socket that people may come to.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes the socket, and its folder where only that is missing. What a process left that was killed is replaced. Needs
    /// a runtime.
    pub fn open(path: &Path, groups: &[String], accounts: &Accounts) -> Result<Self, Error> {
        let io = |action| {
            move |source| Error::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let refused = |fault: String| Error::Refused {
            path: path.to_owned(),
            fault,
        };
        let group = match groups.first() {
            None => None,
            Some(group) => Some(accounts.group(group).ok_or_else(|| {
                refused(format!(
                    "no group {group:?} is in /etc/group: make it, or give another one in mediation.groups"
                ))
            })?),
        };
        let folder = path
            .parent()
            .ok_or_else(|| refused("it has no folder: give another path".to_owned()))?;
        match DirBuilder::new().mode(0o755).create(folder) {
            // Whatever the umask.
            Ok(()) => fs::set_permissions(folder, Permissions::from_mode(0o755))
                .map_err(io("set the mode of the folder of"))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io("make the folder of")(error)),
        }
        let metadata = fs::metadata(folder).map_err(io("look at the folder of"))?;
        check_writers(&metadata, &[]).map_err(|fault| refused(format!("its folder: {fault}")))?;
        check_place(path)?;

        // Under another name until its mode is right: nobody finds it before.
        let mut own = path.as_os_str().to_owned();
        own.push(".new");
        let own = PathBuf::from(own);
        match fs::remove_file(&own) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io("remove what is in the way of")(error));
            }
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&own).map_err(io("listen at"))?;
        if let Some(group) = group {
            rustix::fs::chown(&own, None, Some(Gid::from_raw(group))).map_err(|_| {
                refused(
                    "it cannot be given to its group: the agent's user must be in it".to_owned(),
                )
            })?;
        }
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(&own, Permissions::from_mode(mode)).map_err(io("set the mode of"))?;
        fs::rename(&own, path).map_err(io("give its name to"))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Serves whoever comes, until `stop`.
    pub async fn run(self, visitors: Visitors, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { listener, path } = self;
        let own = geteuid().as_raw();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        let serving = serve(stream, visitors.clone(), own);
                        connections.spawn(timeout(CONNECTION_TIME, serving));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "Nobody can come to the agent's socket now");
                        sleep(PAUSE).await;
                    }
                },
            }
        }
        // Who asks next learns at once that no agent runs.
        let _ = fs::remove_file(&path);
        Ok(())
    }
}

/// What is there must be a socket that nobody listens at.
fn check_place(path: &Path) -> Result<(), Error> {
    let refused = |fault: &str| {
        Err(Error::Refused {
            path: path.to_owned(),
            fault: fault.to_owned(),
        })
    };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(Error::Io {
                action: "look at",
                path: path.to_owned(),
                source,
            });
        }
    };
    if !metadata.file_type().is_socket() {
        return refused("it is no socket: remove it, or give another path in mediation.socket");
    }
    if metadata.uid() != 0 && metadata.uid() != geteuid().as_raw() {
        return refused(
            "it belongs to another user: remove it, or give another path in mediation.socket",
        );
    }
    if StdStream::connect(path).is_ok() {
        return refused(
            "another process listens there: stop it, or give another path in mediation.socket",
        );
    }
    Ok(())
}

async fn serve(stream: UnixStream, visitors: Visitors, own: u32) {
    let Ok(credentials) = stream.peer_cred() else {
        return;
    };
    let peer = Peer {
        uid: credentials.uid(),
        gid: credentials.gid(),
    };
    let settings = Arc::clone(&visitors.settings.borrow());
    let mut stream = BufReader::new(stream);
    let by = match access::judge(peer, own, &settings, &Accounts::read()) {
        Ok(by) => by,
        Err(message) => {
            tracing::warn!(uid = peer.uid, "Turned somebody away who may not answer");
            return refuse(&mut stream, Refused::NotAllowed, message).await;
        }
    };
    loop {
        let request = match timeout(REQUEST_TIME, wire::read(&mut stream, MAX_REQUEST_BYTES)).await
        {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => {
                let message = format!("the request cannot be read: {error}");
                return refuse(&mut stream, Refused::Malformed, message).await;
            }
        };
        let response = match request {
            Request::Pending { unlike } => pending(&visitors, unlike).await,
            Request::Answer {
                uid,
                digest,
                decision,
                reason,
            } => answer(&visitors, &by, (&uid, &digest), decision, &reason).await,
        };
        if !reply(&mut stream, &response).await {
            return;
        }
    }
}

async fn reply(stream: &mut BufReader<UnixStream>, response: &Response) -> bool {
    matches!(
        timeout(REPLY_TIME, wire::write(stream, response)).await,
        Ok(Ok(()))
    )
}

async fn refuse(stream: &mut BufReader<UnixStream>, why: Refused, message: String) {
    reply(stream, &Response::Refused { why, message }).await;
}

/// What is asked; where `unlike` is that, the next that is.
async fn pending(visitors: &Visitors, unlike: Option<u64>) -> Response {
    let mut asked = visitors.asked.clone();
    if let Some(version) = unlike {
        let other = asked.wait_for(|asked| asked.version != version);
        // Time is over, or the agent stops: what there is.
        let _ = timeout(WATCH_TIME, other).await;
    }
    let asked = Arc::clone(&asked.borrow());
    let now = clock::now();
    Response::Pending {
        version: asked.version,
        questions: asked
            .questions
            .iter()
            .map(|question| question.shown(now))
            .collect(),
    }
}

async fn answer(
    visitors: &Visitors,
    by: &str,
    (uid, digest): (&str, &str),
    decision: Said,
    reason: &str,
) -> Response {
    let refused = |why, message: &str| Response::Refused {
        why,
        message: message.to_owned(),
    };
    let (Some(uid), Some(shown)) = (Uid::parse(uid), Digest::parse(digest)) else {
        return refused(Refused::Malformed, "the answer names no question");
    };
    let (reply, replied) = oneshot::channel();
    let reason = printable_within(reason, MAX_REASON_BYTES);
    let given = Given {
        uid: uid.clone(),
        shown,
        is_allowed: decision == Said::Allow,
        decision: Decision {
            by: by.to_owned(),
            reason: cut(&reason, MAX_REASON_BYTES).to_owned(),
        },
        reply,
    };
    if visitors.answers.try_send(given).is_err() {
        return refused(
            Refused::Busy,
            "the agent has too much to do, or stops: try again",
        );
    }
    match replied.await {
        Ok(Reply::Taken) => {
            tracing::info!(%uid, by, ?decision, "Somebody answered");
            Response::Taken { by: by.to_owned() }
        }
        Ok(Reply::NotAsked) => refused(
            Refused::NotAsked,
            "this is not asked, or not any more: look at what is pending",
        ),
        Ok(Reply::Changed) => refused(
            Refused::Changed,
            "what was asked has changed: look at what is pending, and answer that",
        ),
        Ok(Reply::NotRecorded) => refused(
            Refused::NotRecorded,
            "the agent cannot write its journal, so it is not run: see to the disk",
        ),
        Err(_) => refused(Refused::Busy, "the agent stops: try again"),
    }
}

/// Where the socket is, unless the configuration says otherwise.
pub fn path_in(mediation: &Mediation, state_folder: &Path) -> PathBuf {
    mediation
        .socket
        .clone()
        .unwrap_or_else(|| state_folder.join(NAME))
}

#[cfg(test)]
mod tests {
    use rustix::process::getegid;
    use tokio::sync::watch;

    use super::{super::desk, *};

    /// Longest wait of a test: far longer than anything takes.
    const DEADLINE: Duration = Duration::from_secs(20);

    fn open(path: &Path, groups: &[&str]) -> Result<Socket, Error> {
        let groups: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
        Socket::open(path, &groups, &Accounts::of("", "desk:x:70:\n"))
    }

    #[tokio::test]
    async fn a_socket_is_for_its_owner_or_its_group_and_replaces_what_was_left() {
        let folder = tempfile::tempdir().unwrap();
        // Its folder is made where it is missing, and its folder's folder is not.
        let path = folder.path().join("run/agent.sock");
        let mode = || fs::symlink_metadata(&path).unwrap().mode() & 0o777;
        drop(open(&path, &[]).unwrap());
        assert_eq!(mode(), 0o600);
        let own = getegid().as_raw().to_string();
        let socket = open(&path, &[&own]).unwrap();
        assert_eq!(mode(), 0o660);
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!(metadata.gid(), getegid().as_raw());
        assert!(
            open(&path, &[])
                .unwrap_err()
                .to_string()
                .contains("another process")
        );
        drop(socket);
        open(&path, &[]).unwrap();
        open(&folder.path().join("a/b/agent.sock"), &[]).unwrap_err();
    }

    #[tokio::test]
    async fn what_cannot_be_trusted_or_made_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let says = |groups: &[&str]| open(&path, groups).unwrap_err().to_string();
        assert!(says(&["no-such"]).contains("/etc/group"));
        fs::write(&path, "precious").unwrap();
        assert!(says(&[]).contains("it is no socket"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(says(&[]).contains("chmod go-w"));
        let long = tempfile::tempdir().unwrap();
        open(&long.path().join("x".repeat(200)), &[]).unwrap_err();
    }

    async fn ask(stream: &mut BufReader<UnixStream>) -> Option<Response> {
        wire::write(stream, &Request::Pending { unlike: None })
            .await
            .unwrap();
        let response = wire::read(stream, wire::MAX_REPLY_BYTES);
        timeout(DEADLINE, response).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn only_so_many_come_in_at_once_and_the_next_has_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let (_desk, visitors) = desk::open(watch::channel(Arc::default()).1);
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(open(&path, &[]).unwrap().run(visitors, stop.clone()));
        let mut inside = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut stream = BufReader::new(UnixStream::connect(&path).await.unwrap());
            assert!(ask(&mut stream).await.is_some());
            inside.push(stream);
        }
        let mut next = BufReader::new(UnixStream::connect(&path).await.unwrap());
        let answered = ask(&mut next);
        tokio::pin!(answered);
        // Nobody takes it in while all places are taken: it is polled until another one was answered.
        let response = tokio::select! {
            biased;
            _ = &mut answered => unreachable!("it has no place"),
            response = ask(&mut inside[0]) => response,
        };
        assert!(response.is_some());
        inside.clear();
        assert!(answered.await.is_some());
        stop.cancel();
        timeout(DEADLINE, serving.join_next()).await.unwrap();
        assert!(!path.exists());
    }
}
