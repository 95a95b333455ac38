//! What devices and gateways say to each other: generated from `fairlead/node/v1/*.proto`, and how it is encoded.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// Version 1 of the protocol between devices and gateways.
#[allow(
    clippy::pedantic,
    clippy::use_self,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod node {
    tonic::include_proto!("fairlead.node.v1");

    // What the mapping does not know is refused, not passed over: who writes JSON by hand learns of a slip.
    #[cfg(feature = "json")]
    include!(concat!(env!("OUT_DIR"), "/fairlead.node.v1.serde.rs"));
}

/// The name that every gateway's certificate carries, whatever address it is reached at: a device may find its gateway
/// by any address, and still must know that it is one.
pub const SERVER_NAME: &str = "gateway.fairlead.internal";

/// Largest message that a gateway reads from a device, in bytes: a result with the largest output that a resource may
/// ask for, and its frame.
pub const MAX_DEVICE_MESSAGE_BYTES: usize = 256 * 1024 + 16 * 1024;
/// Largest message that a gateway reads from an enrollee, in bytes: an application with 128 capabilities.
pub const MAX_ENROLLEE_MESSAGE_BYTES: usize = 32 * 1024;
/// Largest message that a device reads from a gateway, in bytes: a dispatch with the largest input, or a bundle.
pub const MAX_GATEWAY_MESSAGE_BYTES: usize = 128 * 1024;
/// Bytes of one HTTP/2 call that a peer may send before they are read. The default of RFC 9113 (section 6.9.2); the
/// libraries' own is megabytes.
pub const STREAM_WINDOW: u32 = 65_535;
/// Bytes of all calls of a connection that a peer may send before they are read.
///
/// h2 allows a connection to hold unread frames whose overhead sums up to half of this window, and ends the connection
/// beyond that with `ENHANCE_YOUR_CALM`, `too_many_data_frames`. A DATA frame of `n` bytes below 256 counts as 256 - `n`.
/// An honest peer fills the window of its stream while the other side stands still. The smallest messages that come in
/// numbers carry the ID of an invocation and have 45 bytes or more: 65,535 / 45 frames of 211 bytes of overhead each are
/// 307,000 bytes, so half of this window is more. Of heartbeats it allows 1,300.
///
/// An idle connection costs nothing of it: a window is credit. A hostile peer of a gateway can have the window's bytes
/// held and half as much overhead.
pub const CONNECTION_WINDOW: u32 = 640 * 1024;
/// Longest time that an invocation may take once it was sent, in seconds: the bound of `timeoutSeconds` in the resource.
pub const MAX_TIMEOUT_SECONDS: u32 = 3600;
/// Trailer that says, in milliseconds, when to try again.
pub const RETRY_AFTER: &str = "retry-after-ms";

/// tonic starts every stream with two buffers of 8 KiB, which an idle stream keeps. Ours grow when they must.
const BUFFER: usize = 256;
/// tonic's own default: how much is encoded before it is handed on.
const YIELD: usize = 32 * 1024;

/// Protobuf with small buffers: an idle stream costs the gateway 8 KiB less on each side.
#[derive(Clone, Debug)]
pub struct SmallBufferCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBufferCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBufferCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER, YIELD))
    }
}
