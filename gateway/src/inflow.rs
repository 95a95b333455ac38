//! Counts the memory of large messages while they arrive, for all devices together.
//!
//! A message is kept whole until it can be read, so a device that begins a large one and does not end it makes us hold
//! it. One may; many together must not. So a large message takes its length out of one store for all, waits while that
//! is empty (HTTP/2 then makes the device wait), and has to be there in time. Small ones cost no more than the
//! connection that they come on, and are not counted.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use proto::MAX_DEVICE_MESSAGE_BYTES;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tokio_util::sync::PollSemaphore;
use tonic::{Status, body::Body};

use crate::status::full;

/// Messages up to this are not counted, in bytes.
const SMALL: u32 = 8 * 1024;
/// How long a large message may take, its wait for memory included.
const TIME: Duration = Duration::from_secs(30);
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Of gRPC: one byte of flags, four of length.
const PREFIX: u8 = 5;

/// A request's body whose large messages are counted.
pub struct Inflow {
    body: Body,
    memory: Arc<Semaphore>,
    scan: Scan,
    /// Only while a large message arrives: thousands of these lie idle.
    large: Option<Box<Large>>,
}

/// A large message on its way.
struct Large {
    units: u32,
    store: PollSemaphore,
    permit: Option<OwnedSemaphorePermit>,
    /// What has arrived and waits for the permit.
    withheld: Option<Bytes>,
    late: Pin<Box<Sleep>>,
}

impl Inflow {
    /// Bytes that one permit of the store stands for.
    pub const UNIT: usize = 1024;

    pub fn new(body: Body, memory: Arc<Semaphore>) -> Self {
        Self {
            body,
            memory,
            scan: Scan::default(),
            large: None,
        }
    }

    /// Where the bytes that are handed on leave a message half-way, that is large: what it takes.
    fn note(&mut self, bytes: &Bytes) {
        // The end of the large one before; its memory is free when what follows has been asked for.
        let whole = self.scan.feed(bytes);
        if whole {
            self.large = None;
        }
        if self.large.is_none()
            && let Some(length) = self.scan.large()
        {
            let bytes = usize::try_from(length).unwrap_or(usize::MAX);
            self.large = Some(Box::new(Large {
                units: u32::try_from(bytes.div_ceil(Self::UNIT)).unwrap_or(u32::MAX),
                store: PollSemaphore::new(Arc::clone(&self.memory)),
                permit: None,
                withheld: None,
                late: Box::pin(sleep(TIME)),
            }));
        }
    }
}

impl Large {
    /// Ready when the memory is there.
    fn poll_permit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if self.late.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(if self.permit.is_some() {
                Status::deadline_exceeded("a large message took too long to arrive")
            } else {
                full("too many large messages at once", RETRY_AFTER)
            }));
        }
        if self.permit.is_none() {
            // Never closed.
            self.permit = ready!(self.store.poll_acquire_many(cx, self.units));
        }
        Poll::Ready(Ok(()))
    }
}

