//! The body of an answer that keeps something until it is sent or dropped.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

/// A body that keeps a place: a peer that reads slowly holds its place meanwhile.
struct Kept<T> {
    body: Body,
    _kept: T,
}

/// Returns the body with what it keeps.
pub fn keeping<T: Send + Unpin + 'static>(body: Body, kept: T) -> Body {
    Body::new(Kept { body, _kept: kept })
}

impl<T: Unpin> HttpBody for Kept<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
