//! Where the authority lives: the Secret with its key, the ConfigMap that devices' trust comes from, and the Secrets
//! that gateways mount. All in the operator's namespace, each got and written by its name.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use crds::names;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use pairing::opaque::Setup;

use super::{Authority, chain, new_key};

/// Marks what the operator made.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", names::OPERATOR);

/// Where the authority lives.
#[derive(Clone)]
pub struct Store {
    pub client: Client,
    pub namespace: String,
}

impl Store {
    /// Gets the authority, or makes it. Of several operators that start at once one makes it; the others read it back.
    pub async fn authority(&self, trust_domain: &str, now: Timestamp) -> anyhow::Result<Authority> {
        let secret = self
            .get_or_create(names::CA_SECRET, || {
                let (certificate, key) =
                    Authority::generate(trust_domain, now).context("make the authority")?;
                let data = BTreeMap::from([text("tls.crt", certificate), text("tls.key", key)]);
                Ok(Secret {
                    type_: Some("kubernetes.io/tls".to_owned()),
                    ..self.secret(names::CA_SECRET, data)
                })
            })
            .await?;
        let (Some(certificate), Some(key)) = (read(&secret, "tls.crt"), read(&secret, "tls.key"))
        else {
            bail!(
                "Secret {}/{} lacks tls.crt or tls.key: {RESTORE}",
                self.namespace,
                names::CA_SECRET
            );
        };
        Authority::from_pem(&certificate, &key, trust_domain).with_context(|| {
            format!(
                "read the authority of Secret {}/{}: {RESTORE}",
                self.namespace,
                names::CA_SECRET
            )
        })
    }

    /// Gets what password files are made with, or makes it.
    pub async fn setup(&self) -> anyhow::Result<Setup> {
        let secret = self
            .get_or_create(names::PAIRING_SETUP_SECRET, || {
                let setup = ByteString(Setup::generate().to_bytes().to_vec());
                let data = BTreeMap::from([(names::PAIRING_SETUP_KEY.to_owned(), setup)]);
                Ok(self.secret(names::PAIRING_SETUP_SECRET, data))
            })
            .await?;
        let setup = secret
            .data
            .as_ref()
            .and_then(|data| data.get(names::PAIRING_SETUP_KEY));
        setup.and_then(|setup| Setup::from_bytes(&setup.0).ok()).with_context(|| {
            format!(
                "Secret {}/{} is damaged: delete it to have another one made; live pairing codes stop working",
                self.namespace,
                names::PAIRING_SETUP_SECRET
            )
        })
    }

    /// Publishes what devices verify gateways with.
    pub async fn publish(&self, authority: &Authority) -> anyhow::Result<()> {
        let config_map = ConfigMap {
            metadata: self.metadata(names::TRUST_BUNDLE),
            data: Some(BTreeMap::from([(
                "ca.crt".to_owned(),
                authority.certificate().to_owned(),
            )])),
            ..ConfigMap::default()
        };
        Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace)
            .patch(names::TRUST_BUNDLE, &applied(), &Patch::Apply(config_map))
            .await
            .with_context(|| format!("publish ConfigMap {}", names::TRUST_BUNDLE))?;
        Ok(())
    }

    /// Sees to it that the gateways have a certificate. Returns when to come back, and whether one was issued.
    pub async fn gateway_certificate(
        &self,
        authority: &Authority,
        dns_names: &[String],
        now: Timestamp,
    ) -> anyhow::Result<(Timestamp, bool)> {
        let name = names::GATEWAY_TLS_SECRET;
        let existing = self
            .secrets()
            .get_opt(name)
            .await
            .with_context(|| format!("get Secret {name}"))?;
        if let Some(renew_at) =
            existing.and_then(|secret| renewal(&secret, authority, dns_names, now))
        {
            return Ok((renew_at, false));
        }
        let key = new_key().context("make the gateways' key")?;
        let issued = authority
            .sign_gateway(&key, dns_names, now)
            .context("sign the gateways' certificate")?;
        let data = BTreeMap::from([
            text("tls.crt", issued.chain),
            text("tls.key", key.serialize_pem()),
            text("ca.crt", authority.certificate().to_owned()),
        ]);
        let secret = Secret {
            type_: Some("kubernetes.io/tls".to_owned()),
            ..self.secret(name, data)
        };
        self.secrets()
            .patch(name, &applied(), &Patch::Apply(secret))
            .await
            .with_context(|| format!("write Secret {name}"))?;
        Ok((two_thirds(issued.not_before, issued.not_after), true))
    }

    /// Gets a Secret, or makes it. Of several operators that start at once one makes it.
    pub(crate) async fn get_or_create(
        &self,
        name: &str,
        make: impl FnOnce() -> anyhow::Result<Secret>,
    ) -> anyhow::Result<Secret> {
        let secrets = self.secrets();
        if let Some(secret) = secrets
            .get_opt(name)
            .await
            .with_context(|| format!("get Secret {name}"))?
        {
            return Ok(secret);
        }
        let params = PostParams {
            field_manager: Some(names::OPERATOR.to_owned()),
            ..PostParams::default()
        };
        match secrets.create(&params, &make()?).await {
            Ok(secret) => {
                tracing::info!(namespace = self.namespace, name, "Made the Secret");
                Ok(secret)
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => secrets
                .get(name)
                .await
                .with_context(|| format!("read back Secret {name}")),
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

    fn metadata(&self, name: &str) -> ObjectMeta {
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

const RESTORE: &str = "restore it from a backup, or delete it to have another authority made; then every device must be paired again";

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

/// When the certificate in the Secret is to be renewed; `None` if it is of no use or that moment has passed.
fn renewal(
    secret: &Secret,
    authority: &Authority,
    dns_names: &[String],
    now: Timestamp,
) -> Option<Timestamp> {
    let chain = read(secret, "tls.crt")?;
    let leaf = chain::leaf(&chain)?;
    let expected = std::iter::once(super::GATEWAY_NAME).chain(dns_names.iter().map(String::as_str));
    let key = rcgen::KeyPair::from_pem(&read(secret, "tls.key")?).ok()?;
    let key =
        pairing::key::KeyFingerprint::of_spki(&rcgen::PublicKeyData::subject_public_key_info(&key));
    let usable = leaf.for_servers
        && leaf.key == key
        && leaf.dns_names.iter().map(String::as_str).eq(expected)
        && read(secret, "ca.crt").as_deref() == Some(authority.certificate())
        && chain.ends_with(authority.certificate())
        && chain::is_signed_by(&chain, authority.certificate());
    let renew_at = two_thirds(leaf.not_before, leaf.not_after);
    (usable && now < renew_at).then_some(renew_at)
}

fn two_thirds(from: Timestamp, until: Timestamp) -> Timestamp {
    let life = until.duration_since(from).as_secs();
    from + SignedDuration::from_secs(life / 3 * 2)
}

#[cfg(test)]
mod tests;