impl HttpBody for Inflow {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Some(large) = &mut this.large {
            ready!(large.poll_permit(cx))?;
            if let Some(withheld) = large.withheld.take() {
                return Poll::Ready(Some(Ok(Frame::data(withheld))));
            }
        }
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let bytes = match frame.into_data() {
            Ok(bytes) => bytes,
            Err(other) => return Poll::Ready(Some(Ok(other))),
        };
        this.note(&bytes);
        if let Some(large) = &mut this.large
            && large.permit.is_none()
        {
            match large.poll_permit(cx) {
                Poll::Ready(permitted) => permitted?,
                Poll::Pending => {
                    large.withheld = Some(bytes);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.large
            .as_ref()
            .is_none_or(|large| large.withheld.is_none())
            && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Where in the stream of gRPC's messages we are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Scan {
    /// Bytes of the prefix that were seen.
    seen: u8,
    length: u32,
    /// Bytes of the message that are still to come.
    left: u32,
}

impl Scan {
    /// Goes on; whether a message ended.
    fn feed(&mut self, mut bytes: &[u8]) -> bool {
        let mut ended = false;
        loop {
            while self.seen < PREFIX {
                let Some((byte, rest)) = bytes.split_first() else {
                    return ended;
                };
                if self.seen > 0 {
                    self.length = (self.length << 8) | u32::from(*byte);
                    self.left = self.length;
                }
                self.seen += 1;
                bytes = rest;
            }
            let here = usize::try_from(self.left)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            bytes = &bytes[here..];
            self.left -= u32::try_from(here).unwrap_or(self.left);
            if self.left > 0 {
                return ended;
            }
            *self = Self::default();
            ended = true;
        }
    }

    /// Length of the message that has begun, where it counts. One that is longer than may be is refused as soon as its
    /// length is read, and nothing of it kept.
    fn large(&self) -> Option<u32> {
        let most = u32::try_from(MAX_DEVICE_MESSAGE_BYTES).unwrap_or(u32::MAX);
        (self.seen == PREFIX && (SMALL + 1..=most).contains(&self.length)).then_some(self.length)
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, channel::mpsc, poll};
    use tokio::time::Instant;
    use tonic::Code;

    use super::*;

    /// The first `of` bytes of a message of so many.
    fn message(length: u32, of: usize) -> Bytes {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.extend(vec![7; length as usize]);
        bytes.truncate(of);
        bytes.into()
    }

    fn whole(length: u32) -> Bytes {
        message(length, usize::MAX)
    }

    struct Sender(mpsc::UnboundedSender<Bytes>);

    impl Sender {
        fn send(&self, bytes: Bytes) {
            self.0.unbounded_send(bytes).unwrap();
        }
    }

    /// A body that is fed by a channel.
    struct Fed(mpsc::UnboundedReceiver<Bytes>);

    impl HttpBody for Fed {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0
                .poll_next_unpin(cx)
                .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    fn inflow(memory: &Arc<Semaphore>) -> (Sender, Inflow) {
        let (sender, receiver) = mpsc::unbounded();
        (
            Sender(sender),
            Inflow::new(Body::new(Fed(receiver)), Arc::clone(memory)),
        )
    }

    async fn next(inflow: &mut Inflow) -> Result<usize, Status> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *inflow).poll_frame(cx))
            .await
            .unwrap()?;
        Ok(frame.into_data().unwrap().len())
    }

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let stream = [
            whole(3),
            whole(0),
            whole(20_000),
            whole(1),
            message(9000, 6000),
        ]
        .concat();
        for cut in [1, 2, 3, 5, 7, 4096, stream.len()] {
            let mut scan = Scan::default();
            let mut seen_large = false;
            for piece in stream.chunks(cut) {
                scan.feed(piece);
                seen_large |= scan.large() == Some(20_000);
            }
            assert_eq!(
                (scan.length, scan.left),
                (9000, 9000 - (6000 - 5)),
                "cut at {cut}"
            );
            assert_eq!(scan.large(), Some(9000));
            assert!(seen_large || cut == stream.len());
        }
    }

    #[tokio::test]
    async fn a_large_message_takes_memory_until_it_is_whole() {
        let memory = Arc::new(Semaphore::new(100));
        let (sender, mut inflow) = inflow(&memory);
        sender.send(whole(8000));
        next(&mut inflow).await.unwrap();
        assert_eq!(
            memory.available_permits(),
            100,
            "small ones are not counted"
        );

        let large = whole(64 * 1024);
        sender.send(large.slice(..1000));
        next(&mut inflow).await.unwrap();
        assert_eq!(memory.available_permits(), 36);
        sender.send(large.slice(1000..));
        next(&mut inflow).await.unwrap();
        assert_eq!(memory.available_permits(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn one_for_which_there_is_no_memory_waits_its_turn() {
        let memory = Arc::new(Semaphore::new(100));
        let (first, mut holder) = inflow(&memory);
        first.send(message(90 * 1024, 1000));
        next(&mut holder).await.unwrap();

        let (second, mut waiter) = inflow(&memory);
        second.send(message(20 * 1024, 1000));
        second.send(whole(20 * 1024).slice(1000..));
        {
            let mut waiting = Box::pin(next(&mut waiter));
            assert!(poll!(&mut waiting).is_pending());
            drop(holder);
            assert_eq!(waiting.await.unwrap(), 1000);
        }
        assert_eq!(next(&mut waiter).await.unwrap(), 20 * 1024 + 5 - 1000);
        assert_eq!(memory.available_permits(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_go_on_loses_his_stream_and_the_memory_is_free() {
        let memory = Arc::new(Semaphore::new(100));
        let (first, mut stalled) = inflow(&memory);
        first.send(message(90 * 1024, 1000));
        next(&mut stalled).await.unwrap();
        let (second, mut waiter) = inflow(&memory);
        second.send(message(20 * 1024, 1000));

        let start = Instant::now();
        let (stalled_end, waiter_end) = futures::join!(next(&mut stalled), next(&mut waiter));
        assert_eq!(stalled_end.unwrap_err().code(), Code::DeadlineExceeded);
        assert_eq!(waiter_end.unwrap_err().code(), Code::ResourceExhausted);
        assert_eq!(start.elapsed().as_secs(), 30);
        drop((stalled, waiter));
        assert_eq!(memory.available_permits(), 100);
    }

    #[tokio::test]
    async fn one_that_is_longer_than_may_be_is_handed_on_to_be_refused() {
        let memory = Arc::new(Semaphore::new(1));
        let (sender, mut inflow) = inflow(&memory);
        sender.send(Bytes::new());
        sender.send(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]));
        assert_eq!(next(&mut inflow).await.unwrap(), 0);
        assert_eq!(next(&mut inflow).await.unwrap(), 8);
    }
}
