//! What operator and gateway say of an invocation that is one too many.

use crate::names::{MAX_OPEN_PER_DEVICE, MAX_OPEN_PER_NAMESPACE};

/// Of what there are as many older open ones as may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Excess {
    OfDevice,
    OfNamespace,
}

impl Excess {
    /// For `status.error.message`. `device`: the name of its Device.
    pub fn message(self, device: &str) -> String {
        match self {
            Self::OfDevice => format!(
                "Device {device} has {MAX_OPEN_PER_DEVICE} older open invocations: wait until some have ended"
            ),
            Self::OfNamespace => format!(
                "the namespace has {MAX_OPEN_PER_NAMESPACE} older open invocations: wait until some have ended"
            ),
        }
    }
}
