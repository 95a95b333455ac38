//! Judges a server that this device has never met, by its [`Trust`] and nothing else.

use std::sync::Arc;

use pairing::key::KeyFingerprint;
use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use crate::{state::identity::roots_of, upstream::connect::trusting};

/// What a device knows about the gateway before they meet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trust {
    /// The key of its authority.
    Pin(KeyFingerprint),
    /// Nothing: a person typed the code, and only the code can tell the gateway from a relay.
    CodeOnly,
}

/// Not public: the only way from [`Trust::CodeOnly`] to a connection is [`super::dial`].
#[derive(Debug)]
pub(super) struct FirstContact {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl FirstContact {
    pub(super) fn new(trust: Trust) -> Arc<Self> {
        Arc::new(Self {
            trust,
            algorithms: pairing::crypto().signature_verification_algorithms,
        })
    }
}

impl ServerCertVerifier for FirstContact {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        match self.trust {
            Trust::CodeOnly => {
                ParsedCertificate::try_from(end_entity)?;
                Ok(ServerCertVerified::assertion())
            }
            Trust::Pin(pin) => {
                // The pin finds the authority in what the server sent; that the leaf comes from it is then proved as
                // for any other root. Without this second half anybody could send the public authority along.
                let authority = intermediates
                    .iter()
                    .find(|der| KeyFingerprint::of_certificate(der) == Ok(pin))
                    .ok_or(CertificateError::UnknownIssuer)?;
                trusting(roots_of([authority.clone().into_owned()])?)?.verify_server_cert(
                    end_entity,
                    intermediates,
                    server_name,
                    ocsp_response,
                    now,
                )
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("TLS 1.3 only".into()))
    }

    /// Proves that the server holds the key in its certificate, whoever it is.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The authority of a gateway that has just proved that it knows the code: the certificate in its chain that a gateway's
/// certificate can be verified against. `None` where the gateway did not send one, or sent one that is not its own.
pub(super) fn authority_of(
    presented: &[CertificateDer<'static>],
    now: UnixTime,
) -> Option<KeyFingerprint> {
    let (leaf, others) = presented.split_first()?;
    let name = ServerName::try_from(proto::SERVER_NAME).ok()?;
    others.iter().find_map(|candidate| {
        let roots = roots_of([candidate.clone()]).ok()?;
        trusting(roots)
            .ok()?
            .verify_server_cert(leaf, others, &name, &[], now)
            .ok()?;
        KeyFingerprint::of_certificate(candidate).ok()
    })
}
