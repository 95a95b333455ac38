//! The console API, served by every gateway from watch-fed indexes and with the caller's own Kubernetes rights.
//!
//! A request, in the order in which it meets them:
//!
//! - [`serve`]: HTTPS, and what a connection may hold;
//! - [`guard`]: bounds, rates, what browsers are told;
//! - [`http`]: the one way that every request goes, and what answers it;
//! - [`caller`]: whose token it is; requests to the API server with that token and no other;
//! - [`session`]: a cookie in the place of a token, sealed; CSRF; logging out everywhere;
//! - [`registry`]: what is answered, and what that takes; [`access`]: whether the caller has it.
//!
//! What it shows of the cluster:
//!
//! - [`index`]: from watches; no request to the API server for a page;
//! - [`inventory`]: order, filters, pages, what is said of a device, pure;
//! - [`changes`]: what changes, for who follows;
//! - [`record`]: resources as the API shows them.
//!
//! Around it: [`problem`] (the one form of every error), [`openapi`] (the document), [`args`], [`metrics`], [`clock`].
//!
//! The gateway's own rights are used to watch and to ask who a token belongs to. What a caller reads or changes beyond
//! the index goes out with the caller's token: nothing is lent, nobody is impersonated.

pub mod access;
pub mod args;
pub mod caller;
pub mod changes;
pub mod clock;
mod console;
pub mod guard;
pub mod http;
pub mod index;
pub mod inventory;
pub mod metrics;
pub mod openapi;
pub mod problem;
pub mod record;
pub mod registry;
pub mod serve;
pub mod session;

pub use console::{Console, Limits, Parts};
