//! Who is at the other end of a connection: decided in the TLS handshake, found in the extensions of every request.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pairing::{certificate::Presented, exporter::Exporter, key::KeyFingerprint, spiffe::SpiffeId};
use rustls::{Error, ServerConnection};
use tonic::{Request, Status};

use crate::stay::Stay;

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// As the socket says.
    pub remote: SocketAddr,
    pub identity: Identity,
    pub admission: Admission,
}

/// Who it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Identity {
    /// A stranger: all that is known is the key that it holds.
    Enrollee {
        key: KeyFingerprint,
        exporter: Exporter,
    },
    /// A device that our authority named. Whether it is still trusted is not known here.
    Device { key: KeyFingerprint, id: SpiffeId },
}

/// What became of its wish to be served.
#[derive(Debug)]
pub enum Admission {
    /// A device that has a place.
    Device,
    /// An enrollee that has a place, for a time.
    Enrollee(Arc<Stay>),
    /// There was no place: every call is answered so, for a moment.
    TurnedAway {
        why: &'static str,
        retry_after: Duration,
    },
}

impl Identity {
    /// Reads the peer of a connection whose handshake [`crate::tls::PeerVerifier`] accepted.
    pub fn of(connection: &ServerConnection) -> Result<Self, Error> {
        let leaf = connection
            .peer_certificates()
            .and_then(<[_]>::first)
            .ok_or(Error::NoCertificatesPresented)?;
        Ok(match Presented::read(leaf)? {
            Presented::SelfSigned { key } => Self::Enrollee {
                key,
                exporter: Exporter::of(connection)?,
            },
            Presented::Device { key, id } => Self::Device { key, id },
        })
    }
}

/// The peer that a request came from.
pub fn of<T>(request: &Request<T>) -> Result<&Arc<Peer>, Status> {
    request
        .extensions()
        .get::<Arc<Peer>>()
        .ok_or_else(|| Status::internal("served over a connection that names no peer"))
}

/// The device that a request came from; refuses everybody else.
pub fn device<T>(request: &Request<T>) -> Result<(SpiffeId, KeyFingerprint), Status> {
    match &of(request)?.identity {
        Identity::Device { key, id } => Ok((id.clone(), *key)),
        Identity::Enrollee { .. } => Err(Status::permission_denied(
            "enrol first: this certificate is self-signed",
        )),
    }
}
