//! The console API, version 1, as it crosses the wire. The console serves these types and its clients read them, so the two
//! cannot disagree; the OpenAPI document is generated from them.
//!
//! - [`routes`]: where everything is;
//! - [`id`]: how an object of a namespace is named in a path;
//! - [`problem`]: the one form of every error;
//! - [`session`], [`access`]: who the caller is, and what he may do;
//! - [`inventory`]: devices, in the order in which they need attention;
//! - [`pairing`], [`device`], [`invocation`]: what is done to them;
//! - [`event`]: what changes;
//! - [`query`]: what the query of a URL may say.
//!
//! Times are RFC 3339 in UTC. A field that is absent is not known or does not apply; lists that are empty are present.
//! Clients must accept fields that they do not know, and values of enums that they do not know (`Other`).

pub mod access;
pub mod device;
pub mod event;
pub mod id;
pub mod inventory;
pub mod invocation;
mod open_enum;
pub mod pairing;
pub mod problem;
pub mod query;
pub mod routes;
pub mod session;

pub use id::ObjectId;
