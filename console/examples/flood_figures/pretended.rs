//! An API server without objects, to which the token `ada` is a user's.

use std::convert::Infallible;

use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

pub fn client() -> kube::Client {
    let service = tower::service_fn(|request: Request<kube::client::Body>| async {
        Ok::<_, Infallible>(answer(request).await)
    });
    kube::Client::new(service, "default")
}

async fn answer(request: Request<kube::client::Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if parts
        .uri
        .query()
        .is_some_and(|query| query.contains("watch=true"))
    {
        let silent = futures::stream::pending::<Result<bytes::Bytes, Infallible>>();
        return Response::new(Body::from_stream(silent));
    }
    let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "1" }, "items": [] });
    if !parts.uri.path().ends_with("/tokenreviews") {
        return Response::new(Body::from(list.to_string()));
    }
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let mut review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let is_user = review["spec"]["token"] == "ada";
    review["status"] = if is_user {
        json!({ "authenticated": true, "user": { "username": "ada" } })
    } else {
        json!({ "authenticated": false })
    };
    Response::new(Body::from(review.to_string()))
}
