//! Through the translator and back, with a service behind it that speaks gRPC.

use std::{convert::Infallible, sync::Mutex};

use bytes::Bytes;
use futures::channel::mpsc;
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use http_body::{Body as HttpBody, Frame};
use proto::node::{Dispatch, Heartbeat, Result as Outcome, device_event, gateway_event};
use tower::{ServiceExt as _, service_fn};

use super::*;

/// A body whose frames somebody else sends.
struct Channel(mpsc::UnboundedReceiver<Frame<Bytes>>);

impl HttpBody for Channel {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        futures::Stream::poll_next(Pin::new(&mut self.0), cx).map(|frame| frame.map(Ok))
    }
}

fn body(pieces: &[&[u8]]) -> Body {
    let (sender, receiver) = mpsc::unbounded();
    for piece in pieces {
        sender
            .unbounded_send(Frame::data(Bytes::copy_from_slice(piece)))
            .unwrap();
    }
    Body::new(Channel(receiver))
}

async fn collect(mut body: Body) -> Result<Vec<u8>, Status> {
    let mut all = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(bytes) = frame?.into_data() {
            all.extend_from_slice(&bytes);
        }
    }
    Ok(all)
}

fn frame(message: &impl prost::Message) -> Vec<u8> {
    let mut frame = vec![0];
    let bytes = message.encode_to_vec();
    frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame
}

fn post(path: &str, media_type: &str, body: Body) -> Request<Body> {
    Request::post(format!("https://gateway.fairlead.internal{path}"))
        .header(CONTENT_TYPE, media_type)
        .body(body)
        .unwrap()
}

/// What came through, and how it was answered.
async fn translate(
    request: Request<Body>,
    answer: impl Fn() -> Response<Body> + Send + Sync + 'static,
) -> (Result<Vec<u8>, Status>, Response<Body>) {
    let heard = Arc::new(Mutex::new(None));
    let told = Arc::clone(&heard);
    let answer = Arc::new(answer);
    let service = service_fn(move |request: Request<Body>| {
        let (told, answer) = (Arc::clone(&told), Arc::clone(&answer));
        async move {
            let content_type = request.headers().get(CONTENT_TYPE).cloned();
            assert_eq!(content_type, Some(GRPC));
            assert!(
                request
                    .uri()
                    .path()
                    .starts_with("/fairlead.node.v1.NodeService/")
            );
            *told.lock().unwrap() = Some(collect(request.into_body()).await);
            Ok::<_, Infallible>(answer())
        }
    });
    let response = JsonLayer::new(1024 * 1024)
        .layer(service)
        .oneshot(request)
        .await
        .unwrap();
    let heard = heard.lock().unwrap().take();
    (heard.unwrap_or_else(|| Ok(Vec::new())), response)
}

fn ok(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

#[tokio::test]
async fn lines_become_messages_wherever_they_are_cut() {
    let text = b"{\"hello\":{\"registration\":\"r\"}}\r\n\n{\"result\":{\"uid\":\"u\",\"outcome\":\"OUTCOME_SUCCEEDED\",\"output\":\"e30=\"}}\n{\"heartbeat\":{}}";
    let events = [
        device_event::Event::Hello(proto::node::Hello {
            registration: "r".to_owned(),
        }),
        device_event::Event::Result(Outcome {
            uid: "u".to_owned(),
            outcome: proto::node::Outcome::Succeeded.into(),
            output: b"{}".to_vec(),
            ..Outcome::default()
        }),
        device_event::Event::Heartbeat(Heartbeat {}),
    ];
    let expected: Vec<u8> = events
        .into_iter()
        .flat_map(|event| frame(&DeviceEvent { event: Some(event) }))
        .collect();
    for cut in 0..text.len() {
        let (before, after) = text.split_at(cut);
        let request = post(EVENT_STREAM, NDJSON, body(&[before, after]));
        let (heard, _) = translate(request, || ok(Body::empty())).await;
        assert_eq!(heard.unwrap(), expected, "cut at {cut}");
    }
}

#[tokio::test]
async fn what_is_answered_becomes_lines_and_the_reason_of_the_end_the_last_one() {
    let dispatch = GatewayEvent {
        event: Some(gateway_event::Event::Dispatch(Dispatch {
            uid: "u".to_owned(),
            input: b"[1]".to_vec(),
            ..Dispatch::default()
        })),
    };
    let answer = move || {
        let (sender, receiver) = mpsc::unbounded();
        let bytes = frame(&dispatch);
        let (before, after) = bytes.split_at(3);
        for piece in [before, after] {
            sender
                .unbounded_send(Frame::data(Bytes::copy_from_slice(piece)))
                .unwrap();
        }
        let mut trailers = HeaderMap::new();
        Status::aborted("a newer stream")
            .add_header(&mut trailers)
            .unwrap();
        sender.unbounded_send(Frame::trailers(trailers)).unwrap();
        ok(Body::new(Channel(receiver)))
    };
    let request = post(
        EVENT_STREAM,
        "application/x-ndjson; charset=utf-8",
        body(&[]),
    );
    let (_, response) = translate(request, answer).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[CONTENT_TYPE], NDJSON);
    let text = String::from_utf8(collect(response.into_body()).await.unwrap()).unwrap();
    assert_eq!(
        text,
        "{\"dispatch\":{\"uid\":\"u\",\"input\":\"WzFd\"}}\n\
         {\"error\":{\"code\":\"ABORTED\",\"message\":\"a newer stream\"}}\n"
    );
}

