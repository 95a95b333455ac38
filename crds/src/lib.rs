//! Fairlead's custom resources, `fairlead.dev/v1alpha1`.
//!
//! The Rust types are the source: `generated/*.yaml` is rendered from them and a test keeps it so.
//! What a schema cannot say is in `policies/`, and who may do what is in `rbac/`; both are applied as they are.
//!
//! Here are types and the pure rules that more than one program must apply in the same way:
//!
//! - [`v1alpha1`]: the four kinds;
//! - [`names`]: labels, field managers, the names of the objects that programs share;
//! - [`conditions`]: condition types and reasons, and how one is set;
//! - [`presence`]: whether a device is there; [`lease`]: how long a Lease counts as held;
//! - [`grants`]: what a device may run;
//! - [`policies`]: the admission policies on which signatures rest;
//! - [`digest`]: the digest of a request, which is its name;
//! - [`deadline`]: until when an invocation may run; [`excess`]: of how many there are too many;
//! - [`end`]: the conditions of an invocation that has ended;
//! - [`guarded`]: how a list is read of which one object is unreadable;
//! - [`nearest`]: which of several names a mistyped one stands for;
//! - [`remedies`]: what to say where an invocation did not succeed.
//!
//! Nothing here does I/O or reads a clock.

pub mod conditions;
pub mod deadline;
pub mod definition;
pub mod digest;
pub mod end;
pub mod excess;
pub mod grants;
pub mod guarded;
pub mod lease;
pub mod names;
pub mod nearest;
pub mod policies;
pub mod presence;
pub mod remedies;
mod schema;
pub mod v1alpha1;

pub use guarded::{Guarded, Invalid};
pub use v1alpha1::{CapabilityInvocation, Device, PairingCode, PairingRequest};
