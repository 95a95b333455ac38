//! The client against a console that is played, scene by scene.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "a test fails by a panic, wherever it is raised"
)]

mod artefacts;
mod boundary;
mod events;
mod fake;
mod requests;
mod sessions;
mod tls;
