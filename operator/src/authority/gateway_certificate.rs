//! The certificate that gateways serve with: in a Secret that they mount, issued anew at two thirds of its life, and
//! whenever it does not fit.

use std::collections::BTreeMap;

use anyhow::Context as _;
use crds::names;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Patch;
use pairing::key::KeyFingerprint;

use super::{
    Authority, GATEWAY_NAME, chain, new_key,
    store::{Store, applied, read, text},
};

/// How far the clocks of two operators may differ: a leader does not replace what the one before issued a moment ago.
const CLOCKS: SignedDuration = SignedDuration::from_mins(5);

/// What the certificate must be like.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub authority: &'a Authority,
    /// Beside [`GATEWAY_NAME`].
    pub dns_names: &'a [String],
    /// Life of the certificate: a thief of its key can pose as a gateway for that long.
    pub ttl: SignedDuration,
}

impl Store {
    /// Sees to it that the gateways have a certificate. Returns when to come back, and whether one was issued.
    pub async fn gateway_certificate(
        &self,
        wanted: Wanted<'_>,
        now: Timestamp,
    ) -> anyhow::Result<(Timestamp, bool)> {
        let name = names::GATEWAY_TLS_SECRET;
        let existing = self
            .secrets()
            .get_opt(name)
            .await
            .with_context(|| format!("get Secret {name}"))?;
        if let Some(renew_at) = existing.and_then(|secret| renewal(&secret, wanted, now)) {
            return Ok((renew_at, false));
        }
        let Wanted {
            authority,
            dns_names,
            ttl,
        } = wanted;
        let key = new_key().context("make the gateways' key")?;
        let issued = authority
            .sign_gateway(&key, dns_names, ttl, now)
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
}

/// When the certificate in the Secret is to be renewed; `None` if it is of no use or that moment has passed.
fn renewal(secret: &Secret, wanted: Wanted<'_>, now: Timestamp) -> Option<Timestamp> {
    let Wanted {
        authority,
        dns_names,
        ttl,
    } = wanted;
    let chain = read(secret, "tls.crt")?;
    let leaf = chain::leaf(&chain)?;
    let expected = std::iter::once(GATEWAY_NAME).chain(dns_names.iter().map(String::as_str));
    let key = rcgen::KeyPair::from_pem(&read(secret, "tls.key")?).ok()?;
    let key = KeyFingerprint::of_spki(&rcgen::PublicKeyData::subject_public_key_info(&key));
    let usable = leaf.for_servers
        && leaf.key == key
        && leaf.dns_names.iter().map(String::as_str).eq(expected)
        // One that an earlier version issued, or an operator with another setting, must not outlive the bound.
        && leaf.not_after.duration_since(now) <= ttl + CLOCKS
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
mod tests {
    use super::*;
    use crate::pretended::Server;

    const DOMAIN: &str = "test.example";
    const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);
    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn authority() -> Authority {
        let (certificate, key) = Authority::generate(DOMAIN, now()).unwrap();
        Authority::from_pem(&certificate, &key, DOMAIN).unwrap()
    }

    #[tokio::test]
    async fn it_is_renewed_at_two_thirds_of_its_life_and_when_it_does_not_fit() {
        let server = Server::default();
        let store = Store {
            client: server.client(),
            namespace: "system".to_owned(),
        };
        let (authority, another) = (authority(), authority());
        let wanted = Wanted {
            authority: &authority,
            dns_names: &[],
            ttl: WEEK,
        };
        let (renew_at, issued) = store.gateway_certificate(wanted, now()).await.unwrap();
        assert!(issued);
        assert_eq!(renew_at.to_string(), "2026-03-06T03:58:20Z");
        let again = |at| store.gateway_certificate(wanted, at);
        assert_eq!(again(now()).await.unwrap(), (renew_at, false));
        let before = renew_at - SignedDuration::from_secs(1);
        assert_eq!(again(before).await.unwrap(), (renew_at, false));
        assert!(again(renew_at).await.unwrap().1);
        let another_name = ["gateway.example".to_owned()];
        for (case, wanted) in [
            (
                "another name",
                Wanted {
                    dns_names: &another_name,
                    ..wanted
                },
            ),
            ("a shorter life", Wanted { ttl: DAY, ..wanted }),
            (
                "another authority",
                Wanted {
                    authority: &another,
                    ..wanted
                },
            ),
        ] {
            let (_, issued) = store.gateway_certificate(wanted, renew_at).await.unwrap();
            assert!(issued, "{case}");
            let (_, issued) = store.gateway_certificate(wanted, renew_at).await.unwrap();
            assert!(!issued, "{case}");
        }
    }
}
