//! Finds the authority, or makes the first one; and looks after its Secret later. What is decided is in [`super::plan`].

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use crds::{Device, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, api::ListParams, api::PostParams};
use pairing::key::KeyFingerprint;

use super::{
    Authority, chain,
    plan::{Found, Refusal, Replaced, Standing, Witness, Witnesses, standing},
    store::{MOST_PAGES, PAGE, Store, read, text},
};

/// How the Secret of a running operator's authority stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    Stands,
    /// It was missing, and was written back.
    WrittenBack,
}

impl Store {
    /// Gets the authority, or makes the first one. Of several operators that start at once one makes it; the others read
    /// it back. A refusal takes a person; nothing was written then.
    pub async fn find_authority(
        &self,
        trust_domain: &str,
        replaced: Option<Replaced>,
        now: Timestamp,
    ) -> anyhow::Result<Result<Authority, Refusal>> {
        let secret = self.ca_secret().await?;
        let read = secret
            .as_ref()
            .map(|secret| authority_of(secret, trust_domain));
        let found = found(read.as_ref());
        let witnesses = self.witnesses(&found).await?;
        match standing(&found, &witnesses, replaced) {
            Standing::Refuse(refusal) => Ok(Err(refusal)),
            Standing::Use => {
                let authority = read.and_then(Result::ok);
                Ok(Ok(authority.context("read the authority")?))
            }
            Standing::Make => {
                let (made, _) = self
                    .get_or_create(names::CA_SECRET, || {
                        let (certificate, key) =
                            Authority::generate(trust_domain, now).context("make the authority")?;
                        Ok(self.authority_secret(certificate, key))
                    })
                    .await?;
                Ok(authority_of(&made, trust_domain).map_err(|why| Refusal::Damaged { why }))
            }
        }
    }

    /// Looks at the Secret while the authority is in use. One that was deleted is written back: this process may hold the
    /// last copy of the key, and its next start would lock every device out. One that holds something else is left alone:
    /// somebody put it there.
    pub async fn keep_authority(
        &self,
        authority: &Authority,
    ) -> anyhow::Result<Result<Kept, Refusal>> {
        let Some(secret) = self.ca_secret().await? else {
            let certificate = authority.certificate().to_owned();
            let secret = self.authority_secret(certificate, authority.key_pem());
            return match self.secrets().create(&PostParams::default(), &secret).await {
                Ok(_) => Ok(Ok(Kept::WrittenBack)),
                Err(error) => {
                    Err(error).with_context(|| format!("write Secret {} back", names::CA_SECRET))
                }
            };
        };
        let read = authority_of(&secret, authority.trust_domain());
        let used = Witness::of([authority.pin()]);
        let witnesses = Witnesses {
            published: used,
            ..Witnesses::default()
        };
        match standing(&found(Some(&read)), &witnesses, None) {
            Standing::Use => Ok(Ok(Kept::Stands)),
            Standing::Refuse(refusal) => Ok(Err(refusal)),
            Standing::Make => bail!("the Secret is there and is to be made"),
        }
    }

    async fn ca_secret(&self) -> anyhow::Result<Option<Secret>> {
        self.secrets()
            .get_opt(names::CA_SECRET)
            .await
            .with_context(|| format!("get Secret {}", names::CA_SECRET))
    }

    fn authority_secret(&self, certificate: String, key: String) -> Secret {
        let data = BTreeMap::from([text("tls.crt", certificate), text("tls.key", key)]);
        Secret {
            type_: Some("kubernetes.io/tls".to_owned()),
            ..self.secret(names::CA_SECRET, data)
        }
    }

    async fn witnesses(&self, found: &Found) -> anyhow::Result<Witnesses> {
        let published = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace)
            .get_opt(names::TRUST_BUNDLE)
            .await
            .with_context(|| format!("get ConfigMap {}", names::TRUST_BUNDLE))?
            .map(|published| {
                let data = published.data.unwrap_or_default();
                let certificates = data.get(names::TRUST_BUNDLE_CERTIFICATES);
                certificates.map_or_else(Vec::new, |pem| chain::authorities(pem))
            });
        let gateways = self
            .secrets()
            .get_opt(names::GATEWAY_TLS_SECRET)
            .await
            .with_context(|| format!("get Secret {}", names::GATEWAY_TLS_SECRET))?
            .map(|secret| {
                read(&secret, "ca.crt").map_or_else(Vec::new, |pem| chain::authorities(&pem))
            });
        let mut witnesses = Witnesses {
            published: published.map(Witness::of).unwrap_or_default(),
            gateways: gateways.map(Witness::of).unwrap_or_default(),
            devices: Witness::Missing,
        };
        if witnesses.need_devices() {
            witnesses.devices = self.devices(found).await?;
        }
        Ok(witnesses)
    }

    /// The authorities of Devices' certificates, page by page, until it is known whether the one that was found is among
    /// them.
    async fn devices(&self, found: &Found) -> anyhow::Result<Witness> {
        let devices = Api::<Device>::all(self.client.clone());
        let mut seen: Option<BTreeSet<KeyFingerprint>> = None;
        let mut params = ListParams::default().limit(PAGE);
        for _ in 0..MOST_PAGES {
            let page = devices.list(&params).await.context("list Devices")?;
            for device in page.items {
                let certificate = device.status.and_then(|status| status.certificate);
                if let Some(certificate) = certificate {
                    let names = seen.get_or_insert_default();
                    let pin = certificate.authority.and_then(|pin| pin.parse().ok());
                    names.extend::<Option<KeyFingerprint>>(pin);
                }
            }
            let is_settled = match found {
                Found::Authority(pin) => seen.as_ref().is_some_and(|names| names.contains(pin)),
                Found::Missing | Found::Damaged(_) => seen.is_some(),
            };
            let next = page.metadata.continue_.filter(|next| !next.is_empty());
            match next {
                Some(next) if !is_settled => params.continue_token = Some(next),
                Some(_) | None => break,
            }
        }
        Ok(seen.map_or(Witness::Missing, Witness::Names))
    }
}

fn found(read: Option<&Result<Authority, String>>) -> Found {
    match read {
        None => Found::Missing,
        Some(Ok(authority)) => Found::Authority(authority.pin()),
        Some(Err(why)) => Found::Damaged(why.clone()),
    }
}

/// The authority in a Secret, or why there is none that can be used.
fn authority_of(secret: &Secret, trust_domain: &str) -> Result<Authority, String> {
    let (Some(certificate), Some(key)) = (read(secret, "tls.crt"), read(secret, "tls.key")) else {
        return Err("tls.crt or tls.key is missing".to_owned());
    };
    Authority::from_pem(&certificate, &key, trust_domain).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
