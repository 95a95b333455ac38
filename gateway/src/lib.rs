//! Where devices connect: one TLS 1.3 port, and what is behind it.
//!
//! The door, in the order in which a connection meets it:
//!
//! - [`listener`]: accepts, and bounds everything that a stranger can hold;
//! - [`tls`]: who gets past the handshake;
//! - [`peer`]: who is at the other end of a connection;
//! - [`stay`]: how long an enrollee may stay, and in whose place; [`hang_up`]: and how a device is made to leave;
//! - [`json`]: for devices that cannot speak gRPC; [`door`]: who may call what; [`inflow`]: the memory of what devices send;
//! - [`enrollment`]: turns one who knows a pairing code into one who holds a certificate.
//!
//! Behind it, for devices:
//!
//! - [`renewal`]: another certificate for a device that has one;
//! - [`node`]: their streams, the invocations that these carry, and what the Device shows of it;
//! - [`artefact`]: the store for outputs that are too large for a resource;
//! - [`domain`]: what is decided about them, pure;
//! - [`index`]: what the cluster looks like, from watches.
//!
//! For people and programs that do not speak to Kubernetes: [`console`], on a port of its own.
//!
//! Around it: [`args`], [`app`] (starts and stops it all), [`server`] (HTTP/2), [`clock`], [`limits`] (counting and
//! pacing, pure), [`pool`] (bounded sets that make room), [`turns`] (fair turns at scarce work), [`tries`] (how often
//! strangers may try), [`descriptors`] (how many connections the process may have), [`heavy`] (computations that take
//! longer than a moment), [`mounted`] (files that are replaced while we run), [`metrics`], [`status`] (refusals that say
//! when to try again), [`csr`] and [`pem`] (how certificates and requests for them are written).
//!
//! A gateway keeps nothing that a restart would lose, and decides nothing about trust.

pub mod app;
pub mod args;
pub mod artefact;
pub mod clock;
pub mod console;
pub mod csr;
pub mod descriptors;
pub mod domain;
pub mod door;
pub mod enrollment;
pub mod hang_up;
pub mod heavy;
pub mod index;
pub mod inflow;
pub mod json;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod mounted;
pub mod node;
pub mod peer;
pub mod pem;
pub mod pool;
pub mod renewal;
pub mod server;
pub mod status;
pub mod stay;
pub mod tls;
pub mod tries;
pub mod turns;
