//! A pairing in progress: what it takes to go on with it after a stop.

use pairing::key::KeyFingerprint;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `pairing.json`. Never holds the secret of a code: once the gateway is proved, the key is the ticket.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pairing {
    /// `HOST:PORT` of the gateway.
    pub gateway: String,
    /// The authority that the gateway's certificate comes from: read from a URI, or learnt from the gateway after it
    /// proved that it knows the code. Without it nobody may be asked for the certificate, for anybody could answer.
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub authority: KeyFingerprint,
    pub method: Method,
    /// Public half of the code.
    pub code_id: String,
    /// The name that this device asks for.
    pub requested_name: String,
    /// Known once the gateway told.
    pub request: Option<Request>,
}

/// How the code came to this device.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Method {
    /// Typed: the authority was learnt, not given.
    Pin,
    /// By a URI that pins the authority.
    Qr,
}

/// The PairingRequest that an approver sees.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Request {
    pub namespace: String,
    pub name: String,
}

/// A pairing that is on the disk. The proof of a code leaves this device, and an interrupted pairing goes on, with one
/// of these in the hand only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Saved(Pairing);

impl Saved {
    /// For who read or wrote the file.
    pub(super) fn loaded(pairing: Pairing) -> Self {
        Self(pairing)
    }

    pub fn pairing(&self) -> &Pairing {
        &self.0
    }
}

fn to_hex<S: Serializer>(pin: &KeyFingerprint, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(pin)
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KeyFingerprint, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(de::Error::custom)
}

#[cfg(test)]
impl Pairing {
    pub(crate) fn for_tests() -> Self {
        Self {
            gateway: "127.0.0.1:7443".to_owned(),
            authority: KeyFingerprint::of_spki(b"authority"),
            method: Method::Pin,
            code_id: "7KQ2".to_owned(),
            requested_name: "lamp".to_owned(),
            request: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let pairing = Pairing {
            request: Some(Request {
                namespace: "kitchen".to_owned(),
                name: "preq-1".to_owned(),
            }),
            ..Pairing::for_tests()
        };
        let text = serde_json::to_string(&pairing).unwrap();
        assert_eq!(serde_json::from_str::<Pairing>(&text).unwrap(), pairing);
    }
}
