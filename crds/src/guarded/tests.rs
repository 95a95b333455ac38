use kube::{
    ResourceExt as _,
    core::{ObjectList, WatchEvent},
};

use super::*;
use crate::{CapabilityInvocation, Device};

/// An invocation with that input, as an API server writes it.
fn with_input(name: &str, input: &str) -> String {
    format!(
        r#"{{"apiVersion":"fairlead.dev/v1alpha1","kind":"CapabilityInvocation",
        "metadata":{{"name":"{name}","namespace":"kitchen","uid":"{name}-uid","resourceVersion":"7","generation":2,
        "creationTimestamp":"2026-03-01T12:00:00Z"}},
        "spec":{{"deviceRef":{{"name":"lamp"}},"capability":"echo","input":{input}}},"status":{{"phase":"Queued"}}}}"#
    )
}

fn nested(depth: usize) -> String {
    format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
}

fn read(text: &str) -> Guarded<CapabilityInvocation> {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_object_that_is_nested_too_deeply_hides_no_other() {
    let list = format!(
        r#"{{"apiVersion":"v1","kind":"List","metadata":{{"resourceVersion":"9"}},"items":[{},{},{}]}}"#,
        with_input("first", "1"),
        with_input("deep", &nested(200)),
        with_input("last", &nested(20))
    );
    assert!(serde_json::from_str::<ObjectList<CapabilityInvocation>>(&list).is_err());
    let list: ObjectList<Guarded<CapabilityInvocation>> = serde_json::from_str(&list).unwrap();
    let read: Vec<_> = list
        .items
        .iter()
        .map(|object| (object.name_any(), object.0.is_ok()))
        .collect();
    assert_eq!(
        read,
        [
            ("first".to_owned(), true),
            ("deep".to_owned(), false),
            ("last".to_owned(), true)
        ]
    );
    let deep = list.items[1].0.as_ref().unwrap_err();
    assert!(deep.error.contains("recursion limit"), "{}", deep.error);
}

#[test]
fn an_event_of_an_object_that_is_nested_too_deeply_is_read() {
    let event = format!(
        r#"{{"type":"ADDED","object":{}}}"#,
        with_input("deep", &nested(5000))
    );
    let event: WatchEvent<Guarded<CapabilityInvocation>> = serde_json::from_str(&event).unwrap();
    let WatchEvent::Added(object) = event else {
        panic!("{event:?}")
    };
    assert!(object.0.is_err());
    let metadata = object.meta();
    assert_eq!(metadata.name.as_deref(), Some("deep"));
    assert_eq!(metadata.namespace.as_deref(), Some("kitchen"));
    assert_eq!(metadata.uid.as_deref(), Some("deep-uid"));
    assert_eq!(metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(metadata.generation, Some(2));
    assert_eq!(
        metadata.creation_timestamp.as_ref().unwrap().0.to_string(),
        "2026-03-01T12:00:00Z"
    );
}

#[test]
fn what_is_written_into_managed_fields_hides_nothing() {
    let deep = format!("{}{{}}{}", r#"{"f:a":"#.repeat(200), "}".repeat(200));
    for entry in [
        format!(r#"{{"manager":"kubectl","fieldsV1":{deep}}}"#),
        r#"{"manager":"kubectl","time":"9999-12-31T23:59:59Z"}"#.to_owned(),
    ] {
        let managed = format!(r#""managedFields":[{entry}],"labels":{{"a":"b"}},"name":"written""#);
        let object = with_input("written", "1").replace(r#""name":"written""#, &managed);
        let object = read(&object).0.unwrap();
        assert_eq!(object.name_any(), "written");
        assert_eq!(object.labels()["a"], "b");
        assert_eq!(object.spec.input, Some(1.into()));
        assert_eq!(object.metadata.managed_fields, None);
    }
}

#[test]
fn the_record_of_who_wrote_a_deep_field_is_skipped() {
    let deep = format!("{}{{}}{}", r#"{"f:a":"#.repeat(200), "}".repeat(200));
    let managed = format!(
        r#""managedFields":[{{"manager":"kubectl","fieldsV1":{deep}}}],"labels":{{"a":"b"}},"name":"deep""#
    );
    let object = with_input("deep", &nested(200)).replace(r#""name":"deep""#, &managed);
    let object = read(&object);
    assert_eq!(object.name_any(), "deep");
    assert_eq!(object.labels()["a"], "b");
    assert!(object.0.is_err());
}

#[test]
fn what_is_readable_is_read_as_it_is() {
    let text = with_input("plain", r#"{"say":["hello",1]}"#);
    let object = read(&text).0.unwrap();
    assert_eq!(object, serde_json::from_str(&text).unwrap());
    assert_eq!(object.spec.input.unwrap()["say"][1], 1);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let guarded: Guarded<CapabilityInvocation> = serde_json::from_value(value).unwrap();
    assert!(guarded.0.is_ok());
}

#[test]
fn an_error_tells_what_was_expected_and_nothing_of_what_is_there() {
    let device = |spec: &str| {
        let text = format!(r#"{{"metadata":{{"name":"lamp"}},"spec":{spec}}}"#);
        let device: Guarded<Device> = serde_json::from_str(&text).unwrap();
        device.0.unwrap_err().error
    };
    for (spec, expected) in [
        ("{}", "missing field `publicKeySha256`"),
        (r#"{"publicKeySha256":["hush"]}"#, "expected a string"),
        (
            r#"{"publicKeySha256":"","trust":"hush, expected hush"}"#,
            "expected one of `Active`",
        ),
        (
            r#"{"publicKeySha256":"","certificate":{"ttlSeconds":"hush"}}"#,
            "expected i64",
        ),
        (r#""hush""#, "expected struct DeviceSpec"),
    ] {
        let error = device(spec);
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("hush"), "{error}");
        assert!(error.contains("line 1 column "), "{error}");
    }
    // A moment that is none: the reader of moments quotes it in words of its own.
    let text = r#"{"metadata":{"name":"lamp"},"spec":{"publicKeySha256":""},"status":{"lastSeen":"hush"}}"#;
    let device: Guarded<Device> = serde_json::from_str(text).unwrap();
    let error = device.0.unwrap_err().error;
    assert!(!error.contains("hush"), "{error}");
}

#[test]
fn an_error_has_an_end() {
    let long = "x".repeat(10_000);
    for text in [
        format!("missing field `{long}` at line 1 column 1"),
        format!("unknown variant `a`, expected {long} at line 1 column 1"),
    ] {
        let error: serde_json::Error = serde::de::Error::custom(text);
        assert!(told(&error).chars().count() <= MAX_ERROR);
    }
}

#[test]
fn what_has_no_metadata_is_no_object() {
    for wrong in ["{}", "1", r#"{"metadata":"hush"}"#] {
        let error = serde_json::from_str::<Guarded<Device>>(wrong)
            .unwrap_err()
            .to_string();
        assert!(!error.contains("hush"), "{error}");
    }
}
