//! Asking the person at the device before something runs.
//!
//! - [`rules`]: what is decided without asking;
//! - [`question`]: what is asked, and how an answer is tied to it;
//! - [`desk`]: between the agent's loop, which decides, and whoever shows and answers;
//! - [`access`]: who may answer;
//! - [`wire`]: what is said through the agent's socket, one line at a time;
//! - [`socket`]: the agent's end of it; [`client`]: the other one;
//! - [`hook`]: what is run when something begins to wait;
//! - [`commands`]: what a person types; [`notify`]: what a person clicks.
//!
//! Nothing here starts anything: [`crate::agent::plan`] decides, and the journal knows first.

pub mod access;
pub mod client;
pub mod commands;
pub mod desk;
pub mod hook;
pub mod notify;
pub mod question;
pub mod rules;
pub mod socket;
pub mod wire;
