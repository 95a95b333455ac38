use std::{collections::VecDeque, convert::Infallible, sync::Mutex, time::Duration};

use bytes::Bytes;
use console_api::{event::ConsoleEvent, inventory::Presence};
use crds::{CapabilityInvocation, Device, Guarded, PairingRequest};
use futures::{StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    device_feed::DeviceFeed,
    event_feed::EventFeed,
    instances::InstanceFeed,
    invocation_feed::InvocationFeed,
    request_feed::RequestFeed,
    watch::{Feed, follow},
    *,
};
use crate::inventory::fixtures::{at, device};

fn lamp(name: &str, version: u64, presence: Presence) -> Guarded<Device> {
    Guarded(Ok(device(
        "workshop",
        name,
        version,
        json!({}),
        json!({ "presence": presence }),
    )))
}

fn read_json<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).unwrap()
}

fn invocation(
    name: &str,
    version: u64,
    device: &str,
    phase: &str,
) -> Guarded<CapabilityInvocation> {
    Guarded(Ok(read_json(json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "CapabilityInvocation",
        "metadata": { "namespace": "workshop", "name": name, "resourceVersion": version.to_string(),
            "creationTimestamp": at(i64::try_from(version).unwrap()).to_string() },
        "spec": { "deviceRef": { "name": device }, "capability": "echo", "requestedBy": "ann" },
        "status": { "phase": phase, "progress": { "percent": 7 },
            "error": { "code": "NoAnswer", "message": "nothing was heard" } },
    }))))
}

fn request(name: &str, version: u64, phase: &str) -> Guarded<PairingRequest> {
    Guarded(Ok(read_json(json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingRequest",
        "metadata": { "namespace": "workshop", "name": name, "resourceVersion": version.to_string() },
        "spec": { "csr": "-", "publicKeySha256": "ab".repeat(32), "requestedName": "lamp" },
        "status": { "phase": phase },
    }))))
}

fn event(name: &str, version: u64, device: &str, namespace: &str) -> Guarded<Event> {
    Guarded(Ok(read_json(json!({
        "metadata": { "namespace": "workshop", "name": name, "resourceVersion": version.to_string() },
        "eventTime": format!("{:.6}", at(i64::try_from(version).unwrap())),
        "type": "Warning", "reason": "Renamed", "note": "It was", "reportingController": "fairlead-operator",
        "regarding": { "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device", "namespace": namespace, "name": device },
    }))))
}

fn list<F: Feed>(feed: &mut F, version: u64, objects: impl IntoIterator<Item = F::Object>) {
    feed.begin_list();
    objects.into_iter().for_each(|object| feed.listed(object));
    feed.end_list(version);
}

/// An index whose stores were filled with nothing, at version 1.
fn filled() -> Arc<Index> {
    let index = Arc::new(Index::default());
    list(&mut DeviceFeed::new(Arc::clone(&index)), 1, []);
    list(&mut InvocationFeed::new(Arc::clone(&index)), 1, []);
    list(&mut RequestFeed::new(Arc::clone(&index)), 1, []);
    assert!(!index.is_synced());
    list(&mut InstanceFeed::new(Arc::clone(&index)), 1, []);
    assert!(index.is_synced());
    index
}

/// What was told since `from`, in short.
async fn told(index: &Index, from: crate::changes::EventId) -> Vec<String> {
    let mut subscriber = index.changes().subscribe(Some(from), None, See::ALL);
    let mut all = Vec::new();
    while subscriber.position() != index.changes().head() {
        let told = timeout(Duration::from_secs(30), subscriber.next())
            .await
            .unwrap();
        let id = match ConsoleEvent::read(told.event, &told.data).unwrap().unwrap() {
            ConsoleEvent::DeviceChanged(device) => device.id,
            ConsoleEvent::InvocationChanged(invocation) => invocation.id,
            ConsoleEvent::PairingChanged(request) => request.id,
            ConsoleEvent::DeviceDeleted(gone)
            | ConsoleEvent::InvocationDeleted(gone)
            | ConsoleEvent::PairingDeleted(gone) => gone.id,
            ConsoleEvent::Resync => {
                all.push("resync".to_owned());
                continue;
            }
            ConsoleEvent::Hello | ConsoleEvent::Denied => continue,
        };
        all.push(format!("{} {}", told.event, id.name()));
    }
    all
}

fn id(name: &str) -> ObjectId {
    ObjectId::new("workshop", name).unwrap()
}

