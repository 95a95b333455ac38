//! Who the caller is to the console, and what he may do.

use console_api::{access::Access, query::ScopeQuery, routes, session::Session};

use crate::{ControlPlaneClient, error::Result, transport::Ask};

impl ControlPlaneClient {
    /// The name and the groups that the cluster knows the caller by. With a session, until when that lasts.
    pub async fn whoami(&self) -> Result<Session> {
        self.inner.json(&Ask::get(routes::SESSION)).await
    }

    /// Every route and every permission, and whether the caller has it; in one namespace, or in all.
    pub async fn access(&self, scope: &ScopeQuery) -> Result<Access> {
        self.inner
            .json(&Ask::get(routes::ACCESS).query(scope)?)
            .await
    }

    /// Ends all sessions of the user that began before, at every gateway. Without a session, sends nothing. The next request
    /// begins another session.
    ///
    /// # Errors
    /// Where the console cannot make it known to the others: the session is still good then, and this can be repeated.
    pub async fn logout(&self) -> Result<()> {
        let Some(sessions) = &self.inner.sessions else {
            return Ok(());
        };
        let Some(number) = sessions
            .lock()
            .await
            .current
            .as_ref()
            .map(|open| open.number)
        else {
            return Ok(());
        };
        self.inner.done(&Ask::post(routes::LOGOUT)).await?;
        sessions.ended(number).await;
        Ok(())
    }

    /// Whether the console answers. Needs no credentials.
    pub async fn healthy(&self) -> Result<()> {
        self.inner.done(&Ask::get(routes::HEALTHZ)).await
    }
}
