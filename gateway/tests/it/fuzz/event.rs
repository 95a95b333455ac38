//! What an event of a device comes to.

use gateway::{
    csr,
    domain::{
        artefact::{Claim, Collector, PART, Place},
        names::is_uid,
        register,
        result::End,
        underway,
    },
};
use pairing::key::KeyFingerprint;
use proto::node::{self, device_event};

const MAX_OUTPUT: i64 = 262_144;

/// Reads an event as a stream does, and looks at what would be written of it.
pub fn hear(event: device_event::Event) {
    match event {
        device_event::Event::Result(result) => {
            let end = End::reported(&result, MAX_OUTPUT);
            assert!(end.phase.is_terminal());
            let message = end.error.map(|error| error.message).unwrap_or_default();
            assert!(message.chars().count() <= 1024);
            if let Some(mediation) = end.mediation {
                assert!(mediation.by.chars().count() <= 253);
                assert!(mediation.reason.unwrap_or_default().chars().count() <= 512);
            }
        }
        device_event::Event::CapabilityUpdate(update) => {
            if let Ok(read) = register::read_capabilities(update.capabilities) {
                assert!(read.len() <= register::MAX_CAPABILITIES);
            }
        }
        device_event::Event::Progress(progress) => {
            let progress = underway::progress(&progress);
            assert!((0..=100).contains(&progress.percent));
            assert!(progress.message.unwrap_or_default().chars().count() <= 256);
        }
        device_event::Event::Renew(renew) => {
            let key = KeyFingerprint::of_spki(b"the key of the connection");
            assert!(csr::read(&renew.pkcs10, &key, 2900).is_err());
        }
        device_event::Event::ArtefactOffer(offer) => claims(&offer),
        device_event::Event::ArtefactChunk(chunk) => collects(&chunk),
        device_event::Event::Accepted(node::Accepted { uid })
        | device_event::Event::AwaitingMediation(node::AwaitingMediation { uid }) => {
            assert!(!is_uid(&uid) || uid.len() <= 64);
        }
        // What they do, and in which order, is tried on real streams.
        device_event::Event::Hello(_) | device_event::Event::Heartbeat(_) => {}
    }
}

fn claims(offer: &node::ArtefactOffer) {
    const MOST: u64 = 5_242_880_000;
    let artefact = offer.artefact.clone().unwrap_or_default();
    let Ok(claim) = Claim::read(&artefact, MOST) else {
        return;
    };
    assert!((1..=MOST).contains(&claim.size));
    assert!(claim.media_type.len() <= 128);
    let place = Place {
        namespace: "kitchen".to_owned(),
        name: "say-hi".to_owned(),
        uid: "1a-2b".to_owned(),
        claim,
    };
    assert!(place.count() <= 1000);
    assert!(place.part(place.count() - 1).len() <= 512);
}

/// It may begin anywhere, and nothing makes more of it than a part.
fn collects(chunk: &node::ArtefactChunk) {
    for (size, begins) in [
        (1, 0),
        (chunk.offset.saturating_add(1), 0),
        (u64::MAX, chunk.offset),
        (
            chunk.offset.saturating_add(chunk.data.len() as u64),
            chunk.offset,
        ),
    ] {
        let mut collector = Collector::new(size, begins);
        for offset in [chunk.offset, chunk.offset.wrapping_add(1), 0] {
            for part in collector.take(offset, &chunk.data).into_iter().flatten() {
                assert!(part.bytes.len() as u64 <= PART);
            }
        }
    }
}
