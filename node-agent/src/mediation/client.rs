//! The other end of the socket: what `pending`, `allow`, `deny` and `notify` say to the agent.
//!
//! Who listens there is looked at before it is believed: what it shows is what a person decides about.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::geteuid;
use tokio::{io::BufReader, net::UnixStream, time::timeout};

use super::{
    question::Shown,
    wire::{self, MAX_REPLY_BYTES, Refused, Request, Response, Said},
};
use crate::terminal::printable;

/// How long the agent may take: it answers at once, but for a watch, which takes 20 s, and a disk that is slow.
const ANSWER_TIME: Duration = Duration::from_secs(40);

/// Why the agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no agent listens at {}: start it (`fairlead-agent run`), or say where its socket is with --socket",
        path.display()
    )]
    NotRunning { path: PathBuf },
    #[error(
        "you may not use the agent's socket {}: the device's administrator can add you to the group of \
         mediation.groups in the agent's configuration",
        path.display()
    )]
    NotAllowed { path: PathBuf },
    /// What is there is not the agent's.
    #[error("{}: {fault}", path.display())]
    NotTrusted { path: PathBuf, fault: String },
    #[error("talk to the agent at {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{message}")]
    Refused { why: Refused, message: String },
}

/// A connection to the agent.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

/// What waits for an answer, and which version of that it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pending {
    pub version: u64,
    pub questions: Vec<Shown>,
}

impl Client {
    pub async fn connect(path: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| {
            let path = path.to_owned();
            let kind = error.kind();
            if matches!(
                kind,
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) {
                Error::NotRunning { path }
            } else if kind == io::ErrorKind::PermissionDenied {
                Error::NotAllowed { path }
            } else {
                Error::Io {
                    path,
                    source: error,
                }
            }
        };
        let not_trusted = |fault| Error::NotTrusted {
            path: path.to_owned(),
            fault,
        };
        let folder = path.parent().unwrap_or(Path::new("/"));
        let folder = fs::metadata(folder).map_err(failed)?;
        let socket = fs::symlink_metadata(path).map_err(failed)?;
        if !socket.file_type().is_socket() {
            return Err(not_trusted(
                "it is no socket: say where it is with --socket".to_owned(),
            ));
        }
        judge(&socket_of(&socket), &socket_of(&folder), geteuid().as_raw()).map_err(not_trusted)?;
        let stream = UnixStream::connect(path).await.map_err(failed)?;
        let listener = stream.peer_cred().map_err(failed)?.uid();
        if listener != socket.uid() && listener != 0 {
            return Err(not_trusted(format!(
                "user {listener} listens there, but it belongs to user {}: do not believe what it shows",
                socket.uid()
            )));
        }
        Ok(Self {
            stream: BufReader::new(stream),
            path: path.to_owned(),
        })
    }

    /// What waits for an answer; where `unlike` is that, as soon as it is something else, or after a while.
    pub async fn pending(&mut self, unlike: Option<u64>) -> Result<Pending, Error> {
        match self.ask(&Request::Pending { unlike }).await? {
            Response::Pending { version, questions } => Ok(Pending { version, questions }),
            Response::Taken { .. } | Response::Refused { .. } => Err(self.nonsense()),
        }
    }

    /// Answers what was shown. Returns under which name.
    pub async fn answer(
        &mut self,
        question: &Shown,
        decision: Said,
        reason: &str,
    ) -> Result<String, Error> {
        let request = Request::Answer {
            uid: question.uid.clone(),
            digest: question.digest.clone(),
            decision,
            reason: reason.to_owned(),
        };
        match self.ask(&request).await? {
            Response::Taken { by } => Ok(printable(&by)),
            Response::Pending { .. } | Response::Refused { .. } => Err(self.nonsense()),
        }
    }

    async fn ask(&mut self, request: &Request) -> Result<Response, Error> {
        let asked = async {
            // One that turns people away says so before it hears anything, and may be gone already.
            let written = wire::write(&mut self.stream, request).await;
            match wire::read(&mut self.stream, MAX_REPLY_BYTES).await {
                Ok(Some(response)) => Ok(response),
                Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => Err(written.err().unwrap_or(error)),
            }
        };
        let answered = timeout(ANSWER_TIME, asked)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match answered {
            Ok(Response::Refused { why, message }) => Err(Error::Refused {
                why,
                message: printable(&message),
            }),
            Ok(response) => Ok(response),
            Err(source) => Err(Error::Io {
                path: self.path.clone(),
                source,
            }),
        }
    }

    fn nonsense(&self) -> Error {
        let source = io::Error::new(io::ErrorKind::InvalidData, "it answers something else");
        Error::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// Whose a file is, and who may change it.
struct Held {
    owner: u32,
    mode: u32,
}

fn socket_of(metadata: &fs::Metadata) -> Held {
    Held {
        owner: metadata.uid(),
        mode: metadata.mode() & 0o7777,
    }
}

/// Whether only root, this user or one user who is trusted with the whole folder can have put the socket there.
fn judge(socket: &Held, folder: &Held, own: u32) -> Result<(), String> {
    if folder.mode & 0o022 != 0 {
        return Err(format!(
            "others than its owner may write to its folder (mode {:04o}), and could have put it there: `chmod go-w` the \
             folder",
            folder.mode
        ));
    }
    let is_trusted = |owner| owner == 0 || owner == own || owner == folder.owner;
    if !is_trusted(socket.owner) {
        return Err(format!(
            "it belongs to user {}, and its folder to user {}: do not believe what it shows",
            socket.owner, folder.owner
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_believed_where_nobody_else_can_have_put_it() {
        let held = |owner, mode| Held { owner, mode };
        for (socket, folder, accepted) in [
            (held(0, 0o660), held(0, 0o755), true),
            (held(7, 0o600), held(7, 0o700), true),
            // A service user's, in a folder of that user or of root.
            (held(9, 0o660), held(9, 0o755), true),
            (held(9, 0o660), held(0, 0o755), false),
            (held(0, 0o660), held(9, 0o755), true),
            (held(8, 0o660), held(7, 0o755), false),
            (held(7, 0o660), held(0, 0o1777), false),
            (held(0, 0o660), held(0, 0o775), false),
        ] {
            let judged = judge(&socket, &folder, 7);
            assert_eq!(
                judged.is_ok(),
                accepted,
                "{} in {} {:o}",
                socket.owner,
                folder.owner,
                folder.mode
            );
        }
    }
}
