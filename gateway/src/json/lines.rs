//! What a device sends: JSON, one object in all or one a line, turned into the messages of a gRPC call as it arrives.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use prost::Message;
use proto::MAX_DEVICE_MESSAGE_BYTES;
use serde::de::DeserializeOwned;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tokio_util::sync::PollSemaphore;
use tonic::{Code, Status, body::Body};

use crate::status::full;

/// Bytes that one permit of the store for long lines stands for.
pub const UNIT: usize = 1024;
/// Longest line: the largest message with its bytes as Base64, which takes four characters for three, and its frame.
const MAX_LINE: usize = MAX_DEVICE_MESSAGE_BYTES / 3 * 4 + 8 * 1024;
/// Lines up to this are not counted.
const SMALL: usize = 8 * 1024;
/// How long a long line may take, its wait for memory included.
const TIME: Duration = Duration::from_secs(30);
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Of gRPC: one byte of flags, four of length.
const PREFIX: usize = 5;

/// Reads one message and writes it as gRPC does.
type Read = fn(&[u8]) -> Result<Bytes, serde_json::Error>;

/// What the body is.
#[derive(Clone, Copy)]
pub enum Said {
    /// One object, which ends with the body.
    One(Read),
    /// One object a line. Empty lines are passed over.
    Many(Read),
}

/// A body of JSON as a body of gRPC messages.
pub struct Lines {
    body: Body,
    said: Said,
    /// What has arrived of a line that is not whole, or lines that are not handed on yet.
    buffer: BytesMut,
    /// Up to here there is no end of a line in the buffer.
    searched: usize,
    number: usize,
    memory: Arc<Semaphore>,
    long: Option<Box<Long>>,
    ended: bool,
}

/// A line on its way that is long.
struct Long {
    store: PollSemaphore,
    permit: Option<OwnedSemaphorePermit>,
    late: Pin<Box<Sleep>>,
}

/// Reads `M` from JSON and writes it as a gRPC message.
pub fn read<M: DeserializeOwned + Message>(json: &[u8]) -> Result<Bytes, serde_json::Error> {
    let message: M = serde_json::from_slice(json)?;
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    frame.put_u8(0);
    // A line is shorter than that.
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // Fails for want of room alone.
    let _ = message.encode(&mut frame);
    Ok(frame.freeze())
}

impl Lines {
    pub fn new(body: Body, said: Said, memory: &Arc<Semaphore>) -> Self {
        Self {
            body,
            said,
            buffer: BytesMut::new(),
            searched: 0,
            number: 0,
            memory: Arc::clone(memory),
            long: None,
            ended: false,
        }
    }

    /// The next line that is whole, without its end.
    fn line(&mut self) -> Option<BytesMut> {
        match self.said {
            Said::One(_) => {
                (self.ended && self.number == 0).then(|| std::mem::take(&mut self.buffer))
            }
            Said::Many(_) => {
                let unseen = self.buffer.get(self.searched..).unwrap_or_default();
                if let Some(end) = unseen.iter().position(|byte| *byte == b'\n') {
                    let line = self.buffer.split_to(self.searched + end + 1);
                    self.searched = 0;
                    return Some(line);
                }
                self.searched = self.buffer.len();
                // The last line needs no end.
                (self.ended && !self.buffer.is_empty()).then(|| {
                    self.searched = 0;
                    std::mem::take(&mut self.buffer)
                })
            }
        }
    }

    fn parse(&mut self, line: &[u8]) -> Result<Bytes, Status> {
        match self.said {
            Said::One(read) => read(line).map_err(|error| {
                Status::invalid_argument(format!("the body cannot be read: {error}"))
            }),
            // What a stream takes for a message that cannot be read, and answers as such.
            Said::Many(read) => read(line).map_err(|error| {
                Status::internal(format!("line {} cannot be read: {error}", self.number))
            }),
        }
    }

    /// Ready when what has arrived, and is no line yet, may be kept.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if self.buffer.len() <= SMALL {
            self.long = None;
            return Poll::Ready(Ok(()));
        }
        if self.buffer.len() > MAX_LINE {
            return Poll::Ready(Err(self.too_large()));
        }
        let long = self.long.get_or_insert_with(|| {
            Box::new(Long {
                store: PollSemaphore::new(Arc::clone(&self.memory)),
                permit: None,
                late: Box::pin(sleep(TIME)),
            })
        });
        if long.late.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(if long.permit.is_some() {
                Status::deadline_exceeded("a long line took too long to arrive")
            } else {
                full("too many long lines at once", RETRY_AFTER)
            }));
        }
        if long.permit.is_none() {
            // How long it becomes is not known. The store is never closed.
            let units = u32::try_from(MAX_LINE.div_ceil(UNIT)).unwrap_or(u32::MAX);
            long.permit = ready!(long.store.poll_acquire_many(cx, units));
        }
        Poll::Ready(Ok(()))
    }

    fn too_large(&self) -> Status {
        let message = format!("longer than {MAX_LINE} bytes");
        match self.said {
            Said::One(_) => Status::invalid_argument(format!("the body is {message}")),
            Said::Many(_) => Status::new(
                Code::OutOfRange,
                format!("line {} is {message}", self.number + 1),
            ),
        }
    }
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            if let Some(line) = this.line() {
                this.number += 1;
                if matches!(this.said, Said::Many(_)) && line.trim_ascii().is_empty() {
                    continue;
                }
                let frame = this.parse(&line);
                return Poll::Ready(Some(frame.map(Frame::data)));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            ready!(this.poll_room(cx))?;
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // Trailers say nothing here.
                    if let Ok(bytes) = frame.into_data() {
                        this.buffer.extend_from_slice(&bytes);
                    }
                }
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => this.ended = true,
            }
        }
    }
}
