//! The account under which dry runs are made: it holds the rights that a policy must take away, and no others.
//!
//! The operator asks for a token of it, keeps that in memory and asks again before it ends. A dry run of the operator
//! itself would show nothing: the policies let it pass.

use std::time::Duration;

use crds::names::PROBE;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, Client, Config, api::PostParams, config::AuthInfo};
use serde_json::json;
use tokio::{sync::Mutex, time::Instant};

/// Life of a token, in seconds: the shortest that Kubernetes gives.
const TOKEN_SECONDS: i64 = 600;
/// After this another token is asked for.
const RENEW_AFTER: Duration = Duration::from_secs(400);
/// How long one dry run may take: a signature waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The account, and a client that speaks as it.
pub struct Account {
    client: Client,
    /// How the API server is reached.
    config: Config,
    namespace: String,
    speaks: Mutex<Option<(Client, Instant)>>,
}

impl Account {
    /// `namespace`: the operator's own.
    pub fn new(client: Client, config: Config, namespace: String) -> Self {
        Self {
            client,
            config,
            namespace,
            speaks: Mutex::default(),
        }
    }

    /// A client that speaks as the account.
    pub async fn client(&self) -> kube::Result<Client> {
        let mut speaks = self.speaks.lock().await;
        if let Some((client, since)) = &*speaks
            && since.elapsed() < RENEW_AFTER
        {
            return Ok(client.clone());
        }
        let client = self.speaking_as(&self.token().await?)?;
        *speaks = Some((client.clone(), Instant::now()));
        Ok(client)
    }

    /// Asks for another token next time.
    pub async fn forget(&self) {
        *self.speaks.lock().await = None;
    }

    async fn token(&self) -> kube::Result<String> {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(TOKEN_SECONDS),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let answer = accounts
            .create_token_request(PROBE, &PostParams::default(), &request)
            .await?;
        Ok(answer.status.map(|status| status.token).unwrap_or_default())
    }

    fn speaking_as(&self, token: &str) -> kube::Result<Client> {
        let mut config = self.config.clone();
        // None of the operator's own credentials goes along.
        let auth_info: AuthInfo =
            serde_json::from_value(json!({ "token": token })).map_err(kube::Error::SerdeError)?;
        config.auth_info = auth_info;
        config.connect_timeout = Some(TIMEOUT);
        config.read_timeout = Some(TIMEOUT);
        config.write_timeout = Some(TIMEOUT);
        Client::try_from(config)
    }
}
