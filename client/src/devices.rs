//! What is done to a device. Each is the patch that kubectl would make, with the caller's own rights.
//!
//! `seen` is the `resource_version` of the record that the caller decided on: where the device has changed since, nothing is
//! done, and the error is a [`Conflict`](crate::Category::Conflict). `None`: whatever it is by now.

use console_api::{
    ObjectId,
    device::{Grant, Rename},
    inventory::DeviceRecord,
    routes,
};

use crate::{ControlPlaneClient, error::Result, transport::Ask};

impl ControlPlaneClient {
    /// Cuts its stream, until it is resumed.
    pub async fn suspend(&self, id: &ObjectId, seen: Option<&str>) -> Result<DeviceRecord> {
        self.to_device(routes::DEVICE_SUSPEND, id, seen).await
    }

    /// Lets it connect again.
    pub async fn resume(&self, id: &ObjectId, seen: Option<&str>) -> Result<DeviceRecord> {
        self.to_device(routes::DEVICE_RESUME, id, seen).await
    }

    /// Cuts its stream for good. Nothing takes that back.
    pub async fn revoke(&self, id: &ObjectId, seen: Option<&str>) -> Result<DeviceRecord> {
        self.to_device(routes::DEVICE_REVOKE, id, seen).await
    }

    /// Gives it another name for people.
    pub async fn rename(
        &self,
        id: &ObjectId,
        name: &Rename,
        seen: Option<&str>,
    ) -> Result<DeviceRecord> {
        let ask = Ask::post(routes::with_id(routes::DEVICE_RENAME, id))
            .json(name)?
            .if_seen(seen)?;
        self.inner.json(&ask).await
    }

    /// Says all that it may run from now on.
    pub async fn grant(
        &self,
        id: &ObjectId,
        grant: &Grant,
        seen: Option<&str>,
    ) -> Result<DeviceRecord> {
        let ask = Ask::post(routes::with_id(routes::DEVICE_GRANT, id))
            .json(grant)?
            .if_seen(seen)?;
        self.inner.json(&ask).await
    }

    /// Removes the object. Its key can be paired again; who must never come back is revoked.
    pub async fn delete_device(&self, id: &ObjectId, seen: Option<&str>) -> Result<()> {
        let ask = Ask::delete(routes::with_id(routes::DEVICE, id)).if_seen(seen)?;
        self.inner.done(&ask).await
    }

    async fn to_device(
        &self,
        route: &str,
        id: &ObjectId,
        seen: Option<&str>,
    ) -> Result<DeviceRecord> {
        let ask = Ask::post(routes::with_id(route, id)).if_seen(seen)?;
        self.inner.json(&ask).await
    }
}
