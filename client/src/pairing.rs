//! How a device is let in.

use std::time::Duration;

use console_api::{
    ObjectId,
    pairing::{
        Approve, CodeMaterial, CodePage, CodeRecord, Deny, NewCode, RequestDetail, RequestPage,
    },
    query::{CodesQuery, RequestsQuery},
    routes,
};

use tokio::time::Instant;

use crate::{
    ControlPlaneClient,
    error::{Category, Result},
    invocations::deadline,
    key::IdempotencyKey,
    transport::Ask,
};

/// Between two looks at a code that is not drawn yet.
const BETWEEN_LOOKS: Duration = Duration::from_millis(300);

impl ControlPlaneClient {
    /// Makes a code, once: where the connection breaks, it is asked for again with the same key. The operator draws the
    /// code a moment later: [`wait_for_code`](Self::wait_for_code).
    pub async fn create_code(&self, code: &NewCode) -> Result<CodeRecord> {
        self.create_code_once(code, &IdempotencyKey::random()).await
    }

    /// The same, with a key of the caller's: another process may repeat it.
    pub async fn create_code_once(
        &self,
        code: &NewCode,
        key: &IdempotencyKey,
    ) -> Result<CodeRecord> {
        let ask = Ask::post(routes::CODES).json(code)?.once(key.as_str())?;
        self.inner.json(&ask).await
    }

    /// A page of codes, without their secrets.
    pub async fn codes(&self, query: &CodesQuery) -> Result<CodePage> {
        self.inner
            .json(&Ask::get(routes::CODES).query(query)?)
            .await
    }

    /// One code, without its secret.
    pub async fn code(&self, id: &ObjectId) -> Result<CodeRecord> {
        self.inner
            .json(&Ask::get(routes::with_id(routes::CODE, id)))
            .await
    }

    /// The secret of a code: what is typed or scanned at the device. Takes the right to read the Secret. There is none until
    /// the operator has drawn the code, and none after the code has ended.
    pub async fn code_material(&self, id: &ObjectId) -> Result<CodeMaterial> {
        self.inner
            .json(&Ask::get(routes::with_id(routes::CODE_MATERIAL, id)))
            .await
    }

    /// The same, once it is there: waits for so long for the operator to draw a code that was just made.
    pub async fn wait_for_code(&self, id: &ObjectId, timeout: Duration) -> Result<CodeMaterial> {
        let end = deadline(timeout);
        loop {
            match self.code_material(id).await {
                Err(error) if error.category() == Category::Missing && Instant::now() < end => {
                    tokio::time::sleep(BETWEEN_LOOKS).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Removes a code: no device is paired with it any more.
    pub async fn revoke_code(&self, id: &ObjectId) -> Result<()> {
        self.inner
            .done(&Ask::delete(routes::with_id(routes::CODE, id)))
            .await
    }

    /// A page of requests of devices.
    pub async fn requests(&self, query: &RequestsQuery) -> Result<RequestPage> {
        self.inner
            .json(&Ask::get(routes::REQUESTS).query(query)?)
            .await
    }

    /// Everything that an approver compares, and the digest of it.
    pub async fn request(&self, id: &ObjectId) -> Result<RequestDetail> {
        self.inner
            .json(&Ask::get(routes::with_id(routes::REQUEST, id)))
            .await
    }

    /// Says yes to what was shown: `spec_digest` is that of the [`RequestDetail`] that somebody looked at.
    pub async fn approve(&self, id: &ObjectId, approve: &Approve) -> Result<RequestDetail> {
        let ask = Ask::post(routes::with_id(routes::REQUEST_APPROVE, id)).json(approve)?;
        self.inner.json(&ask).await
    }

    /// Says no, for good.
    pub async fn deny(&self, id: &ObjectId, deny: &Deny) -> Result<RequestDetail> {
        let ask = Ask::post(routes::with_id(routes::REQUEST_DENY, id)).json(deny)?;
        self.inner.json(&ask).await
    }
}
