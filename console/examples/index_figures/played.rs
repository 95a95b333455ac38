//! An API server with a fleet: it lists what there is, and tells of changes that it is told to make.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use anyhow::Context as _;
use bytes::Bytes;
use console_api::ObjectId;
use futures::{StreamExt as _, stream};
use http::{Request, Response, Uri};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;

pub const NAMESPACE: &str = "fleet";
/// All was made before that version.
const LISTED: u64 = 1_000_000;
/// Objects on a page, as the index asks for them.
const PAGE: usize = 500;

#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    devices: usize,
    surroundings: bool,
    version: AtomicU64,
    asked: AtomicUsize,
    changes: (mpsc::Sender<Bytes>, Mutex<Option<mpsc::Receiver<Bytes>>>),
}

pub fn id(nth: usize) -> ObjectId {
    ObjectId::new(NAMESPACE, format!("device-{nth:06}")).expect("it is a name")
}

impl Cluster {
    pub fn new(devices: usize, surroundings: bool) -> Self {
        let (sender, receiver) = mpsc::channel(64);
        Self(Arc::new(Inner {
            devices,
            surroundings,
            version: AtomicU64::new(LISTED),
            asked: AtomicUsize::new(0),
            changes: (sender, Mutex::new(Some(receiver))),
        }))
    }

    pub fn devices(&self) -> usize {
        self.0.devices
    }

    pub fn has_surroundings(&self) -> bool {
        self.0.surroundings
    }

    pub fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (cluster, asked) = (cluster.clone(), request.uri().clone());
            async move { Ok::<_, Infallible>(cluster.answer(&asked).await) }
        });
        Client::new(service, NAMESPACE)
    }

    /// Changes a device.
    pub async fn change(&self, nth: usize) -> anyhow::Result<()> {
        let version = self.0.version.fetch_add(1, Ordering::Relaxed) + 1;
        let device = device(nth % self.0.devices, version);
        let event = Bytes::from(format!("{{\"type\":\"MODIFIED\",\"object\":{device}}}\n"));
        self.0
            .changes
            .0
            .send(event)
            .await
            .context("the index watches")
    }

    /// Beside the lists of five kinds, on pages, and the watch of each.
    pub fn asked_since_filled(&self) -> usize {
        let pages = |objects: usize| objects.div_ceil(PAGE).max(1);
        let of = |each: usize| {
            pages(if self.0.surroundings {
                each * self.0.devices
            } else {
                0
            })
        };
        let lists = pages(self.0.devices) + of(2) + of(2) + of(1) + 1;
        self.0
            .asked
            .load(Ordering::Relaxed)
            .saturating_sub(lists + 5)
    }

    async fn answer(&self, asked: &Uri) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let query = asked.query().unwrap_or_default();
        let kind = asked.path().rsplit('/').next().unwrap_or_default();
        if query.contains("watch=true") {
            let receiver = if kind == "devices" {
                self.0.changes.1.lock().await.take()
            } else {
                None
            };
            let changes = match receiver {
                Some(receiver) => ReceiverStream::new(receiver)
                    .map(|change| Ok(Frame::data(change)))
                    .boxed(),
                None => stream::pending().boxed(),
            };
            return Response::new(StreamBody::new(changes).boxed_unsync());
        }
        let start = query
            .split('&')
            .find_map(|part| part.strip_prefix("continue=")?.parse().ok());
        let page = self.page(kind, start.unwrap_or(0)).to_string();
        Response::new(Full::new(Bytes::from(page)).boxed_unsync())
    }

    fn page(&self, kind: &str, start: usize) -> Value {
        let (each, object): (usize, fn(usize, usize) -> Value) = match kind {
            "devices" => (1, |nth, _| device(nth, LISTED)),
            "capabilityinvocations" if self.0.surroundings => (2, invocation),
            "events" if self.0.surroundings => (2, event),
            "pairingrequests" if self.0.surroundings => (1, |nth, _| request(nth)),
            _ => (0, |_, _| Value::Null),
        };
        let count = each * self.0.devices;
        let end = (start + PAGE).min(count);
        let items: Vec<_> = (start..end)
            .map(|at| object(at / each, at % each))
            .collect();
        let more = if end < count {
            end.to_string()
        } else {
            String::new()
        };
        json!({ "apiVersion": "v1", "kind": "List", "items": items,
            "metadata": { "resourceVersion": LISTED.to_string(), "continue": more } })
    }
}

fn digest(nth: usize) -> String {
    format!("{nth:064x}")
}

