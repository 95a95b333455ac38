//! Floods of HTTP/2 frames by a peer whose handshake succeeded. Each one is bounded in count, and another device is
//! served while it runs.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    time::timeout,
};

use crate::{
    authority::{DeviceKey, Identity},
    hub::{Hub, SOON},
    stranger::{Tls, connect},
    wire::{PREFACE, assert_served},
};

/// Frames of one flood, in batches.
const BATCHES: u32 = 200;
const FRAMES_PER_BATCH: u32 = 100;

/// Frame types and flags of RFC 9113, section 6.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `POST /` over https, by the static table of HPACK (RFC 7541, appendix A).
const POST: [u8; 3] = [0x83, 0x84, 0x87];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Both identities that a peer can have at this port.
fn peers(hub: &Hub) -> [Identity; 2] {
    [
        DeviceKey::generate().self_signed(),
        hub.authority.device("flooder"),
    ]
}

/// Sends batches until all are sent or the gateway ends the connection, and reads all answers meanwhile.
async fn flood(
    mut writer: WriteHalf<Tls>,
    mut reader: ReadHalf<Tls>,
    batch: impl Fn(u32) -> Vec<u8>,
    then: Then,
) {
    let send = async {
        writer.write_all(PREFACE).await?;
        for number in 0..BATCHES {
            writer.write_all(&batch(number)).await?;
        }
        writer.flush().await
    };
    let read = async {
        let mut answers = [0; 4096];
        while let Ok(1..) = reader.read(&mut answers).await {}
    };
    match then {
        Then::Ends => {
            let (_, ()) = tokio::join!(send, read);
        }
        Then::MayGoOn => tokio::select! {
            _ = send => {}
            () = read => {}
        },
    }
}

/// How the gateway must answer a flood.
#[derive(Clone, Copy)]
enum Then {
    /// It ends the connection.
    Ends,
    /// It may serve the connection on, or end it.
    MayGoOn,
}

/// Floods as each kind of peer. Another device is served meanwhile, and again afterwards.
async fn flooded(then: Then, batch: impl Fn(u32) -> Vec<u8> + Copy) {
    let hub = Hub::start().await;
    for identity in peers(&hub) {
        let (reader, writer) = split(connect(hub.address, identity).await);
        let (flooded, ()) = tokio::join!(
            timeout(SOON, flood(writer, reader, batch, then)),
            assert_served(&hub),
        );
        flooded.expect("the gateway neither reads the flood nor ends it as it must");
        assert_served(&hub).await;
    }
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_at_once_end_the_connection() {
    flooded(Then::Ends, |batch| {
        (0..FRAMES_PER_BATCH)
            .flat_map(|number| {
                let stream = 2 * (batch * FRAMES_PER_BATCH + number) + 1;
                let mut frames = frame(HEADERS, END_HEADERS, stream, &POST);
                frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                frames
            })
            .collect()
    })
    .await;
}

#[tokio::test]
async fn headers_that_never_end_end_the_connection() {
    flooded(Then::Ends, |batch| {
        let mut frames = Vec::new();
        if batch == 0 {
            frames = frame(HEADERS, END_STREAM, 1, &POST);
        }
        for _ in 0..FRAMES_PER_BATCH {
            // A literal field without indexing, of 100 bytes.
            let mut field = vec![0, 1, b'x', 100];
            field.extend([b'y'; 100]);
            frames.extend(frame(CONTINUATION, 0, 1, &field));
        }
        frames
    })
    .await;
}

#[tokio::test]
async fn more_streams_than_are_allowed_are_refused_and_harm_nobody() {
    flooded(Then::MayGoOn, |batch| {
        (0..FRAMES_PER_BATCH)
            .flat_map(|number| {
                let stream = 2 * (batch * FRAMES_PER_BATCH + number) + 1;
                frame(HEADERS, END_HEADERS, stream, &POST)
            })
            .collect()
    })
    .await;
}

#[tokio::test]
async fn frames_that_ask_for_an_answer_each_harm_nobody() {
    for (kind, stream, payload) in [
        (SETTINGS, 0, &[][..]),
        (PING, 0, &[7; 8]),
        (WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
    ] {
        flooded(Then::MayGoOn, |_| {
            frame(kind, 0, stream, payload).repeat(FRAMES_PER_BATCH as usize)
        })
        .await;
    }
}
