//! What ties the proof of a code to one TLS connection.

use std::fmt;

use rustls::{ConnectionCommon, Error};

/// A secret that only the two ends of one TLS connection can derive (RFC 8446, section 7.5). A relay that ends TLS
/// itself has two connections and so two different ones.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Exporter([u8; 32]);

impl Exporter {
    const LABEL: &[u8] = b"EXPORTER-fairlead-pairing";

    /// Fails before the handshake is over.
    pub fn of<Side>(connection: &ConnectionCommon<Side>) -> Result<Self, Error> {
        connection
            .export_keying_material([0; 32], Self::LABEL, None)
            .map(Self)
    }

    /// For a peer that is not at the other end of a TLS connection of ours: tests and benchmarks.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter(..)")
    }
}