fn device(nth: usize, version: u64) -> Value {
    let presence = ["Online", "Online", "Online", "Degraded", "Stale", "Offline"][nth % 6];
    let capability = |name: &str| {
        json!({ "name": name, "availability": "Available", "execution": "Automatic", "granted": "Granted", "version": "1",
            "description": "What it does, in some words of the device",
            "inputSchema": "{\"type\":\"object\",\"properties\":{\"url\":{\"type\":\"string\",\"maxLength\":2048}}}",
            "surfaceSha256": digest(name.len()) })
    };
    let capabilities = [
        "echo",
        "system.health",
        "system.identity",
        "desktop.open_url",
        "desktop.open_path",
    ];
    let capabilities = capabilities.map(capability);
    let condition = |kind: &str, message: String| {
        json!({ "type": kind, "status": "True", "reason": "AsExpected", "message": message,
            "lastTransitionTime": "2030-01-01T00:00:00Z" })
    };
    let certificate = |generation: usize| {
        json!({ "serial": format!("{:032x}", nth * 8 + generation), "fingerprint": digest(nth * 8 + generation),
            "generation": generation, "notBefore": "2030-01-01T00:00:00Z", "notAfter": "2030-01-02T00:00:00Z" })
    };
    json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device",
        "metadata": { "namespace": NAMESPACE, "name": format!("device-{nth:06}"), "resourceVersion": version.to_string(),
            "creationTimestamp": "2030-01-01T00:00:00Z", "uid": format!("{nth:032x}"),
            "labels": { "room": (nth % 40).to_string(), "site": (nth % 7).to_string(), "tier": "edge" } },
        "spec": { "publicKeySha256": digest(nth), "displayName": format!("Device number {nth}") },
        "status": {
            "trust": "Trusted", "presence": presence, "presenceReason": "Connected", "lastSeen": "2030-01-01T00:00:00Z",
            "session": { "gateway": format!("gateway-{}", nth % 5), "epoch": 3, "connectedAt": "2030-01-01T00:00:00Z" },
            "certificate": certificate(3), "certificateHistory": [certificate(2), certificate(1)],
            "platform": { "os": "linux", "arch": "x86_64", "agentVersion": "1.0.0", "hostname": format!("host-{nth}.local") },
            "capabilities": capabilities,
            "capabilityCounts": { "declared": 5, "granted": 5, "pending": 0 },
            "conditions": [
                condition("Ready", "The device is trusted and connected".to_owned()),
                condition("Connected", format!("Connected to gateway-{}", nth % 5)),
                condition("CertificateValid", "The certificate is valid".to_owned()),
                condition("CapabilitiesGranted", "All was decided on".to_owned()),
            ],
        },
    })
}

fn metadata(name: &str, nth: usize, which: usize) -> Value {
    json!({ "namespace": NAMESPACE, "name": format!("{name}-{nth:06}-{which}"), "resourceVersion": LISTED.to_string(),
        "creationTimestamp": "2030-01-01T00:00:00Z" })
}

fn invocation(nth: usize, which: usize) -> Value {
    json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "CapabilityInvocation",
        "metadata": metadata("invocation", nth, which),
        "spec": { "deviceRef": { "name": format!("device-{nth:06}") }, "capability": "system.health",
            "requestedBy": format!("user-{}", nth % 50) },
        "status": { "phase": "Succeeded", "finishedAt": "2030-01-01T00:00:01Z", "output": { "load": [1, 2, 3] } },
    })
}

fn event(nth: usize, which: usize) -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": metadata("event", nth, which), "eventTime": "2030-01-01T00:00:00.000000Z", "type": "Normal",
        "reason": "CertificateRenewed", "reportingController": "fairlead-operator",
        "note": format!("Issued certificate number {which} for the device's own key"),
        "regarding": { "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device", "namespace": NAMESPACE,
            "name": format!("device-{nth:06}") },
    })
}

fn request(nth: usize) -> Value {
    json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingRequest", "metadata": metadata("preq", nth, 0),
        "spec": { "csr": "-", "publicKeySha256": digest(nth), "method": "Pin", "pairingCodeRef": { "name": "door" },
            "requestedName": format!("device-{nth:06}"),
            "platform": { "os": "linux", "arch": "x86_64", "agentVersion": "1.0.0", "hostname": format!("host-{nth}.local") } },
        "status": { "phase": "Issued", "deviceRef": { "name": format!("device-{nth:06}") } },
    })
}
