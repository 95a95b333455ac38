//! The agent against gateways that a test plays, over real TLS on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "a test fails by panicking"
)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one thing and not for the others"
)]
#![expect(clippy::large_futures, reason = "there is one of each")]

mod commands;
mod dial;
mod disk;
mod doctor;
mod fuzz;
mod gateway;
mod groups;
mod init;
mod install;
mod mediation;
mod notify;
mod pairing;
mod process;
mod proxy;
mod renewal;
mod serving;
mod skipped;
