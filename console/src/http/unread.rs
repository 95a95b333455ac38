//! The body of a request, which may be answered before it was read: to whoever may not ask, for one.
//!
//! Over HTTP/1.1 what lies unread in a connection ends it with a reset, and who is still sending then may never see the
//! answer. So the rest is read first, within bounds, and thrown away.

use axum::body::Body;
use futures::StreamExt as _;
use http::{Version, header, request::Parts};
use http_body::Body as _;
use tokio::time::timeout;

use crate::guard::bounds::{BODY_TIME, MAX_BODY};

/// Most that is thrown away. Who sends more learns of it by the reset alone.
const MOST: usize = 4 * MAX_BODY;

/// A body that was perhaps not read.
pub struct Unread {
    body: Option<Body>,
    /// Whether the peer sends it without having heard from us, over a connection that has nothing else.
    comes_anyway: bool,
}

impl Unread {
    pub fn new(parts: &Parts, body: Body) -> Self {
        // Who expects a 100 sends nothing once there is an answer.
        let waits = parts.headers.contains_key(header::EXPECT);
        Self {
            body: Some(body),
            comes_anyway: parts.version < Version::HTTP_2 && !waits,
        }
    }

    /// Whoever takes it reads it.
    pub fn take(&mut self) -> Body {
        self.body.take().unwrap_or_default()
    }

    /// Reads what nobody took.
    pub async fn discard(self) {
        let Some(body) = self
            .body
            .filter(|body| self.comes_anyway && !body.is_end_stream())
        else {
            return;
        };
        if body.size_hint().lower() > MOST as u64 {
            return;
        }
        let mut data = body.into_data_stream();
        let reading = async {
            let mut left = MOST;
            while let Some(Ok(bytes)) = data.next().await {
                match left.checked_sub(bytes.len()) {
                    Some(rest) => left = rest,
                    None => break,
                }
            }
        };
        // Late or not, the answer goes out.
        let _ = timeout(BODY_TIME, reading).await;
    }
}
