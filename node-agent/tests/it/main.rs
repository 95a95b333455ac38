//! The agent against gateways that a test plays, over real TLS on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod gateway;
mod pairing;
mod serving;
