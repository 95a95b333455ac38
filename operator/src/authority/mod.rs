//! The certificate authority.
//!
//! - `ca`: its certificate and key, and what it signs. Pure, but for randomness;
//! - [`csr`]: what a device's request proves;
//! - [`chain`]: what a certificate that was issued says;
//! - `moments`: conversions of time, all in one place;
//! - [`store`]: the Secrets that the operator makes;
//! - [`plan`]: whether the authority that was found may be used, or one may be made. Pure;
//! - `finding`: gets it or makes it, and looks after its Secret;
//! - [`trust_bundle`]: what devices and people verify gateways with, signed;
//! - [`gateway_certificate`]: what gateways serve with;
//! - [`keeper`]: looks after all of it while the operator leads.

#[cfg(debug_assertions)]
mod brief;
mod ca;
pub mod chain;
pub mod csr;
mod finding;
pub mod gateway_certificate;
pub mod keeper;
mod moments;
pub mod plan;
pub mod store;
pub mod trust_bundle;

pub use ca::{Authority, Error, GATEWAY_NAME, Issued, new_key};
pub use finding::Kept;
