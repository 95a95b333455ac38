//! Who is at the other end of a connection: decided in the TLS handshake, found in the extensions of every request.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use pairing::{certificate::Presented, exporter::Exporter, key::KeyFingerprint, spiffe::SpiffeId};
use rustls::{CertificateError, Error, ServerConnection, pki_types::CertificateDer};
use tonic::{Request, Status};
use x509_parser::prelude::parse_x509_certificate;

use crate::{hang_up::HangUp, stay::Stay};

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// As the socket says.
    pub remote: SocketAddr,
    pub identity: Identity,
    pub admission: Admission,
    /// Ends the connection of a device.
    pub hang_up: HangUp,
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
    Device(Certified),
}

/// A device, as the certificate of its connection says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certified {
    pub key: KeyFingerprint,
    pub id: SpiffeId,
    /// Until when the certificate is valid. The handshake looked at it once; a connection may last longer.
    pub not_after: Timestamp,
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
            Presented::Device { key, id } => Self::Device(Certified {
                key,
                id,
                not_after: not_after(leaf)?,
            }),
        })
    }
}

impl Certified {
    /// Refuses once the certificate is not valid any more.
    pub fn check(&self, now: Timestamp) -> Result<(), Status> {
        if now <= self.not_after {
            Ok(())
        } else {
            Err(expired(self.not_after))
        }
    }
}

/// What a device is told whose certificate was valid until then.
pub fn expired(not_after: Timestamp) -> Status {
    Status::permission_denied(format!("the certificate expired at {not_after}"))
}

fn not_after(leaf: &CertificateDer<'_>) -> Result<Timestamp, Error> {
    let (_, certificate) =
        parse_x509_certificate(leaf).map_err(|_| CertificateError::BadEncoding)?;
    let seconds = certificate.validity().not_after.timestamp();
    // Beyond the last moment that can be written: what never expires is dated so.
    Ok(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

/// The peer that a request came from.
pub fn of<T>(request: &Request<T>) -> Result<&Arc<Peer>, Status> {
    request
        .extensions()
        .get::<Arc<Peer>>()
        .ok_or_else(|| Status::internal("served over a connection that names no peer"))
}

/// The device that a request came from; refuses everybody else.
pub fn device<T>(request: &Request<T>) -> Result<&Certified, Status> {
    match &of(request)?.identity {
        Identity::Device(certified) => Ok(certified),
        Identity::Enrollee { .. } => Err(Status::permission_denied(
            "enrol first: this certificate is self-signed",
        )),
    }
}
