//! TLS on the device port: 1.3 only, a client certificate always, nothing resumed.
//!
//! Certificate, key and roots are read anew when they are replaced; connections that stand are not touched.

use std::sync::Arc;

use anyhow::Context as _;
use pairing::{certificate::Presented, crypto};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{mounted::Current, pem::certificates};

/// The files of `--tls-dir`, in the order in which [`Material::parse`] takes them.
pub const FILES: &[&str] = &["tls.crt", "tls.key", "ca.crt"];

/// What we present, and whose certificates we accept.
#[derive(Debug)]
pub struct Material {
    own: Arc<CertifiedKey>,
    devices: Arc<dyn ClientCertVerifier>,
}

impl Material {
    /// Reads PEM: our chain and key, and the roots of the devices. Fails where they do not belong together.
    pub fn parse(files: &[Vec<u8>]) -> anyhow::Result<Self> {
        let [chain, key, roots] = files else {
            anyhow::bail!("expected {FILES:?}");
        };
        let chain = certificates(chain).context("read tls.crt")?;
        let key = PrivateKeyDer::from_pem_slice(key).context("read tls.key")?;
        // Checks that the key is that of the certificate.
        let own =
            CertifiedKey::from_der(chain, key, &crypto()).context("use tls.crt with tls.key")?;
        let roots = certificates(roots).context("read ca.crt")?;
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root).context("use ca.crt")?;
        }
        let devices = WebPkiClientVerifier::builder_with_provider(Arc::new(store), crypto())
            .build()
            .context("make a verifier of ca.crt")?;
        Ok(Self {
            own: Arc::new(own),
            devices,
        })
    }
}

/// TLS for devices and for those who want to become one. Handshakes fail until there is a [`Material`].
pub fn server(
    material: &Current<Material>,
    trust_domain: &str,
) -> Result<Arc<ServerConfig>, Error> {
    let verifier = PeerVerifier {
        material: material.clone(),
        trust_domain: trust_domain.to_owned(),
        algorithms: crypto().signature_verification_algorithms,
    };
    let mut tls = ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(Own(material.clone())));
    tls.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session skips the verifier, and so would outlive its certificate.
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    Ok(Arc::new(tls))
}

#[derive(Debug)]
struct Own(Current<Material>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0
            .borrow()
            .as_ref()
            .map(|material| Arc::clone(&material.own))
    }
}

/// Admits strangers with a certificate that they signed themselves, and devices with one of ours; nobody else.
#[derive(Debug)]
pub struct PeerVerifier {
    material: Current<Material>,
    trust_domain: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for PeerVerifier {
    /// Empty, for a client that heeds the hints would withhold its self-signed certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// The validity of a self-signed certificate is not looked at: only its key matters, and the clock of a device
    /// that was never paired may be wrong.
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match Presented::read(end_entity)? {
            Presented::SelfSigned { .. } => Ok(ClientCertVerified::assertion()),
            Presented::Device { id, .. } if id.trust_domain == self.trust_domain => {
                let material = self.material.borrow().clone();
                let Some(material) = material else {
                    return Err(Error::General("no roots yet".to_owned()));
                };
                material
                    .devices
                    .verify_client_cert(end_entity, intermediates, now)
            }
            // Signed by us, maybe, but for another world.
            Presented::Device { .. } => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    /// This is what proves that the client holds the key in its certificate.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
