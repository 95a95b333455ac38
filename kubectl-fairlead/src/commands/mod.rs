//! One file per command: what it takes, what it asks, what it shows. [`fleet`]: several devices at once.

pub mod artifact;
pub mod cancel;
pub mod decide;
pub mod describe;
pub mod devices;
pub mod fleet;
pub mod grant;
pub mod invocations;
pub mod invoke;
pub mod pair;
pub mod pending;
pub mod request;
pub mod trust;
pub mod version;
