//! `spiffe://TRUST_DOMAIN/ns/NAMESPACE/device/NAME`: the name that a device's certificate carries.

use std::{fmt, str::FromStr};

/// Who a device is, as its certificate says.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SpiffeId {
    pub trust_domain: String,
    /// Namespace of the Device.
    pub namespace: String,
    /// Name of the Device.
    pub device: String,
}

/// A URI is no SPIFFE id of a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not spiffe://TRUST_DOMAIN/ns/NAMESPACE/device/NAME")]
pub struct ParseError;

impl SpiffeId {
    /// Fails where a part cannot stand in a URI.
    pub fn new(trust_domain: &str, namespace: &str, device: &str) -> Result<Self, ParseError> {
        [trust_domain, namespace, device]
            .into_iter()
            .all(is_segment)
            .then(|| Self {
                trust_domain: trust_domain.to_owned(),
                namespace: namespace.to_owned(),
                device: device.to_owned(),
            })
            .ok_or(ParseError)
    }
}

impl FromStr for SpiffeId {
    type Err = ParseError;

    fn from_str(uri: &str) -> Result<Self, ParseError> {
        let mut parts = uri
            .strip_prefix("spiffe://")
            .ok_or(ParseError)?
            .splitn(6, '/');
        match [
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ] {
            [
                Some(trust_domain),
                Some("ns"),
                Some(namespace),
                Some("device"),
                Some(device),
                None,
            ] => Self::new(trust_domain, namespace, device),
            _ => Err(ParseError),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/device/{}",
            self.trust_domain, self.namespace, self.device
        )
    }
}

fn is_segment(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && !matches!(text, "." | "..")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_devices_are_read() {
        let lamp = "spiffe://home.example/ns/kitchen/device/lamp-1";
        assert_eq!(lamp.parse::<SpiffeId>().unwrap().to_string(), lamp);
        for other in [
            "spiffe://home.example/ns/kitchen/service/lamp-1",
            "spiffe://home.example/ns/kitchen/device/",
            "spiffe://home.example/ns/kitchen/device/lamp/1",
            "spiffe://home.example/ns//device/lamp",
            "spiffe://home.example/ns/kit chen/device/lamp",
            "spiffe://home.example/ns/../device/lamp",
            "https://home.example/ns/kitchen/device/lamp",
        ] {
            assert_eq!(other.parse::<SpiffeId>(), Err(ParseError), "{other}");
        }
    }
}
