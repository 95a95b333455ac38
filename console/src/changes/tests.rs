use std::{collections::BTreeMap, mem::size_of, time::Duration};

use console_api::{ObjectId, event::Gone};
use proptest::{collection::vec, prelude::*};
use tokio::time::timeout;

use super::*;

fn gone(kind: Kind, namespace: &str, name: &str) -> Change {
    let gone = Gone {
        id: ObjectId::new(namespace, name).unwrap(),
    };
    Change {
        namespace: namespace.into(),
        event: match kind {
            Kind::Device => ConsoleEvent::DeviceDeleted(gone),
            Kind::Invocation => ConsoleEvent::InvocationDeleted(gone),
            Kind::Request => ConsoleEvent::PairingDeleted(gone),
        },
    }
}

fn begun() -> Changes {
    small(64)
}

fn small(changes: usize) -> Changes {
    let bounds = Bounds {
        changes,
        ..Bounds::default()
    };
    let changes = Changes::new(bounds);
    for kind in Kind::ALL {
        changes.begin(kind, 10);
    }
    changes
}

/// What is told without waiting, in short.
fn told(subscriber: &mut Subscriber) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(told) = subscriber.poll() {
        let event = ConsoleEvent::read(told.event, &told.data).unwrap().unwrap();
        all.push(match event {
            ConsoleEvent::DeviceDeleted(gone)
            | ConsoleEvent::InvocationDeleted(gone)
            | ConsoleEvent::PairingDeleted(gone) => gone.id.to_string(),
            ConsoleEvent::Hello
            | ConsoleEvent::Resync
            | ConsoleEvent::Denied
            | ConsoleEvent::DeviceChanged(_)
            | ConsoleEvent::InvocationChanged(_)
            | ConsoleEvent::PairingChanged(_) => event.name().to_owned(),
        });
    }
    all
}

#[tokio::test]
async fn who_waits_is_told() {
    let changes = begun();
    let mut subscriber = changes.subscribe(None, None, See::ALL);
    assert_eq!(subscriber.next().await.event, "hello");
    let waits = async {
        let told = timeout(Duration::from_secs(30), subscriber.next())
            .await
            .unwrap();
        assert_eq!((told.event, told.id), ("device.deleted", changes.head()));
    };
    let tells = async { changes.tell(Kind::Device, 11, gone(Kind::Device, "a", "1")) };
    futures::join!(waits, tells);
}

#[test]
fn nobody_is_told_what_he_may_not_see() {
    let changes = begun();
    let mut of_a = changes.subscribe(None, Some("a".to_owned()), See::ALL);
    let mut devices = changes.subscribe(None, None, See::default());
    for (version, kind) in (11..).zip(Kind::ALL) {
        changes.tell(kind, version, gone(kind, "a", "1"));
        changes.tell(kind, version + 10, gone(kind, "b", "1"));
    }
    assert_eq!(told(&mut of_a), ["hello", "a.1", "a.1", "a.1"]);
    assert_eq!(told(&mut devices), ["hello", "a.1", "b.1"]);
    // What he was not told of is behind him all the same: he does not fall out of the ring by it.
    assert_eq!(devices.position(), changes.head());
}

#[test]
fn a_stream_goes_on_at_another_gateway() {
    let (here, there) = (begun(), begun());
    let mut subscriber = here.subscribe(None, None, See::ALL);
    assert_eq!(told(&mut subscriber), ["hello"]);
    // The two hear of the kinds in different order.
    let device = |changes: &Changes, version| {
        changes.tell(
            Kind::Device,
            version,
            gone(Kind::Device, "a", &version.to_string()),
        );
    };
    let request = |changes: &Changes, version| {
        changes.tell(
            Kind::Request,
            version,
            gone(Kind::Request, "p", &version.to_string()),
        );
    };
    device(&here, 11);
    device(&here, 14);
    assert_eq!(told(&mut subscriber), ["a.11", "a.14"]);
    let id: EventId = subscriber.position().to_string().parse().unwrap();
    for version in [12, 13] {
        request(&there, version);
    }
    for version in [11, 14, 15] {
        device(&there, version);
    }
    let mut resumed = there.subscribe(Some(id), None, See::ALL);
    assert_eq!(told(&mut resumed), ["hello", "p.12", "p.13", "a.15"]);
}

#[test]
fn who_was_told_of_what_a_gateway_has_not_heard_of_yet_is_not_told_again() {
    let (ahead, behind) = (begun(), begun());
    let mut subscriber = ahead.subscribe(None, None, See::ALL);
    ahead.tell(Kind::Device, 11, gone(Kind::Device, "a", "1"));
    told(&mut subscriber);
    let mut resumed = behind.subscribe(Some(subscriber.position()), None, See::ALL);
    assert_eq!(told(&mut resumed), ["hello"]);
    behind.tell(Kind::Device, 11, gone(Kind::Device, "a", "1"));
    behind.tell(Kind::Device, 12, gone(Kind::Device, "a", "2"));
    assert_eq!(told(&mut resumed), ["a.2"]);
}

