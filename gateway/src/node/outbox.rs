//! What waits to be sent to one device: few messages, and an end that overtakes them.
//!
//! A channel would keep its messages until the peer reads them. Here the end of a stream drops what waits, so that a
//! device that never reads costs nothing once it was cut, and an idle stream costs a few words.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures::Stream;
use proto::node::{GatewayEvent, gateway_event::Event};
use tokio::time::Instant;
use tonic::Status;

/// Most messages that wait.
pub const CAPACITY: usize = 8;

/// The gateway's side.
#[derive(Debug)]
pub struct Outbox(Arc<Mutex<Queue>>);

/// The device's side: what tonic sends.
#[derive(Debug)]
pub struct Outgoing(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    // Boxed, for the queue keeps its room when it is empty.
    messages: VecDeque<Box<GatewayEvent>>,
    /// Since when the first message waits.
    waiting_since: Option<Instant>,
    /// How the stream ends. `Some(Ok(()))`: in good order.
    end: Option<Result<(), Status>>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// The reader is gone: the device, or its connection, is no more.
    closed: bool,
}

/// Both sides of a new outbox.
pub fn new() -> (Outbox, Outgoing) {
    let queue = Arc::new(Mutex::new(Queue::default()));
    (Outbox(Arc::clone(&queue)), Outgoing(queue))
}

impl Outbox {
    /// Takes a message. Who pushes looks first whether there is [`Self::room`]; past it, and once the reader is gone,
    /// messages are dropped.
    pub fn push(&self, event: Event) {
        let mut queue = lock(&self.0);
        if queue.closed || queue.end.is_some() || queue.messages.len() >= CAPACITY {
            return;
        }
        queue
            .messages
            .push_back(Box::new(GatewayEvent { event: Some(event) }));
        queue.waiting_since.get_or_insert_with(Instant::now);
        wake(queue.reader.take());
    }

    /// How many messages can be taken.
    pub fn room(&self) -> usize {
        CAPACITY.saturating_sub(lock(&self.0).messages.len())
    }

    /// Since when the first message has been waiting to be read.
    pub fn waiting_since(&self) -> Option<Instant> {
        lock(&self.0).waiting_since
    }

    /// Waits until so many messages can be taken, or nobody reads any more.
    pub async fn has_room(&self, messages: usize) {
        std::future::poll_fn(|context| {
            let mut queue = lock(&self.0);
            if queue.closed || CAPACITY.saturating_sub(queue.messages.len()) >= messages {
                return Poll::Ready(());
            }
            queue.writer = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        lock(&self.0).closed
    }

    /// Ends the stream. What waits is dropped: where there is a reason to end, it is no longer of use.
    pub fn end(self, end: Result<(), Status>) {
        finish(&self.0, end);
    }
}

/// A stream that is dropped without a word was stopped together with the gateway.
impl Drop for Outbox {
    fn drop(&mut self) {
        finish(
            &self.0,
            Err(Status::unavailable("the gateway stops: use another one")),
        );
    }
}

fn finish(queue: &Mutex<Queue>, end: Result<(), Status>) {
    let mut queue = lock(queue);
    if queue.end.is_none() {
        queue.end = Some(end);
        queue.messages = VecDeque::new();
        queue.waiting_since = None;
        wake(queue.reader.take());
    }
}

impl Stream for Outgoing {
    type Item = Result<GatewayEvent, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut queue = lock(&self.0);
        if let Some(message) = queue.messages.pop_front() {
            queue.waiting_since = (!queue.messages.is_empty()).then(Instant::now);
            wake(queue.writer.take());
            return Poll::Ready(Some(Ok(*message)));
        }
        match &mut queue.end {
            None => {
                queue.reader = Some(context.waker().clone());
                Poll::Pending
            }
            Some(end) => Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err)),
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut queue = lock(&self.0);
        queue.closed = true;
        queue.messages = VecDeque::new();
        queue.waiting_since = None;
        wake(queue.writer.take());
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A panic while it is held leaves a queue that is whole.
fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use proto::node::HeartbeatAck;
    use tonic::Code;

    use super::*;

    fn ack() -> Event {
        Event::HeartbeatAck(HeartbeatAck {})
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let (outbox, outgoing) = new();
        for _ in 0..100 {
            outbox.push(ack());
        }
        assert_eq!(outbox.room(), 0);
        outbox.end(Ok(()));
        assert_eq!(
            outgoing.collect::<Vec<_>>().await.len(),
            0,
            "an end drops what waits"
        );
    }

    #[tokio::test]
    async fn messages_come_in_order_and_make_room() {
        let (outbox, mut outgoing) = new();
        for _ in 0..CAPACITY {
            outbox.push(ack());
        }
        assert!(outbox.waiting_since().is_some());
        let mut room = tokio_test_task(outbox.has_room(1));
        assert!(room.poll().is_pending());
        assert!(outgoing.next().await.unwrap().is_ok());
        assert!(room.poll().is_ready());
    }

    #[tokio::test]
    async fn an_end_overtakes_what_waits() {
        let (outbox, mut outgoing) = new();
        outbox.push(ack());
        outbox.end(Err(Status::permission_denied("suspended")));
        assert_eq!(
            outgoing.next().await.unwrap().unwrap_err().code(),
            Code::PermissionDenied
        );
        assert!(outgoing.next().await.is_none());
    }

    #[tokio::test]
    async fn one_that_is_dropped_says_that_the_gateway_stops() {
        let (outbox, mut outgoing) = new();
        drop(outbox);
        assert_eq!(
            outgoing.next().await.unwrap().unwrap_err().code(),
            Code::Unavailable
        );
    }

    #[tokio::test]
    async fn nobody_waits_for_a_reader_that_is_gone() {
        let (outbox, outgoing) = new();
        for _ in 0..CAPACITY {
            outbox.push(ack());
        }
        drop(outgoing);
        outbox.has_room(1).await;
        assert!(outbox.is_closed());
    }

    /// Polls a future by hand.
    struct Task<F>(Pin<Box<F>>);

    fn tokio_test_task<F: Future>(future: F) -> Task<F> {
        Task(Box::pin(future))
    }

    impl<F: Future> Task<F> {
        fn poll(&mut self) -> Poll<F::Output> {
            self.0
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
        }
    }
}
