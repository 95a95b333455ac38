//! What every Fairlead process shares, so that all of them behave alike.
//!
//! - [`log`]: how a process logs;
//! - [`shutdown`]: how it stops, and which tasks it waits for;
//! - [`admin`] (feature `admin`): `/live`, `/ready` and `/metrics` on a port apart from traffic;
//! - [`kubeconfig`] (feature `kubeconfig`): how a program finds the API server, as kubectl does;
//! - [`proxy`] (feature `proxy`): which proxy a connection goes through;
//! - [`lease`] (feature `lease`): the Lease that says that a process is alive;
//! - [`origin`]: what counts as one source of connections, for bounds and fair shares.
//!
//! Nothing here knows what the process is for.

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "kubeconfig")]
pub mod kubeconfig;
#[cfg(feature = "lease")]
pub mod lease;
pub mod log;
pub mod origin;
#[cfg(feature = "proxy")]
pub mod proxy;
pub mod shutdown;