#[test]
fn who_falls_out_of_the_ring_resyncs_and_goes_on() {
    let changes = small(4);
    let mut slow = changes.subscribe(None, None, See::ALL);
    assert_eq!(told(&mut slow), ["hello"]);
    let position = slow.position();
    for version in 11..=15 {
        changes.tell(
            Kind::Device,
            version,
            gone(Kind::Device, "a", &version.to_string()),
        );
    }
    assert_eq!(told(&mut slow), ["resync"]);
    changes.tell(Kind::Device, 16, gone(Kind::Device, "a", "16"));
    assert_eq!(told(&mut slow), ["a.16"]);

    let mut back = changes.subscribe(Some(position), None, See::ALL);
    assert_eq!(told(&mut back), ["hello", "resync"]);
    let mut never = changes.subscribe(Some(EventId::NOTHING), None, See::ALL);
    assert_eq!(told(&mut never), ["hello", "resync"]);
    // Of a kind that he may not see, nothing is missed.
    for version in 11..=20 {
        changes.tell(Kind::Request, version, gone(Kind::Request, "a", "1"));
    }
    let mut id = position;
    id.reach(Kind::Device, 16);
    let mut devices = changes.subscribe(Some(id), None, See::default());
    assert_eq!(told(&mut devices), ["hello"]);
    let mut all = changes.subscribe(Some(id), None, See::ALL);
    assert_eq!(told(&mut all), ["hello", "resync"]);
}

#[test]
fn what_was_found_together_is_told_together_elsewhere() {
    let (listed, watched) = (begun(), begun());
    // One gateway finds by a list what another one saw happen: 2 went before 1 changed, as it happens.
    let found = vec![gone(Kind::Device, "a", "1"), gone(Kind::Device, "a", "2")];
    listed.tell_found(Kind::Device, 20, found);
    watched.tell(Kind::Device, 12, gone(Kind::Device, "a", "2"));
    watched.tell(Kind::Device, 15, gone(Kind::Device, "a", "1"));
    watched.reached(Kind::Device, 20);
    let mut start = EventId::NOTHING;
    for kind in Kind::ALL {
        start.reach(kind, 10);
    }
    let mut subscriber = listed.subscribe(Some(start), None, See::ALL);
    assert_eq!(subscriber.poll().unwrap().event, "hello");
    let first = subscriber.poll().unwrap();
    // He leaves in between, having been told of one of them.
    let mut elsewhere = watched.subscribe(Some(first.id), None, See::ALL);
    assert_eq!(told(&mut elsewhere), ["hello", "a.2", "a.1"]);
    assert_eq!(told(&mut subscriber), ["a.2"]);
    assert_eq!(subscriber.position(), listed.head());
}

#[test]
fn when_it_is_not_known_what_changed_everybody_resyncs() {
    let changes = begun();
    let mut subscriber = changes.subscribe(None, None, See::default());
    assert_eq!(told(&mut subscriber), ["hello"]);
    // Even where the API server went back.
    let before = changes.head();
    changes.begin(Kind::Invocation, 5);
    assert_eq!(told(&mut subscriber), ["resync"]);
    assert_eq!(subscriber.position().of(Kind::Invocation), 5);
    let mut all = changes.subscribe(Some(before), None, See::ALL);
    assert_eq!(told(&mut all), ["hello", "resync"]);
    changes.tell(Kind::Device, 11, gone(Kind::Device, "a", "1"));
    assert_eq!(told(&mut subscriber), ["a.1"]);
}

#[test]
fn a_subscriber_holds_nothing_but_its_place() {
    assert!(
        size_of::<Subscriber>() <= 128,
        "{}",
        size_of::<Subscriber>()
    );
    let bounds = Bounds {
        changes: 4096,
        bytes: 4096,
    };
    let changes = Changes::new(bounds);
    let _slow: Vec<_> = (0..100)
        .map(|_| changes.subscribe(None, None, See::ALL))
        .collect();
    for version in 1..1000 {
        changes.tell(Kind::Device, version, gone(Kind::Device, "a", "1"));
        assert!(changes.shared.read().bytes() <= bounds.bytes);
    }
}

proptest! {
    /// Whatever a reader does – reads some, leaves, comes back anywhere – he has heard of the last change of everything
    /// when he has read to the end, in the order of each kind, or was told to resync after it.
    #[test]
    fn nothing_is_missed(
        steps in vec((0_usize..3, 0_u8..4, 0_usize..4, 0_usize..2, any::<bool>()), 1..80),
        bound in 1_usize..12,
    ) {
        let gateways = [small(bound), small(bound)];
        let mut version = 10;
        let mut truth: BTreeMap<String, u64> = BTreeMap::new();
        let mut heard: BTreeMap<String, u64> = BTreeMap::new();
        let mut reader = gateways[0].subscribe(None, None, See::ALL);
        let read = |reader: &mut Subscriber, heard: &mut BTreeMap<String, u64>, truth: &BTreeMap<String, u64>, most: usize| {
            for _ in 0..most {
                let Some(told) = reader.poll() else { return };
                match told.event {
                    "hello" => {}
                    "resync" => heard.clone_from(truth),
                    event => {
                        let Gone { id } = serde_json::from_str(&told.data).unwrap();
                        let (name, at) = id.name().rsplit_once('-').unwrap();
                        let before = heard.insert(format!("{event} {name}"), at.parse().unwrap());
                        assert!(before.is_none_or(|before| before <= at.parse().unwrap()), "back in time");
                    }
                }
            }
        };
        for (kind, name, reads, goes_to, moves) in steps {
            version += 1;
            let kind = Kind::ALL[kind];
            let change = gone(kind, "a", &format!("{name}-{version}"));
            truth.insert(format!("{} {name}", change.event.name()), version);
            for gateway in &gateways {
                gateway.tell(kind, version, change.clone());
            }
            read(&mut reader, &mut heard, &truth, reads);
            if moves {
                let id = reader.position().to_string().parse().unwrap();
                reader = gateways[goes_to].subscribe(Some(id), None, See::ALL);
            }
        }
        read(&mut reader, &mut heard, &truth, usize::MAX);
        prop_assert_eq!(heard, truth);
    }
}
