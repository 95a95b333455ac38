//! The operator: trust, certificates, expiry and exceptions. It never talks to a device.
//!
//! In the order of the story:
//!
//! - [`args`] and [`app`]: the command line, and what it starts;
//! - [`lease`]: which of several operators reconciles;
//! - [`leader`] and [`loops`]: what that one does: its authority, its watches, its loops;
//! - [`authority`]: the certificate authority, and what it signs;
//! - [`console_keys`]: what seals the sessions of console users;
//! - [`watch`] and [`gateways`]: what happens in the cluster, seen once and shared;
//! - [`policies`]: whether the admission policies are in force on which a signature rests;
//! - [`reconcile`]: what every kind's loop has in common;
//! - [`pairing_code`], [`pairing_request`], [`device`], [`invocation`]: one loop each, observe → plan → apply;
//! - [`report`] and [`metrics`]: what people see of it;
//! - [`context`]: what the loops share.
//!
//! `plan` is pure and total: what is wrong with an object becomes a condition and an event. Only `observe` and `apply`
//! hold a client.

pub mod app;
pub mod args;
pub mod authority;
pub mod console_keys;
pub mod context;
pub mod device;
pub mod gateways;
pub mod invocation;
pub mod leader;
pub mod lease;
pub mod loops;
pub mod metrics;
pub mod pairing_code;
pub mod pairing_request;
pub mod policies;
#[cfg(test)]
mod pretended;
pub mod reconcile;
pub mod report;
pub mod watch;