fn names(inventory: &Inventory) -> Vec<&str> {
    inventory
        .devices
        .iter()
        .map(|device| device.name.as_str())
        .collect()
}

fn whole(index: &Index, see: See) -> Inventory {
    index
        .inventory(None, &Filter::default(), &Page::default(), see, at(0))
        .unwrap()
}

#[tokio::test]
async fn a_device_is_shown_with_what_is_around_it() {
    let index = filled();
    let from = index.changes().head();
    DeviceFeed::new(Arc::clone(&index)).applied(lamp("lamp", 2, Presence::Stale), 2);
    let mut invocations = InvocationFeed::new(Arc::clone(&index));
    invocations.applied(invocation("i-1", 3, "lamp", "Failed"), 3);
    invocations.applied(invocation("i-2", 4, "lamp", "Queued"), 4);
    invocations.applied(invocation("i-3", 5, "fan", "Queued"), 5);
    RequestFeed::new(Arc::clone(&index)).applied(request("preq-1", 6, "Pending"), 6);
    let mut events = EventFeed::new(Arc::clone(&index));
    events.applied(event("e-1", 7, "lamp", "workshop"), 7);
    events.applied(event("e-2", 8, "lamp", "workshop"), 8);
    // Written where its writer has rights, about where he has none.
    events.applied(event("e-3", 9, "lamp", "elsewhere"), 9);

    let detail = index
        .detail(&id("lamp"), See::ALL, Vec::new(), at(0))
        .unwrap();
    let recent: Vec<_> = detail
        .recent_invocations
        .iter()
        .map(|invocation| invocation.id.name())
        .collect();
    assert_eq!(recent, ["i-2", "i-1"]);
    assert_eq!(detail.events.len(), 2);
    assert_eq!(detail.events[0].at, Some(at(8)));
    assert_eq!(detail.events[0].reporter, "fairlead-operator");
    assert_eq!(detail.pairings[0].id, id("preq-1"));
    assert!(
        index
            .detail(&id("none"), See::ALL, Vec::new(), at(0))
            .is_none()
    );

    // The index shows an invocation as whoever reads it from the API server.
    let Guarded(Ok(read)) = invocation("i-1", 3, "lamp", "Failed") else {
        panic!("it can be read")
    };
    assert_eq!(
        Some(&detail.recent_invocations[1]),
        crate::record::invocation_summary(&read).as_ref()
    );

    let inventory = whole(&index, See::ALL);
    assert_eq!(
        (
            inventory.summary.pending_pairings,
            inventory.pending_pairings.len()
        ),
        (1, 1)
    );
    assert_eq!(
        told(&index, from).await,
        [
            "device.changed lamp",
            "invocation.changed i-1",
            "invocation.changed i-2",
            "invocation.changed i-3",
            "pairing.changed preq-1"
        ]
    );
    // Who reads the inventory and then follows is told of nothing that he has read.
    let from = inventory.event_id.unwrap().parse().unwrap();
    assert_eq!(told(&index, from).await, Vec::<String>::new());

    let little = whole(&index, See::default());
    assert_eq!(
        (
            little.summary.pending_pairings,
            little.pending_pairings.len()
        ),
        (0, 0)
    );
    assert_eq!(little.withheld[0].permission, "pairing.read");
    let little = index
        .detail(&id("lamp"), See::default(), Vec::new(), at(0))
        .unwrap();
    assert!(
        little.recent_invocations.is_empty()
            && little.events.is_empty()
            && little.pairings.is_empty()
    );
    assert_eq!(little.withheld.len(), 3);
}

