//! Where the authority lives: Secrets and a ConfigMap in the operator's namespace, each got and written by its name.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use crds::{PairingCode, names};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, PatchParams, PostParams},
};
use pairing::opaque::Setup;

/// Marks what the operator made.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", names::OPERATOR);

/// Objects that are read at once where a list is searched.
pub(super) const PAGE: u32 = 200;
/// Most pages of such a search.
pub(super) const MOST_PAGES: usize = 1000;

/// Where the authority lives.
#[derive(Clone)]
pub struct Store {
    pub client: Client,
    pub namespace: String,
}

impl Store {
    /// Gets what password files are made with, or makes it; and whether it was made.
    pub async fn setup(&self) -> anyhow::Result<(Setup, bool)> {
        self.setup_or(Setup::generate).await
    }

    /// Writes the setup back where its Secret was deleted: codes that were made with it go on. Returns whether it did.
    /// Fails where the Secret holds another one.
    pub async fn keep_setup(&self, setup: &Setup) -> anyhow::Result<bool> {
        let bytes = setup.to_bytes();
        let again = || Setup::from_bytes(&bytes).unwrap_or_else(|_| Setup::generate());
        let (stands, is_new) = self.setup_or(again).await?;
        ensure!(
            stands.to_bytes() == bytes,
            "Secret {}/{} holds another setup than this operator uses, so codes that it makes cannot be proved: restart the \
             operator",
            self.namespace,
            names::PAIRING_SETUP_SECRET
        );
        Ok(is_new)
    }

    async fn setup_or(&self, make: impl FnOnce() -> Setup) -> anyhow::Result<(Setup, bool)> {
        let (secret, is_new) = self
            .get_or_create(names::PAIRING_SETUP_SECRET, || {
                let setup = ByteString(make().to_bytes().to_vec());
                let data = BTreeMap::from([(names::PAIRING_SETUP_KEY.to_owned(), setup)]);
                Ok(self.secret(names::PAIRING_SETUP_SECRET, data))
            })
            .await?;
        let setup = secret
            .data
            .as_ref()
            .and_then(|data| data.get(names::PAIRING_SETUP_KEY));
        let setup = setup
            .and_then(|setup| Setup::from_bytes(&setup.0).ok())
            .with_context(|| {
                format!(
                    "Secret {}/{} is damaged: delete it to have another one made; live pairing codes stop working",
                    self.namespace,
                    names::PAIRING_SETUP_SECRET
                )
            })?;
        Ok((setup, is_new))
    }

    /// Whether a pairing code can still be used.
    pub async fn has_live_codes(&self) -> anyhow::Result<bool> {
        let codes = Api::<PairingCode>::all(self.client.clone());
        let mut params = ListParams::default().limit(PAGE);
        for _ in 0..MOST_PAGES {
            let page = codes.list(&params).await.context("list PairingCodes")?;
            let is_live = |code: PairingCode| {
                let status = code.status.unwrap_or_default();
                status.password_file.is_some()
            };
            if page.items.into_iter().any(is_live) {
                return Ok(true);
            }
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params.continue_token = Some(next),
                None => break,
            }
        }
        Ok(false)
    }

    /// Gets a Secret, or makes it; and whether it was made. Of several operators that start at once one makes it.
    pub(crate) async fn get_or_create(
        &self,
        name: &str,
        make: impl FnOnce() -> anyhow::Result<Secret>,
    ) -> anyhow::Result<(Secret, bool)> {
        let secrets = self.secrets();
        if let Some(secret) = secrets
            .get_opt(name)
            .await
            .with_context(|| format!("get Secret {name}"))?
        {
            return Ok((secret, false));
        }
        let params = PostParams {
            field_manager: Some(names::OPERATOR.to_owned()),
            ..PostParams::default()
        };
        match secrets.create(&params, &make()?).await {
            Ok(secret) => {
                tracing::info!(namespace = self.namespace, name, "Made the Secret");
                Ok((secret, true))
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let secret = secrets.get(name).await;
                let secret = secret.with_context(|| format!("read back Secret {name}"))?;
                Ok((secret, false))
            }
            Err(error) => Err(error).with_context(|| format!("create Secret {name}")),
        }
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn secret(&self, name: &str, data: BTreeMap<String, ByteString>) -> Secret {
        Secret {
            metadata: self.metadata(name),
            data: Some(data),
            ..Secret::default()
        }
    }

    pub(super) fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.clone()),
            labels: Some(BTreeMap::from([(
                MANAGED_BY.0.to_owned(),
                MANAGED_BY.1.to_owned(),
            )])),
            ..ObjectMeta::default()
        }
    }
}

/// The operator's own server-side apply: what it writes is its own.
pub fn applied() -> PatchParams {
    PatchParams::apply(names::OPERATOR).force()
}

/// A text under a key of a Secret.
pub fn text(key: &str, value: String) -> (String, ByteString) {
    (key.to_owned(), ByteString(value.into_bytes()))
}

/// The text under a key of a Secret.
pub fn read(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

#[cfg(test)]
mod tests;
