//! What a device asks for, read and bounded: after this, the spec of a request that the API server takes.

use crds::v1alpha1::{
    ClientKind, ObjectReference, PairingRequestSpec,
    pairing_request::{KeyCustody, Method, Source},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pairing::key::KeyFingerprint;
use proto::node;

use crate::{
    csr,
    domain::{register, words::is_one_line},
};

/// Longest PKCS#10, in bytes of DER: its PEM must fit the schema.
const MAX_CSR: usize = 5 * 1024;
const MAX_NAME: usize = 253;

/// What is wrong with an application. The text is for who writes agents, and for the person at the device.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    #[error(transparent)]
    Csr(#[from] csr::Invalid),
    #[error("requested_name is {0} bytes long, 1 to {MAX_NAME} may be")]
    NameLength(usize),
    #[error("{0} has control characters in it")]
    ControlCharacters(&'static str),
    #[error("client_kind is missing, or newer than this gateway")]
    ClientKind,
    #[error("method is missing, or none that pairs with a code")]
    Method,
    #[error(transparent)]
    Declared(#[from] register::Invalid),
}

/// What the gateway adds.
#[derive(Clone, Debug)]
pub struct Circumstances<'a> {
    /// The key that TLS proved.
    pub key: KeyFingerprint,
    /// Name of the code that was proved.
    pub code: &'a str,
    pub gateway: &'a str,
    pub remote_address: String,
    /// Cut to whole seconds, as the API server keeps it: the request's name is the digest of what it will show.
    pub expires_at: Timestamp,
}

/// Reads an application.
pub fn read(
    application: node::Application,
    around: Circumstances<'_>,
) -> Result<PairingRequestSpec, Invalid> {
    let node::Application {
        pkcs10,
        requested_name,
        client_kind,
        method,
        platform,
        capabilities,
    } = application;
    let csr = csr::read(&pkcs10, &around.key, MAX_CSR)?;
    if !(1..=MAX_NAME).contains(&requested_name.len()) {
        return Err(Invalid::NameLength(requested_name.len()));
    }
    let declared = register::read(node::RegisterRequest {
        platform,
        capabilities,
        ..node::RegisterRequest::default()
    })?;
    if !is_one_line(&requested_name) {
        return Err(Invalid::ControlCharacters("requested_name"));
    }
    Ok(PairingRequestSpec {
        csr: Some(csr),
        public_key_sha256: Some(around.key.to_string()),
        key_custody: KeyCustody::Device,
        pairing_code_ref: Some(ObjectReference::new(around.code)),
        method: read_method(method).ok_or(Invalid::Method)?,
        client_kind: read_client_kind(client_kind).ok_or(Invalid::ClientKind)?,
        requested_name,
        platform: declared.platform,
        capabilities: declared
            .capabilities
            .into_iter()
            .map(|(capability, _)| capability)
            .collect(),
        source: Some(Source {
            gateway: around.gateway.to_owned(),
            remote_address: around.remote_address,
        }),
        requested_by: None,
        expires_at: Some(Time(whole_seconds(around.expires_at))),
    })
}

fn read_method(method: i32) -> Option<Method> {
    match node::PairingMethod::try_from(method).ok()? {
        node::PairingMethod::Unspecified => None,
        node::PairingMethod::Pin => Some(Method::Pin),
        node::PairingMethod::Qr => Some(Method::Qr),
    }
}

fn read_client_kind(kind: i32) -> Option<ClientKind> {
    match node::ClientKind::try_from(kind).ok()? {
        node::ClientKind::Unspecified => None,
        node::ClientKind::Node => Some(ClientKind::Node),
        node::ClientKind::Desktop => Some(ClientKind::Desktop),
        node::ClientKind::Cli => Some(ClientKind::Cli),
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};

    use super::*;
    use crate::pem;

    fn key() -> (KeyPair, KeyFingerprint) {
        let pair = KeyPair::generate().unwrap();
        let fingerprint = KeyFingerprint::of_spki(&pair.subject_public_key_info());
        (pair, fingerprint)
    }

    fn pkcs10(pair: &KeyPair) -> Vec<u8> {
        CertificateParams::default()
            .serialize_request(pair)
            .unwrap()
            .der()
            .to_vec()
    }

    fn minimal_application(pkcs10: Vec<u8>) -> node::Application {
        node::Application {
            pkcs10,
            requested_name: "kiosk".to_owned(),
            client_kind: node::ClientKind::Node.into(),
            method: node::PairingMethod::Pin.into(),
            platform: None,
            capabilities: Vec::new(),
        }
    }

    fn around(key: KeyFingerprint) -> Circumstances<'static> {
        Circumstances {
            key,
            code: "lobby",
            gateway: "gateway-0",
            remote_address: "192.0.2.7".to_owned(),
            expires_at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        }
    }

    #[test]
    fn the_spec_shows_what_the_device_said_and_what_the_gateway_saw() {
        let (pair, key) = key();
        let pkcs10 = pkcs10(&pair);
        let spec = read(minimal_application(pkcs10.clone()), around(key)).unwrap();
        assert_eq!(spec.csr, Some(pem::certificate_request(&pkcs10)));
        assert_eq!(spec.public_key_sha256, Some(key.to_string()));
        assert_eq!(spec.requested_by, None);
        assert_eq!(
            spec.expires_at.unwrap().0,
            "2026-01-02T03:04:05Z".parse().unwrap()
        );
        assert_eq!(spec.source.unwrap().remote_address, "192.0.2.7");
    }

    #[test]
    fn the_name_of_a_request_survives_the_api_server() {
        let (pair, key) = key();
        let mut application = minimal_application(pkcs10(&pair));
        application.capabilities = vec![node::Capability {
            name: "door.open".to_owned(),
            input_schema: br#"{ "type": "string" }"#.to_vec(),
            concurrency: 1,
            ..node::Capability::default()
        }];
        let spec = read(application, around(key)).unwrap();
        assert_eq!(
            spec.capabilities[0].input_schema.as_deref(),
            Some(r#"{"type":"string"}"#),
            "who approves sees what it takes"
        );
        let stored: PairingRequestSpec =
            serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
        assert_eq!(
            crds::digest::of_spec(&stored).unwrap(),
            crds::digest::of_spec(&spec).unwrap()
        );
    }

    #[test]
    fn a_signing_request_for_another_key_is_refused() {
        let (pair, _) = key();
        let (_, other) = key();
        assert_eq!(
            read(minimal_application(pkcs10(&pair)), around(other)),
            Err(Invalid::Csr(csr::Invalid::AnotherKey))
        );
    }

    #[test]
    fn what_the_schema_would_refuse_is_refused_with_a_reason() {
        type Change = fn(&mut node::Application);
        let (pair, key) = key();
        let rows: [(Change, Invalid); 10] = [
            (|a| a.requested_name = String::new(), Invalid::NameLength(0)),
            (
                |a| a.requested_name = "n".repeat(254),
                Invalid::NameLength(254),
            ),
            (
                |a| a.requested_name = "kiosk\u{1b}[2J".to_owned(),
                Invalid::ControlCharacters("requested_name"),
            ),
            (
                |a| a.requested_name = "kiosk\u{202e}1".to_owned(),
                Invalid::ControlCharacters("requested_name"),
            ),
            (
                |a| {
                    a.platform = Some(node::Platform {
                        hostname: "a\nb".to_owned(),
                        ..node::Platform::default()
                    });
                },
                Invalid::Declared(register::Invalid::NotOneLine { field: "hostname" }),
            ),
            (|a| a.client_kind = 0, Invalid::ClientKind),
            (|a| a.client_kind = 17, Invalid::ClientKind),
            (|a| a.method = 0, Invalid::Method),
            (
                |a| {
                    a.capabilities = vec![node::Capability {
                        name: "Echo".to_owned(),
                        ..node::Capability::default()
                    }];
                },
                Invalid::Declared(register::Invalid::CapabilityName { index: 0 }),
            ),
            (
                |a| {
                    a.capabilities = vec![node::Capability {
                        name: "echo".to_owned(),
                        concurrency: 65,
                        ..node::Capability::default()
                    }];
                },
                Invalid::Declared(register::Invalid::Capability {
                    name: "echo".to_owned(),
                    what: "concurrency is 65, 64 at most".to_owned(),
                }),
            ),
        ];
        for (change, expected) in rows {
            let mut application = minimal_application(pkcs10(&pair));
            change(&mut application);
            assert_eq!(read(application, around(key)), Err(expected));
        }
    }

    #[test]
    fn the_largest_signing_request_fits_the_schema() {
        assert!(pem::certificate_request(&[0; MAX_CSR]).len() <= 8192);
    }
}
