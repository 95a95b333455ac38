//! What a device is answered: gRPC messages turned into JSON as they leave, and the status at the end into a last line.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use prost::Message;
use serde::Serialize;
use tonic::{Code, Status, body::Body};

use super::refusal;

/// Of gRPC: one byte of flags, four of length.
const PREFIX: usize = 5;

type Write = fn(&[u8]) -> Result<Vec<u8>, Status>;

/// What the answer is.
#[derive(Clone, Copy)]
pub enum Answer {
    /// One object.
    One(Write),
    /// One object a line.
    Many(Write),
}

/// A body of gRPC messages as a body of JSON.
pub struct Answers {
    body: Body,
    answer: Answer,
    buffer: BytesMut,
    ended: bool,
}

/// Writes as JSON what is one message of `M`.
pub fn write<M: Message + Default + Serialize>(message: &[u8]) -> Result<Vec<u8>, Status> {
    let message = M::decode(message).map_err(|error| Status::internal(error.to_string()))?;
    serde_json::to_vec(&message).map_err(|error| Status::internal(error.to_string()))
}

impl Answers {
    pub fn new(body: Body, answer: Answer) -> Self {
        Self {
            body,
            answer,
            buffer: BytesMut::new(),
            ended: false,
        }
    }

    /// The next message that is whole.
    fn message(&mut self) -> Option<BytesMut> {
        let prefix = self.buffer.get(..PREFIX)?;
        let length = usize::try_from(prefix.get(1..).map(|mut bytes| bytes.get_u32())?).ok()?;
        (self.buffer.len() >= PREFIX + length).then(|| {
            self.buffer.advance(PREFIX);
            self.buffer.split_to(length)
        })
    }

    fn text(&self, message: &[u8]) -> Result<Bytes, Status> {
        match self.answer {
            Answer::One(write) => write(message).map(Bytes::from),
            Answer::Many(write) => write(message).map(|mut line| {
                line.push(b'\n');
                Bytes::from(line)
            }),
        }
    }

    /// The last line of a stream that ended with a reason. What is answered once has no such line: its headers have said
    /// already that it succeeded.
    fn last(&self, status: &Status) -> Option<Bytes> {
        match self.answer {
            Answer::Many(_) if status.code() != Code::Ok => Some(refusal::line(status)),
            Answer::One(_) | Answer::Many(_) => None,
        }
    }
}

impl HttpBody for Answers {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            if let Some(message) = this.message() {
                return Poll::Ready(Some(this.text(&message).map(Frame::data)));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let ended = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                None => None,
                Some(Err(status)) => Some(status),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => {
                        this.buffer.extend_from_slice(&bytes);
                        continue;
                    }
                    Err(frame) => frame
                        .into_trailers()
                        .ok()
                        .and_then(|trailers| Status::from_header_map(&trailers)),
                },
            };
            this.ended = true;
            if let Some(line) = ended.and_then(|status| this.last(&status)) {
                return Poll::Ready(Some(Ok(Frame::data(line))));
            }
        }
    }
}
