//! HTTP/2 as devices get it: small windows and few streams, for what one connection may hold is paid for by all.

use std::time::Duration;

use tonic::transport::Server;
use tower::layer::util::{Identity, Stack};

use crate::{door::DoorLayer, json::JsonLayer, listener::Limits};

/// A device has one long call and a few short ones.
const MAX_STREAMS: u32 = 8;
const MAX_HEADER_BYTES: u32 = 8 * 1024;
/// How long a connection may be silent before it is asked whether it is there. Devices send heartbeats more often than
/// that, so living ones are never asked.
const PING_AFTER: Duration = Duration::from_mins(1);
const PING_TIME: Duration = Duration::from_secs(20);

/// A server without services, the door in front of those it will have, and in front of the door who translates JSON.
pub fn new(limits: Limits) -> Server<Stack<DoorLayer, Stack<JsonLayer, Identity>>> {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(proto::STREAM_WINDOW)
        .initial_connection_window_size(proto::CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(PING_AFTER))
        .http2_keepalive_timeout(Some(PING_TIME))
        .layer(JsonLayer::new(limits.message_memory))
        .layer(DoorLayer::new(limits.message_memory))
}
