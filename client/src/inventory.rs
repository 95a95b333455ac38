//! What there is.

use console_api::{
    ObjectId,
    inventory::{DeviceDetail, DeviceRecord, Instance, Inventory},
    query::{InventoryQuery, ScopeQuery},
    routes,
};
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};

use crate::{
    ControlPlaneClient,
    error::{Error, Result},
    transport::Ask,
};

impl ControlPlaneClient {
    /// A page of the inventory, with counts of all that the filters leave. The first one has what waits for a decision and
    /// what runs Fairlead, too.
    pub async fn inventory(&self, query: &InventoryQuery) -> Result<Inventory> {
        self.inner
            .json(&Ask::get(routes::INVENTORY).query(query)?)
            .await
    }

    /// All pages from that one on. A device whose presence changes meanwhile may be on two; the later one is the newer.
    pub fn inventory_pages(&self, query: &InventoryQuery) -> BoxStream<'static, Result<Inventory>> {
        let first = (self.clone(), Some(query.clone()));
        futures::stream::try_unfold(first, |(client, query)| async move {
            let Some(mut query) = query else {
                return Ok(None);
            };
            let page = client.inventory(&query).await?;
            let next = page.next_cursor.clone();
            // A console that gives the same page for ever would be asked for ever.
            if next.is_some() && next == query.cursor {
                return Err(Error::Incomplete("next page"));
            }
            let query = next.map(|cursor| {
                query.cursor = Some(cursor);
                query
            });
            Ok(Some((page, (client, query))))
        })
        .boxed()
    }

    /// All devices from that page on, those that need attention first.
    pub fn devices(&self, query: &InventoryQuery) -> BoxStream<'static, Result<DeviceRecord>> {
        self.inventory_pages(query)
            .map_ok(|page| futures::stream::iter(page.devices.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    /// All that is known of a device, and what the caller may do with it.
    pub async fn device(&self, id: &ObjectId) -> Result<DeviceDetail> {
        self.inner
            .json(&Ask::get(routes::with_id(routes::DEVICE_DETAIL, id)))
            .await
    }

    /// What runs Fairlead. Who may see the devices of one namespace alone names it.
    pub async fn instances(&self, scope: &ScopeQuery) -> Result<Vec<Instance>> {
        self.inner
            .json(&Ask::get(routes::INSTANCES).query(scope)?)
            .await
    }
}
