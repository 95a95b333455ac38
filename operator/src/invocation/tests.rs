//! An invocation that cannot be read, against a pretended API server.

use std::sync::Mutex;

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::*;
use crate::{context::tests::context, watch::Guard};

/// An invocation whose input is nested so deeply, as an API server writes it.
fn nested(depth: usize) -> String {
    let input = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    format!(
        r#"{{"apiVersion":"fairlead.dev/v1alpha1","kind":"CapabilityInvocation",
        "metadata":{{"name":"deep","namespace":"kitchen","resourceVersion":"7","generation":1}},
        "spec":{{"deviceRef":{{"name":"lamp"}},"capability":"echo","input":{input}}}}}"#
    )
}

#[tokio::test]
async fn an_open_invocation_that_cannot_be_read_is_ended_once() {
    let writes: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
    let seen = Arc::clone(&writes);
    let service = tower::service_fn(move |request: Request<Body>| {
        let seen = Arc::clone(&seen);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            assert_eq!(parts.method, Method::PATCH);
            let patch = serde_json::from_slice(&body)?;
            seen.lock()
                .unwrap()
                .push((parts.uri.path().to_owned(), patch));
            // The server answers with the object, which is as deep as it was.
            anyhow::Ok(Response::new(Body::from(nested(200).into_bytes())))
        }
    });
    let context = Arc::new(context(Client::new(service, "system")));
    let object: Guard<CapabilityInvocation> = serde_json::from_str(&nested(200)).unwrap();
    let invalid = object.0.unwrap_err();
    CapabilityInvocation::unreadable(invalid, context)
        .await
        .unwrap();
    let writes = writes.lock().unwrap();
    let [(place, patch)] = writes.as_slice() else {
        panic!("{writes:?}")
    };
    assert_eq!(
        place,
        "/apis/fairlead.dev/v1alpha1/namespaces/kitchen/capabilityinvocations/deep/status"
    );
    assert_eq!(patch["metadata"], json!({ "resourceVersion": "7" }));
    let status = &patch["status"];
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["error"]["code"], "InvalidInput");
    let message = status["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("nested too deeply or not readable: recursion limit exceeded"),
        "{message}"
    );
    assert_eq!(status["conditions"][0]["reason"], "InvalidInput");
}