#[tokio::test]
async fn a_registration_is_one_object_both_ways() {
    let (before, after) = (
        b"{\"platform\":{\"os\":\"li" as &[u8],
        b"nux\"},\n\"concurrency\":3}" as &[u8],
    );
    let request = post(REGISTER, JSON, body(&[before, after]));
    let (heard, response) = translate(request, || {
        ok(body(&[&frame(&RegisterResponse {
            namespace: "kitchen".to_owned(),
            ..RegisterResponse::default()
        })]))
    })
    .await;
    let expected = RegisterRequest {
        platform: Some(proto::node::Platform {
            os: "linux".to_owned(),
            ..Default::default()
        }),
        concurrency: 3,
        ..RegisterRequest::default()
    };
    assert_eq!(heard.unwrap(), frame(&expected));
    assert_eq!(
        collect(response.into_body()).await.unwrap(),
        b"{\"namespace\":\"kitchen\"}"
    );
}

#[tokio::test]
async fn a_line_that_cannot_be_read_is_named() {
    let request = post(
        EVENT_STREAM,
        NDJSON,
        body(&[b"{\"heartbeat\":{}}\n{\"heartbeet\":{}}\n"]),
    );
    let (heard, _) = translate(request, || ok(Body::empty())).await;
    let status = heard.unwrap_err();
    // The code that a stream takes for a malformed message.
    assert_eq!(status.code(), Code::Internal);
    assert!(
        status
            .message()
            .starts_with("line 2 cannot be read: unknown field `heartbeet`"),
        "{status:?}"
    );
}

#[tokio::test]
async fn a_line_without_an_end_is_cut_off() {
    let piece = vec![b'x'; 64 * 1024];
    let pieces: Vec<&[u8]> = std::iter::repeat_n(piece.as_slice(), 8).collect();
    let (heard, _) = translate(post(EVENT_STREAM, NDJSON, body(&pieces)), || {
        ok(Body::empty())
    })
    .await;
    assert_eq!(heard.unwrap_err().code(), Code::OutOfRange);
    let (heard, _) = translate(post(REGISTER, JSON, body(&pieces)), || ok(Body::empty())).await;
    assert_eq!(heard.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn long_lines_take_memory_out_of_one_store() {
    let memory = Arc::new(Semaphore::new(500));
    let long = vec![b'x'; 16 * 1024];
    let lines = || {
        let (sender, receiver) = mpsc::unbounded();
        sender
            .unbounded_send(Frame::data(Bytes::copy_from_slice(&long)))
            .unwrap();
        let lines = Lines::new(
            Body::new(Channel(receiver)),
            Said::Many(lines::read::<DeviceEvent>),
            &memory,
        );
        // The sender is kept: the line does not end.
        (sender, Box::pin(lines))
    };
    let (_first_sender, mut first) = lines();
    assert!(futures::poll!(std::future::poll_fn(|cx| first.as_mut().poll_frame(cx))).is_pending());
    let (_second_sender, mut second) = lines();
    let refused = std::future::poll_fn(|cx| second.as_mut().poll_frame(cx)).await;
    assert_eq!(
        refused.unwrap().unwrap_err().code(),
        Code::ResourceExhausted
    );
    let late = std::future::poll_fn(|cx| first.as_mut().poll_frame(cx)).await;
    assert_eq!(late.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_refusal_has_a_status_of_http_and_says_when_to_come_back() {
    let request = post(REGISTER, JSON, body(&[b"{}"]));
    let (_, response) = translate(request, || {
        crate::status::full("full", std::time::Duration::from_secs(5)).into_http()
    })
    .await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = response.headers()[RETRY_AFTER]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((5..=8).contains(&wait), "{wait}");
    let body: serde_json::Value =
        serde_json::from_slice(&collect(response.into_body()).await.unwrap()).unwrap();
    assert_eq!(body["error"]["code"], "RESOURCE_EXHAUSTED");
    assert!(body["error"]["retryAfterMs"].is_u64());
}

#[tokio::test]
async fn what_is_no_post_of_json_does_not_come_through() {
    let form = post(
        REGISTER,
        "application/x-www-form-urlencoded",
        body(&[b"{}"]),
    );
    let (heard, response) = translate(form, || unreachable!("refused before")).await;
    assert!(heard.unwrap().is_empty());
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let mut get = post(REGISTER, JSON, Body::empty());
    *get.method_mut() = Method::GET;
    let (_, response) = translate(get, || unreachable!("refused before")).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()[ALLOW], "POST");
}

#[tokio::test]
async fn other_paths_are_left_alone() {
    let service = service_fn(|request: Request<Body>| async move {
        assert_eq!(
            request.uri().path(),
            "/fairlead.node.v1.NodeService/Register"
        );
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let request = post(
        "/fairlead.node.v1.NodeService/Register",
        "application/grpc",
        Body::empty(),
    );
    let response = JsonLayer::new(1)
        .layer(service)
        .oneshot(request)
        .await
        .unwrap();
    assert!(response.headers().is_empty());
}
