//! Stores of clouds: that what is configured is one of them, and that what we ask of S3 is what S3 takes.
//!
//! The S3 here is on loopback and in memory, and as strict as the real one where that counts: requests are signed, all
//! pieces but the last are of 5 MiB, and what is not complete is nowhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, Response, Uri, header},
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{
    Assembled, Store,
    tests::{bytes, parts},
};
use crate::domain::{
    artefact::{ARTEFACTS, PART, tests::place},
    result::hex,
};

const MADE_UP: &str = "c2VjcmV0IHRoYXQgaXMgbm9uZQ==";

fn open(url: &str, variables: &[(&str, &str)]) -> Result<Store, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Store::with(url, variables.iter().map(owned)).map_err(|error| error.to_string())
}

#[test]
fn a_cloud_is_opened_by_each_form_of_its_url() {
    let amazon = [
        ("AWS_ACCESS_KEY_ID", "made-up"),
        ("AWS_SECRET_ACCESS_KEY", MADE_UP),
        ("AWS_REGION", "eu-central-1"),
    ];
    let google = [("GOOGLE_SKIP_SIGNATURE", "true")];
    let azure = [
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("AZURE_STORAGE_ACCOUNT_KEY", MADE_UP),
    ];
    let rows: [(&str, &[(&str, &str)]); 7] = [
        ("s3://bucket", &amazon),
        ("s3://bucket/some/prefix", &amazon),
        ("gs://bucket/prefix", &google),
        ("az://container/prefix", &azure),
        (
            "abfss://container@account.dfs.core.windows.net/prefix",
            &azure,
        ),
        (
            "https://account.blob.core.windows.net/container/prefix",
            &azure,
        ),
        (
            "https://s3.eu-central-1.amazonaws.com/bucket/prefix",
            &amazon,
        ),
    ];
    for (url, variables) in rows {
        let store = open(url, variables).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(format!("{store:?}"), "Store", "it may know a secret");
    }
}

#[test]
fn a_cloud_without_what_it_needs_says_what_and_no_value() {
    let error = open(
        "az://container/prefix",
        &[("AZURE_STORAGE_ACCOUNT_KEY", MADE_UP)],
    );
    let error = error.unwrap_err();
    assert!(error.to_lowercase().contains("account"), "{error}");
    assert!(!error.contains(MADE_UP), "{error}");
}

/// An S3 with one bucket.
#[derive(Clone, Default)]
struct S3(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    uploads: BTreeMap<String, Upload>,
    begun: u32,
    /// What was asked: `PUT part`.
    asked: BTreeSet<&'static str>,
}

struct Upload {
    key: String,
    pieces: BTreeMap<u32, Bytes>,
}

impl S3 {
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        assert_signed(&head.headers, &body);
        let query = query_of(&head.uri);
        let query = |name: &str| query.get(name).map(String::as_str);
        let key = head.uri.path().strip_prefix("/bucket").unwrap();
        let key = key.trim_start_matches('/').to_owned();
        let mut state = self.0.lock().unwrap();
        match (&head.method, query("uploadId"), query("partNumber")) {
            (&Method::PUT, Some(upload), Some(number)) => {
                state.asked.insert("PUT part");
                let etag = etag(&body);
                let upload = state.uploads.get_mut(upload).unwrap();
                assert_eq!(upload.key, key);
                upload.pieces.insert(number.parse().unwrap(), body);
                respond(200, &[(header::ETAG, &etag)], "")
            }
            (&Method::POST, Some(upload), None) => {
                state.asked.insert("POST complete");
                let upload = state.uploads.remove(upload).unwrap();
                state.complete(upload, std::str::from_utf8(&body).unwrap())
            }
            (&Method::DELETE, Some(upload), None) => {
                state.asked.insert("DELETE upload");
                state.uploads.remove(upload).unwrap();
                respond(204, &[], "")
            }
            (&Method::POST, None, None) if query("uploads").is_some() => {
                state.asked.insert("POST upload");
                state.begun += 1;
                let id = format!("upload-{}", state.begun);
                let pieces = BTreeMap::new();
                state.uploads.insert(id.clone(), Upload { key, pieces });
                let said = format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                );
                respond(200, &[], &said)
            }
            (&Method::POST, None, None) if query("delete").is_some() => {
                state.asked.insert("POST delete");
                let mut said = "<DeleteResult>".to_owned();
                for key in between(std::str::from_utf8(&body).unwrap(), "Key") {
                    state.objects.remove(key);
                    write!(said, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
                }
                respond(200, &[], &format!("{said}</DeleteResult>"))
            }
            (&Method::PUT, None, None) => {
                state.asked.insert("PUT object");
                let etag = etag(&body);
                state.objects.insert(key, body);
                respond(200, &[(header::ETAG, &etag)], "")
            }
            (&Method::GET, None, None) if query("list-type").is_some() => {
                state.asked.insert("GET list");
                state.list(query("prefix").unwrap_or_default(), query("delimiter"))
            }
            (&Method::GET, None, None) => {
                state.asked.insert("GET object");
                state.object(&key, true)
            }
            (&Method::HEAD, None, None) => {
                state.asked.insert("HEAD object");
                state.object(&key, false)
            }
            _ => panic!("{} {} is not served", head.method, head.uri),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn complete(&mut self, upload: Upload, named: &str) -> Response<Body> {
        let last = upload.pieces.len();
        let numbers = between(named, "PartNumber").map(|number| number.parse().unwrap());
        let mut whole = Vec::new();
        for (number, etag_of_piece) in numbers.zip(between(named, "ETag")) {
            let piece: &Bytes = &upload.pieces[&number];
            assert_eq!(etag(piece), etag_of_piece.replace("&quot;", "\""));
            if piece.len() < 5 * 1024 * 1024 && number as usize != last {
                let said = "<Error><Code>EntityTooSmall</Code><Message>a piece</Message></Error>";
                return respond(400, &[], said);
            }
            whole.extend_from_slice(piece);
        }
        self.objects.insert(upload.key, whole.into());
        let said =
            "<CompleteMultipartUploadResult><ETag>whole</ETag></CompleteMultipartUploadResult>";
        respond(200, &[], said)
    }

    fn object(&self, key: &str, whole: bool) -> Response<Body> {
        let Some(object) = self.objects.get(key) else {
            return respond(404, &[], "");
        };
        let response = Response::builder()
            .header(header::ETAG, etag(object))
            .header(header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT")
            .header(header::CONTENT_LENGTH, object.len());
        let body = if whole { object.clone() } else { Bytes::new() };
        response.body(Body::from(body)).unwrap()
    }

    fn list(&self, prefix: &str, delimiter: Option<&str>) -> Response<Body> {
        let mut said = "<ListBucketResult>".to_owned();
        let mut folders = BTreeSet::new();
        for (key, object) in &self.objects {
            let Some(rest) = key.strip_prefix(prefix) else {
                continue;
            };
            let folder = delimiter.and_then(|delimiter| rest.split_once(delimiter));
            if let Some((folder, _)) = folder {
                folders.insert(format!("{prefix}{folder}/"));
                continue;
            }
            let size = object.len();
            write!(
                said,
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                 <ETag>x</ETag><Size>{size}</Size></Contents>"
            )
            .unwrap();
        }
        for folder in folders {
            write!(
                said,
                "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"
            )
            .unwrap();
        }
        respond(200, &[], &format!("{said}</ListBucketResult>"))
    }
}

fn assert_signed(headers: &HeaderMap, body: &[u8]) {
    let header = |name: &str| {
        headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    };
    let signed = header("authorization");
    assert!(
        signed.starts_with("AWS4-HMAC-SHA256 Credential=made-up/"),
        "{signed}"
    );
    assert_eq!(header("x-amz-content-sha256"), hex(&Sha256::digest(body)));
}

fn query_of(uri: &Uri) -> BTreeMap<String, String> {
    let query = uri.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

fn etag(object: &[u8]) -> String {
    format!("\"{}\"", hex(&Sha256::digest(object)))
}

/// What is in each element of that name.
fn between<'a>(xml: &'a str, element: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let pieces: Vec<&str> = xml
        .split(&open)
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(&close)?.0))
        .collect();
    pieces.into_iter()
}

