//! Whom the client believes to be the console.

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::Verifier;

use crate::error::{Error, Result};

/// Most certificates that are taken from one PEM text.
const MAX_CERTIFICATES: usize = 512;

/// The authorities that a console's certificate may come from.
#[derive(Clone, Default)]
pub enum Roots {
    /// Those of this machine.
    #[default]
    Platform,
    /// Those of this machine, and these (PEM).
    PlatformAnd(Vec<u8>),
    /// These alone (PEM): what the ConfigMap `fairlead-trust-bundle` holds, for instance.
    Only(Vec<u8>),
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Platform => "Platform",
            Self::PlatformAnd(_) => "PlatformAnd(..)",
            Self::Only(_) => "Only(..)",
        })
    }
}

/// TLS 1.2 and 1.3 (a load balancer may stand before the console), by one provider that is named here: a process-wide
/// default would depend on what else is linked in.
pub(crate) fn config(roots: &Roots) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let mut config = match roots {
        Roots::Only(pem) => {
            let mut store = RootCertStore::empty();
            for certificate in certificates(pem)? {
                store.add(certificate).map_err(|error| unusable(&error))?;
            }
            builder.with_root_certificates(store).with_no_client_auth()
        }
        Roots::Platform => with_platform(builder, Vec::new(), provider)?,
        Roots::PlatformAnd(pem) => with_platform(builder, certificates(pem)?, provider)?,
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn with_platform(
    builder: rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>,
    extra: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<ClientConfig> {
    let verifier =
        Verifier::new_with_extra_roots(extra, provider).map_err(|error| unusable(&error))?;
    // What verifies here is the platform's own verifier, with the platform's rules: nothing is left out.
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .take(MAX_CERTIFICATES)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| {
            Error::Usage(format!("the authorities' certificates are no PEM: {error}"))
        })?;
    if certificates.is_empty() {
        return Err(Error::Usage(
            "no certificate among the authorities: give PEM with BEGIN CERTIFICATE".to_owned(),
        ));
    }
    Ok(certificates)
}

fn unusable(error: &rustls::Error) -> Error {
    Error::Usage(format!("the authorities cannot be used: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_a_certificate_is_refused_with_what_to_give() {
        for bad in [
            "",
            "nonsense",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            let error = config(&Roots::Only(bad.as_bytes().to_vec())).unwrap_err();
            assert!(
                error.to_string().contains("BEGIN CERTIFICATE"),
                "{bad:?}: {error}"
            );
        }
    }
}
