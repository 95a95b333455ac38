//! What operator, gateway and agent must agree on when a device pairs.
//!
//! In the order of the story:
//!
//! - [`code`]: the code that a person carries from the cluster to the device;
//! - [`uri`]: the code as a QR code carries it, with the gateway's address and the authority's pin;
//! - [`opaque`]: the proof that both ends know the code, which never crosses the wire (RFC 9807);
//! - [`exporter`]: what ties that proof to one TLS connection (RFC 8446, section 7.5);
//! - [`key`]: the name of a key, which is a device's identity;
//! - [`certificate`]: what a client certificate says: a stranger's or a device's;
//! - [`spiffe`]: the name that a device's certificate carries;
//! - [`bundle`]: the authorities that a device trusts, signed so that a gateway cannot change them.
//!
//! No I/O, no async, no Kubernetes, no gRPC.

pub mod bundle;
pub mod certificate;
pub mod code;
pub mod exporter;
pub mod key;
pub mod opaque;
pub mod spiffe;
pub mod uri;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The cryptography of every TLS connection of ours. Named wherever it is needed: a process-wide default would depend
/// on what else is linked in.
pub fn crypto() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
