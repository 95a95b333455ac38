//! The one table of what the console answers, what that takes, and of whom.
//!
//! ```text
//! route ──► permission ──► Kubernetes access reviews of the caller
//! ```
//!
//! The router is made of [`RouteId::ALL`] and of an exhaustive match from [`RouteId`] to what answers, so what is not in
//! the table cannot be mounted, and what is in it is answered. The reviews are those that the API server makes of the
//! same person with kubectl: the console has no rights of its own to give.

mod permission;
mod route;

pub use permission::{Permission, Review, Target};
pub use route::{Bound, Need, Route, RouteId, Scope, Verb};

#[cfg(test)]
mod tests;
