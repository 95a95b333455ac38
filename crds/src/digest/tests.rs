use super::*;
use crate::v1alpha1::{
    DeclaredCapability, ObjectReference, PairingRequest, Platform,
    pairing_request::{Method, Source},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde_json::{Value, json};

fn spec() -> PairingRequestSpec {
    PairingRequestSpec {
        csr: Some("-----BEGIN CERTIFICATE REQUEST-----\n".to_owned()),
        public_key_sha256: Some("ab".repeat(32)),
        pairing_code_ref: Some(ObjectReference::new("lobby")),
        method: Method::Pin,
        requested_name: "kiosk-7".to_owned(),
        platform: Platform {
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            agent_version: "1.0.0".to_owned(),
            hostname: "kiosk".to_owned(),
        },
        capabilities: vec![DeclaredCapability {
            name: "echo".to_owned(),
            ..DeclaredCapability::default()
        }],
        source: Some(Source {
            gateway: "gateway-0".to_owned(),
            remote_address: "192.0.2.7".to_owned(),
        }),
        expires_at: Some(Time(Timestamp::from_second(1_800_000_000).unwrap())),
        ..PairingRequestSpec::default()
    }
}

/// The JSON as `jq -jcS .spec` writes it, and its digest as sha256sum gives it.
#[test]
fn the_digest_is_what_anybody_can_compute_from_the_object() {
    let canonical = concat!(
        r#"{"capabilities":[{"execution":"Automatic","name":"echo"}],"clientKind":"Node","#,
        r#""csr":"-----BEGIN CERTIFICATE REQUEST-----\n","expiresAt":"2027-01-15T08:00:00Z","keyCustody":"Device","#,
        r#""method":"Pin","pairingCodeRef":{"name":"lobby"},"#,
        r#""platform":{"agentVersion":"1.0.0","arch":"x86_64","hostname":"kiosk","os":"linux"},"#,
        r#""publicKeySha256":"abababababababababababababababababababababababababababababababab","#,
        r#""requestedName":"kiosk-7","source":{"gateway":"gateway-0","remoteAddress":"192.0.2.7"}}"#,
    );
    assert_eq!(
        serde_json_canonicalizer::to_string(&spec()).unwrap(),
        canonical
    );
    assert_eq!(
        of_spec(&spec()).unwrap(),
        "790ae5861b7c2a511ef79b73f9cf855b599c9f3fd2bd8fc53bd313c5e3c0bba8"
    );
}

#[test]
fn the_digest_survives_the_api_server() {
    let given = spec();
    let mut stored = serde_json::to_value(PairingRequest::new("x", given.clone())).unwrap();
    fill_defaults(&mut stored["spec"]);
    let read: PairingRequest = serde_json::from_value(stored).unwrap();
    assert_eq!(of_spec(&read.spec).unwrap(), of_spec(&given).unwrap());
}

#[test]
fn a_request_that_says_little_has_the_digest_of_what_the_api_server_makes_of_it() {
    let little = json!({"requestedName": "kiosk", "keyCustody": "Operator"});
    let mut stored = little.clone();
    fill_defaults(&mut stored);
    assert_ne!(little, stored);
    let digest = |value: Value| of_spec(&serde_json::from_value(value).unwrap()).unwrap();
    assert_eq!(digest(little), digest(stored.clone()));
    let shown = serde_json_canonicalizer::to_vec(&stored).unwrap();
    assert_eq!(
        digest(stored),
        hex::encode(Sha256::digest(shown)),
        "what kubectl shows has that digest"
    );
}

#[test]
fn a_change_of_any_field_changes_the_digest() {
    let original = serde_json::to_value(spec()).unwrap();
    let digest = |value: &Value| of_spec(&serde_json::from_value(value.clone()).unwrap()).unwrap();
    for (pointer, other) in [
        ("/csr", json!("other")),
        ("/publicKeySha256", json!("cd".repeat(32))),
        ("/keyCustody", json!("Operator")),
        ("/pairingCodeRef/name", json!("hall")),
        ("/method", json!("Qr")),
        ("/clientKind", json!("Cli")),
        ("/requestedName", json!("kiosk-8")),
        ("/platform/hostname", json!("other")),
        ("/capabilities/0/name", json!("system.health")),
        ("/capabilities/0/execution", json!("Mediated")),
        ("/source/remoteAddress", json!("192.0.2.8")),
        ("/expiresAt", json!("2027-01-15T08:00:01Z")),
    ] {
        let mut changed = original.clone();
        *changed.pointer_mut(pointer).unwrap() = other;
        assert_ne!(digest(&changed), digest(&original), "{pointer}");
    }
}

#[test]
fn a_request_is_named_by_128_bits_of_its_digest() {
    let digest = of_spec(&spec()).unwrap();
    let name = request_name(&digest);
    assert_eq!(name, format!("preq-{}", &digest[..32]));
    assert_eq!(request_name("short"), "preq-short");
}

/// What an API server does with the defaults of the schema: it fills what is absent in an object that is there.
fn fill_defaults(spec: &mut Value) {
    let definitions = serde_json::to_value(crate::definition::definitions()).unwrap();
    let kind = definitions
        .as_array()
        .unwrap()
        .iter()
        .find(|definition| definition["spec"]["names"]["kind"] == "PairingRequest")
        .unwrap();
    let root = &kind["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    fill(spec, &root["properties"]["spec"]);
}

fn fill(value: &mut Value, schema: &Value) {
    if let Value::Object(map) = value {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            if let (false, Some(default)) = (map.contains_key(name), property.get("default")) {
                map.insert(name.clone(), default.clone());
            }
            if let Some(value) = map.get_mut(name) {
                fill(value, property);
            }
        }
    }
    if let Value::Array(items) = value {
        for item in items {
            fill(item, &schema["items"]);
        }
    }
}
