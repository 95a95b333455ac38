//! Version `v1alpha1` of every kind, one file each.

pub mod capability_invocation;
pub mod device;
pub mod pairing_code;
pub mod pairing_request;
mod shared;

pub use capability_invocation::{
    CapabilityInvocation, CapabilityInvocationSpec, CapabilityInvocationStatus,
};
pub use device::{Device, DeviceSpec, DeviceStatus};
pub use pairing_code::{PairingCode, PairingCodeSpec, PairingCodeStatus};
pub use pairing_request::{PairingRequest, PairingRequestSpec, PairingRequestStatus};
pub use shared::{ClientKind, DeclaredCapability, Execution, Grants, ObjectReference, Platform};
