//! The gateway over real TLS on the loopback, with an API server that is a map.
//!
//! What the door does to those who come: devices, strangers, and those who do not play by the rules. The whole story
//! on a real API server is told in `e2e`.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "a test fails by a panic, wherever it is raised"
)]

mod api;
mod authority;
mod bounds;
mod flood;
mod frames;
mod fuzz;
mod handshake;
mod hub;
mod index;
mod pairing;
mod relay;
mod renewal;
mod stranger;
mod wire;