#[tokio::test]
async fn a_list_anew_keeps_what_is_there_and_tells_what_changed() {
    let index = filled();
    let mut devices = DeviceFeed::new(Arc::clone(&index));
    list(
        &mut devices,
        10,
        ["1", "2", "3"].map(|name| lamp(name, 2, Presence::Online)),
    );
    let from = index.changes().head();
    let kept = index.device(&id("1")).unwrap();

    devices.begin_list();
    for object in [
        lamp("1", 2, Presence::Online),
        lamp("4", 17, Presence::Stale),
        lamp("2", 12, Presence::Online),
    ] {
        devices.listed(object);
    }
    assert_eq!(
        names(&whole(&index, See::ALL)),
        ["1", "2", "3"],
        "until it is whole"
    );
    devices.end_list(20);
    assert_eq!(names(&whole(&index, See::ALL)), ["4", "1", "2"]);
    assert!(Arc::ptr_eq(&kept, &index.device(&id("1")).unwrap()));
    assert_eq!(
        told(&index, from).await,
        ["device.changed 2", "device.changed 4", "device.deleted 3"]
    );
    // It may have moved and moved back: nobody knows.
    assert_eq!(index.device(&id("2")).unwrap().moved_at, 12);

    let mut requests = RequestFeed::new(Arc::clone(&index));
    list(
        &mut requests,
        10,
        [request("a", 2, "Pending"), request("b", 3, "Pending")],
    );
    let mut invocations = InvocationFeed::new(Arc::clone(&index));
    list(
        &mut invocations,
        10,
        [
            invocation("a", 2, "1", "Queued"),
            invocation("b", 3, "1", "Queued"),
        ],
    );
    let from = index.changes().head();
    list(&mut requests, 20, [request("b", 12, "Denied")]);
    list(&mut invocations, 20, [invocation("b", 12, "1", "Failed")]);
    assert_eq!(
        told(&index, from).await,
        [
            "pairing.changed b",
            "pairing.deleted a",
            "invocation.changed b",
            "invocation.deleted a"
        ]
    );
}

#[tokio::test]
async fn who_follows_resyncs_when_it_is_not_known_what_changed() {
    let index = filled();
    // More than is kept of a device: what is gone of it cannot be found by comparing.
    let many = || (0..12).map(|n| invocation(&n.to_string(), 2 + n, "lamp", "Queued"));
    let mut invocations = InvocationFeed::new(Arc::clone(&index));
    list(&mut invocations, 20, many());
    let from = index.changes().head();
    list(&mut invocations, 30, many());
    assert_eq!(told(&index, from).await, ["resync"]);

    // Nor when the API server was restored to what it was before.
    let mut devices = DeviceFeed::new(Arc::clone(&index));
    list(&mut devices, 30, [lamp("1", 25, Presence::Online)]);
    let from = index.changes().head();
    list(&mut devices, 5, []);
    assert_eq!(told(&index, from).await, ["resync"]);
    assert_eq!(names(&whole(&index, See::ALL)), Vec::<&str>::new());

    // Nor when it is more than the ring holds well.
    list(&mut devices, 40, []);
    let from = index.changes().head();
    let all =
        (0..=super::device_feed::MAX_FOUND).map(|n| lamp(&n.to_string(), 50, Presence::Online));
    list(&mut devices, 60, all);
    assert_eq!(told(&index, from).await, ["resync"]);
}

