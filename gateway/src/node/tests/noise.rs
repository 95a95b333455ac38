//! A device that says anything, in any order: its own stream may end for it, with a reason, and nothing else happens.

use std::time::Duration;

use object_store::memory::InMemory;
use proto::node::{self, DeviceEvent, device_event::Event};
use tonic::Code;

use super::{
    schedules::Chance,
    world::{World, invocation, settings, uid},
};
use crate::{
    artefact::{Artefacts, store::Store},
    domain::names::is_object_name,
    node::Settings,
};

const STREAMS: u64 = 60;
const SAYS: usize = 30;

/// A text that may be a uid, a name, or neither.
fn text(chance: &mut Chance) -> String {
    let texts = [
        uid("say-hi"),
        uid("nobody"),
        "say-hi".to_owned(),
        String::new(),
        "../say-hi".to_owned(),
        "say-hi?watch=1".to_owned(),
        "\u{202e}\0\n".to_owned(),
        "x".repeat(5000),
    ];
    pick(chance, &texts)
}

fn pick<T: Clone>(chance: &mut Chance, among: &[T]) -> T {
    let count = u64::try_from(among.len()).unwrap();
    among[usize::try_from(chance.below(count)).unwrap()].clone()
}

fn artefact(chance: &mut Chance) -> node::Artefact {
    node::Artefact {
        sha256: vec![7; pick(chance, &[0, 31, 32, 33])],
        size_bytes: pick(chance, &[0, 1, 3, 6 * 1024 * 1024, u64::MAX]),
        media_type: text(chance),
    }
}

fn number(chance: &mut Chance) -> i32 {
    pick(chance, &[0, 1, 2, 3, 4, 5, 6, 7, 16, i32::MAX, i32::MIN])
}

fn said(chance: &mut Chance) -> Option<Event> {
    Some(match chance.below(12) {
        0 => Event::Hello(node::Hello {
            registration: text(chance),
        }),
        1 => Event::CapabilityUpdate(node::CapabilityUpdate {
            capabilities: vec![node::Capability {
                name: pick(chance, &["echo", "other", "Not A Name"]).to_owned(),
                execution: pick(chance, &[0, 1, 2, 9]),
                concurrency: pick(chance, &[0, 1, 64, u32::MAX]),
                ..node::Capability::default()
            }],
        }),
        2 => Event::Accepted(node::Accepted { uid: text(chance) }),
        3 | 4 => Event::Result(node::Result {
            uid: text(chance),
            name: text(chance),
            outcome: number(chance),
            output: text(chance).into_bytes(),
            failure: Some(node::Failure {
                code: number(chance),
                message: text(chance),
            }),
            duplicate_of: text(chance),
            artefact: chance.one_in(3).then(|| artefact(chance)),
            ..node::Result::default()
        }),
        5 => Event::AwaitingMediation(node::AwaitingMediation { uid: text(chance) }),
        6 => Event::Progress(node::Progress {
            uid: text(chance),
            percent: u32::MAX,
            message: text(chance),
        }),
        7 if chance.one_in(4) => Event::Renew(node::Renew {
            pkcs10: text(chance).into_bytes(),
        }),
        8 => Event::ArtefactOffer(node::ArtefactOffer {
            uid: text(chance),
            name: text(chance),
            artefact: chance.one_in(9).then(|| artefact(chance)),
        }),
        9 | 10 => Event::ArtefactChunk(node::ArtefactChunk {
            uid: text(chance),
            offset: pick(chance, &[0, 1, 3, u64::MAX]),
            data: vec![1; pick(chance, &[0, 1, 3, 65_537])],
        }),
        11 => return None,
        _ => Event::Heartbeat(node::Heartbeat {}),
    })
}

#[tokio::test(start_paused = true)]
async fn whatever_a_device_says_ends_no_stream_but_its_own_and_reaches_no_other_object() {
    let artefacts = Artefacts::new(Store::over(InMemory::new()), 1024 * 1024);
    let world = World::with(Settings {
        artefacts: Some(artefacts),
        ..settings()
    })
    .await;
    let mut ends = Vec::new();
    for seed in 0..STREAMS {
        let mut chance = Chance(seed);
        // Both may begin anew.
        tokio::time::sleep(Duration::from_mins(2)).await;
        let mut other = world.welcomed("lamp-2").await;
        let mut device = world.welcomed("lamp-1").await;
        world
            .cluster
            .add_invocation(&invocation("say-hi", "lamp-1"));
        let sender = device.sender.clone();
        for _ in 0..SAYS {
            let event = said(&mut chance);
            tokio::select! {
                biased;
                sent = sender.send(DeviceEvent { event }) => if sent.is_err() { break },
                // It reads, so that it is heard.
                heard = device.next() => if heard.is_err() { break },
            }
        }
        drop((
            sender,
            std::mem::replace(&mut device.sender, tokio::sync::mpsc::channel(1).0),
        ));
        let end = device.end().await;
        // What breaks in the gateway looks like one that stops.
        assert!(
            matches!(
                end.code(),
                Code::Ok
                    | Code::InvalidArgument
                    | Code::FailedPrecondition
                    | Code::ResourceExhausted
            ),
            "seed {seed}: {end:?}"
        );
        ends.push(end.code());
        other.heartbeat().await;
        world.cluster.delete("capabilityinvocations", "say-hi");
    }
    assert!(ends.contains(&Code::InvalidArgument), "too little is odd");
    for line in world.cluster.log() {
        let (does, what) = line.split_once(' ').unwrap();
        let known = ["devices/lamp-1/status", "devices/lamp-2/status"];
        let named = what.strip_prefix("capabilityinvocations/");
        let is_fine = match (does, named) {
            ("GET", Some(name)) => is_object_name(name),
            ("PATCH", Some(name)) => name == "say-hi/status",
            _ => known.contains(&what) || what == "events" || does == "GET",
        };
        assert!(is_fine, "{line}");
    }
}
