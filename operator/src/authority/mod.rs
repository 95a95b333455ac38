//! The certificate authority.
//!
//! - `ca`: its certificate and key, and what it signs. Pure, but for randomness;
//! - [`csr`]: what a device's request proves;
//! - [`chain`]: what a certificate that was issued says;
//! - `moments`: conversions of time, all in one place;
//! - [`store`]: the Secrets and the ConfigMap that it lives in.

#[cfg(debug_assertions)]
mod brief;
mod ca;
pub mod chain;
pub mod csr;
mod moments;
pub mod store;

pub use ca::{Authority, Error, GATEWAY_NAME, Issued, new_key};
