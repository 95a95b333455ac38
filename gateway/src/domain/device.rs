//! A Device as the gateway knows it, and whether it is let in.

use std::fmt;

use crds::v1alpha1::{
    Device,
    device::{DeviceSpec, DeviceStatus, TrustDecision},
};
use pairing::key::KeyFingerprint;

/// Namespace and name of a Device.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeviceKey {
    pub namespace: String,
    pub name: String,
}

impl DeviceKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Device without what the gateway never asks for: there is one of these for each device of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownDevice {
    pub key: DeviceKey,
    pub resource_version: String,
    pub generation: Option<i64>,
    /// `None` where the object's fingerprint cannot be read: no key is that one.
    pub fingerprint: Option<KeyFingerprint>,
    pub being_deleted: bool,
    pub spec: DeviceSpec,
    /// Without the certificates, which are the operator's, and without the renewal, which is long.
    pub status: DeviceStatus,
    /// Whether the renewal that it asked for last was issued or refused.
    pub is_renewal_answered: bool,
}

impl KnownDevice {
    /// `None` for an object that no API server made.
    pub fn read(device: Device) -> Option<Self> {
        let Device {
            metadata,
            mut spec,
            status,
        } = device;
        let mut status = status.unwrap_or_default();
        status.certificate = None;
        status.certificate_history = Vec::new();
        let is_renewal_answered = status
            .renewal
            .take()
            .is_some_and(|renewal| renewal.chain.is_some() || renewal.refused.is_some());
        spec.display_name = None;
        // What is read has room for four of each, and most devices have one or two.
        status.capabilities.shrink_to_fit();
        status.conditions.shrink_to_fit();
        Some(Self {
            key: DeviceKey {
                namespace: metadata.namespace?,
                name: metadata.name?,
            },
            resource_version: metadata.resource_version?,
            generation: metadata.generation,
            fingerprint: spec.public_key_sha256.parse().ok(),
            being_deleted: metadata.deletion_timestamp.is_some(),
            spec,
            status,
            is_renewal_answered,
        })
    }
}

/// Why a device with a valid certificate is not let in. The text is for the person at the device.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Denied {
    #[error("this device is not known any more: pair it again")]
    Unknown,
    #[error(
        "this device was paired again with another key: pair it again, or remove the other one"
    )]
    OtherKey,
    #[error("this device is suspended: ask who manages it")]
    Suspended,
    #[error("this device is revoked: pair it again")]
    Revoked,
}

/// Whether the device of that name may come in with that key, and stay.
pub fn admit(device: Option<&KnownDevice>, key: &KeyFingerprint) -> Result<(), Denied> {
    let device = device
        .filter(|device| !device.being_deleted)
        .ok_or(Denied::Unknown)?;
    if device.fingerprint.as_ref() != Some(key) {
        return Err(Denied::OtherKey);
    }
    match device.spec.trust {
        TrustDecision::Active => Ok(()),
        TrustDecision::Suspended => Err(Denied::Suspended),
        TrustDecision::Revoked => Err(Denied::Revoked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fixtures::{key, minimal_device, other_key};

    #[test]
    fn only_a_trusted_device_with_its_own_key_is_let_in() {
        let check = |change: &dyn Fn(&mut KnownDevice), expected: Result<(), Denied>| {
            let mut device = minimal_device();
            change(&mut device);
            assert_eq!(admit(Some(&device), &key()), expected);
        };
        check(&|_| {}, Ok(()));
        check(
            &|device| device.spec.trust = TrustDecision::Suspended,
            Err(Denied::Suspended),
        );
        check(
            &|device| device.spec.trust = TrustDecision::Revoked,
            Err(Denied::Revoked),
        );
        check(
            &|device| device.fingerprint = Some(other_key()),
            Err(Denied::OtherKey),
        );
        check(&|device| device.fingerprint = None, Err(Denied::OtherKey));
        check(&|device| device.being_deleted = true, Err(Denied::Unknown));
        assert_eq!(admit(None, &key()), Err(Denied::Unknown));
    }
}