#[tokio::test]
async fn what_cannot_be_read_is_gone() {
    let index = filled();
    let unreadable = json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device",
        "metadata": { "namespace": "workshop", "name": "lamp", "resourceVersion": "3" }, "spec": { "trust": "?" },
    });
    let unreadable: Guarded<Device> = serde_json::from_str(&unreadable.to_string()).unwrap();
    assert!(unreadable.0.is_err());
    let mut devices = DeviceFeed::new(Arc::clone(&index));
    devices.applied(lamp("lamp", 2, Presence::Online), 2);
    let from = index.changes().head();
    devices.applied(unreadable, 3);
    assert!(index.device(&id("lamp")).is_none());
    assert_eq!(told(&index, from).await, ["device.deleted lamp"]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_an_invocation_hears_of_it() {
    let index = filled();
    let mut invocations = InvocationFeed::new(Arc::clone(&index));
    let mut following = index.follow_invocation(&id("i-1"));
    let soon = || Instant::now() + Duration::from_secs(5);
    invocations.applied(invocation("i-2", 2, "lamp", "Queued"), 2);
    assert!(!following.changed(soon()).await);
    invocations.applied(invocation("i-1", 3, "lamp", "Succeeded"), 3);
    assert!(following.changed(soon()).await);
    invocations.gone(&invocation("i-1", 3, "lamp", "Succeeded"), 4);
    assert!(following.changed(soon()).await);
    list(&mut invocations, 9, []);
    assert!(following.changed(soon()).await);
}

#[tokio::test(start_paused = true)]
async fn a_catch_up_waits_until_this_gateway_has_heard() {
    let index = filled();
    let mut devices = DeviceFeed::new(Arc::clone(&index));
    devices.applied(lamp("1", 2, Presence::Online), 2);
    let cursor = crate::inventory::Cursor {
        asked: Filter::default().digest(None),
        since: 0,
        need: 3,
        at: At::CatchUp(None),
    };
    let page = Page {
        cursor: Some(cursor),
        ..Page::default()
    };
    let shown = || index.inventory(None, &Filter::default(), &page, See::ALL, at(0));
    let soon = || Instant::now() + Duration::from_secs(2);
    index.heard_of(&page, soon()).await;
    assert_eq!(shown().unwrap_err(), PageError::Behind);
    let hears = async {
        tokio::task::yield_now().await;
        devices.reached(3);
    };
    futures::join!(index.heard_of(&page, soon()), hears);
    assert_eq!(names(&shown().unwrap()), ["1"]);
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What an API server answers, one request after the other: a part of the query that it must be asked with, what it
/// says, and whether it goes on saying nothing.
struct Script(Mutex<VecDeque<(&'static str, String, bool)>>);

impl Script {
    fn answer(&self, request: &Request<kube::client::Body>) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let next = self.0.lock().unwrap().pop_front();
        let Some((expected, body, stays)) = next else {
            panic!("{query} is not expected")
        };
        assert!(query.contains(expected), "{query} instead of {expected}");
        let body = stream::iter([Ok(http_body::Frame::data(Bytes::from(body)))]);
        let body = if stays {
            StreamBody::new(body.chain(stream::pending())).boxed_unsync()
        } else {
            StreamBody::new(body).boxed_unsync()
        };
        Response::new(body)
    }
}

fn json_of(name: &str, version: u64) -> Value {
    serde_json::to_value(device("workshop", name, version, json!({}), json!({}))).unwrap()
}

fn page_of(version: &str, more: &str, items: &[Value]) -> String {
    json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "DeviceList", "items": items,
        "metadata": { "resourceVersion": version, "continue": more } })
    .to_string()
}

fn said(kind: &str, object: &Value) -> String {
    // Its type first, as API servers write it.
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_goes_on_where_it_was_or_begins_anew() {
    let bookmark = json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device", "metadata": { "resourceVersion": "15" } });
    let too_old = json!({ "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 410,
        "reason": "Expired", "message": "too old resource version" });
    let broken = json!({ "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 500,
        "reason": "InternalError", "message": "etcd is away" });
    let script = Arc::new(Script(Mutex::new(VecDeque::from([
        (
            "limit=500",
            page_of("10", "more", &[json_of("1", 4)]),
            false,
        ),
        (
            "continue=more",
            page_of("10", "", &[json_of("2", 5)]),
            false,
        ),
        (
            "resourceVersion=10",
            said("MODIFIED", &json_of("2", 11)) + &said("BOOKMARK", &bookmark),
            false,
        ),
        ("resourceVersion=15", said("ERROR", &broken), false),
        (
            "resourceVersion=15",
            said("DELETED", &json_of("1", 16)),
            false,
        ),
        ("resourceVersion=16", said("ERROR", &too_old), false),
        (
            "limit=500",
            page_of("20", "", &[json_of("2", 11), json_of("3", 18)]),
            false,
        ),
        ("resourceVersion=20", said("ADDED", &json_of("4", 21)), true),
    ]))));
    let answers = Arc::clone(&script);
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let answer = answers.answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let client = Client::new(service, "default");
    let index = filled();
    let stop = CancellationToken::new();
    let feeding = follow(
        Api::all(client),
        None,
        DeviceFeed::new(Arc::clone(&index)),
        stop.clone(),
    );
    let looks = async {
        let mut reached = index.reached.subscribe();
        timeout(
            Duration::from_mins(5),
            reached.wait_for(|version| *version == 10),
        )
        .await
        .unwrap()
        .unwrap();
        let from = index.changes().head();
        timeout(
            Duration::from_mins(5),
            reached.wait_for(|version| *version == 21),
        )
        .await
        .unwrap()
        .unwrap();
        stop.cancel();
        from
    };
    let ((), from) = futures::join!(feeding, looks);
    assert!(script.0.lock().unwrap().is_empty());
    let there: Vec<_> = whole(&index, See::ALL)
        .devices
        .into_iter()
        .map(|device| device.name)
        .collect();
    assert_eq!(there, ["2", "3", "4"]);
    assert_eq!(
        told(&index, from).await,
        [
            "device.changed 2",
            "device.deleted 1",
            "device.changed 3",
            "device.changed 4"
        ]
    );
}