fn respond(code: u16, headers: &[(header::HeaderName, &str)], body: &str) -> Response<Body> {
    let mut response = Response::builder().status(code);
    for (name, value) in headers {
        response = response.header(name, *value);
    }
    response.body(Body::from(body.to_owned())).unwrap()
}

/// Does that with a store under `prefix` in an S3.
async fn with_s3(check: impl AsyncFnOnce(Store, S3)) {
    let s3 = S3::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let store = open(
        "s3://bucket/prefix",
        &[
            ("AWS_ACCESS_KEY_ID", "made-up"),
            ("AWS_SECRET_ACCESS_KEY", MADE_UP),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ENDPOINT", &endpoint),
            ("AWS_ALLOW_HTTP", "true"),
        ],
    )
    .unwrap();
    let answers = s3.clone();
    let service = Router::new().fallback(move |request| answers.clone().answer(request));
    tokio::select! {
        served = axum::serve(listener, service) => panic!("it ends: {served:?}"),
        () = check(store, s3) => {}
    }
}

#[tokio::test]
async fn an_artefact_becomes_one_object_in_s3() {
    with_s3(async |store, s3| {
        store.probe().await.unwrap();
        let content = bytes(2 * PART + 11);
        let place = place(&content);
        let mut pieces = parts(&content);
        let last = pieces.pop().unwrap();
        for part in pieces {
            store.keep(&place, part).await.unwrap();
        }
        assert_eq!(store.kept(&place).await, Ok(2 * PART));
        assert_eq!(store.has(&place).await, Ok(false));
        store.keep(&place, last).await.unwrap();
        assert_eq!(store.assemble(&place).await, Ok(Assembled::Whole));
        assert_eq!(store.has(&place).await, Ok(true));
        assert_eq!(store.read(&place.key()).await, content);
        assert_eq!(store.names().await, [place.key()], "its parts are gone");
        {
            let state = s3.state();
            let keys: Vec<&String> = state.objects.keys().collect();
            assert_eq!(keys, [&format!("prefix/{}", place.key())]);
            assert!(state.uploads.is_empty());
            assert!(state.asked.contains("POST complete"), "{:?}", state.asked);
        }
        assert_eq!(store.below(ARTEFACTS).await, Ok(vec!["kitchen".to_owned()]));
        assert_eq!(store.remove_keys(vec![place.key()]).await, 1);
        assert_eq!(store.has(&place).await, Ok(false));
    })
    .await;
}

#[tokio::test]
async fn what_has_another_digest_is_aborted_in_s3() {
    with_s3(async |store, s3| {
        let content = bytes(PART + 1);
        let mut place = place(&content);
        place.claim.sha256[0] ^= 1;
        for part in parts(&content) {
            store.keep(&place, part).await.unwrap();
        }
        assert_eq!(store.assemble(&place).await, Ok(Assembled::Wrong));
        let state = s3.state();
        assert!(state.objects.is_empty() && state.uploads.is_empty());
        assert!(state.asked.contains("DELETE upload"), "{:?}", state.asked);
    })
    .await;
}
