//! The published trust bundle: the ConfigMap that names the authorities, for people and, signed, for devices.
//!
//! What stands there is kept while it names this authority and its signature holds. Otherwise it is signed anew with a
//! larger sequence, or written back as this process signed it before.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::names::{TRUST_BUNDLE, TRUST_BUNDLE_CERTIFICATES, TRUST_BUNDLE_SIGNED};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PostParams},
};
use pairing::bundle::{Held, MAX_SEQUENCE, SignedBundle};

use super::{
    Authority, Error, chain,
    store::{Store, applied},
};

/// How often a write is based anew on what another process wrote.
const CONFLICTS: usize = 4;

/// What the ConfigMap must hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    pub signed: SignedBundle,
    pub is_written: bool,
}

/// Decides. `before` is the bundle that this process published earlier: it keeps its sequence where the ConfigMap was lost
/// or damaged meanwhile.
pub fn wanted(
    published: Option<&ConfigMap>,
    before: Option<&SignedBundle>,
    authority: &Authority,
    now: Timestamp,
) -> Result<Wanted, Error> {
    let data = published.and_then(|published| published.data.as_ref());
    let own = [chain::der(authority.certificate()).ok_or(Error::Certificate)?];
    let held = Held {
        trust_domain: authority.trust_domain(),
        sequence: 0,
        authorities: &own,
    };
    let stands = data
        .and_then(|data| data.get(TRUST_BUNDLE_SIGNED))
        .and_then(|text| decode(text))
        // A sequence counts only where the authority signed it: anybody could write the largest one.
        .and_then(|signed| Some((signed.verify(&held).ok()?, signed)));
    if let Some((bundle, signed)) = &stands
        && bundle.authorities() == own
    {
        let certificates = data.and_then(|data| data.get(TRUST_BUNDLE_CERTIFICATES));
        return Ok(Wanted {
            signed: signed.clone(),
            is_written: certificates.map(String::as_str) == Some(authority.certificate()),
        });
    }
    let signed = match before {
        Some(before) => before.clone(),
        None => authority.sign_bundle(next(
            stands.as_ref().map(|(bundle, _)| bundle.sequence()),
            now,
        ))?,
    };
    Ok(Wanted {
        signed,
        is_written: false,
    })
}

/// The sequence after that one. Seconds since 1970 are the least: a ConfigMap that was deleted must not make the sequence
/// go back, for devices refuse that.
fn next(before: Option<u64>, now: Timestamp) -> u64 {
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let after = before.map_or(1, |before| before.saturating_add(1));
    after.max(seconds).min(MAX_SEQUENCE)
}

/// Base64, as resources carry it.
pub fn encode(signed: &SignedBundle) -> String {
    STANDARD.encode(signed.to_bytes())
}

fn decode(text: &str) -> Option<SignedBundle> {
    SignedBundle::from_bytes(&STANDARD.decode(text).ok()?).ok()
}

impl Store {
    /// Sees to it that the ConfigMap names this authority; returns the signed bundle that stands there then.
    pub async fn publish(
        &self,
        authority: &Authority,
        before: Option<&SignedBundle>,
        now: Timestamp,
    ) -> anyhow::Result<SignedBundle> {
        let config_maps = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        for _ in 0..CONFLICTS {
            let published = config_maps
                .get_opt(TRUST_BUNDLE)
                .await
                .with_context(|| format!("get ConfigMap {TRUST_BUNDLE}"))?;
            let wanted = wanted(published.as_ref(), before, authority, now)
                .context("sign the trust bundle")?;
            if wanted.is_written {
                return Ok(wanted.signed);
            }
            let mut metadata = self.metadata(TRUST_BUNDLE);
            metadata.resource_version = published.as_ref().and_then(ConfigMap::resource_version);
            let config_map = ConfigMap {
                metadata,
                data: Some(BTreeMap::from([
                    (
                        TRUST_BUNDLE_CERTIFICATES.to_owned(),
                        authority.certificate().to_owned(),
                    ),
                    (TRUST_BUNDLE_SIGNED.to_owned(), encode(&wanted.signed)),
                ])),
                ..ConfigMap::default()
            };
            // Onto the version that was read: of two operators that sign at once, one signature is the published one.
            let written = match published {
                Some(_) => {
                    let patch = Patch::Apply(&config_map);
                    config_maps.patch(TRUST_BUNDLE, &applied(), &patch).await
                }
                None => {
                    config_maps
                        .create(&PostParams::default(), &config_map)
                        .await
                }
            };
            match written {
                Ok(_) => return Ok(wanted.signed),
                Err(kube::Error::Api(status))
                    if status.is_conflict() || status.is_already_exists() => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("publish ConfigMap {TRUST_BUNDLE}"));
                }
            }
        }
        bail!("publish ConfigMap {TRUST_BUNDLE}: another process changes it all the time")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretended::Server;

    const DOMAIN: &str = "test.example";

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn authority() -> Authority {
        let (certificate, key) = Authority::generate(DOMAIN, now()).unwrap();
        Authority::from_pem(&certificate, &key, DOMAIN).unwrap()
    }

    fn published(signed: &SignedBundle, authority: &Authority) -> ConfigMap {
        ConfigMap {
            data: Some(BTreeMap::from([
                (TRUST_BUNDLE_SIGNED.to_owned(), encode(signed)),
                (
                    TRUST_BUNDLE_CERTIFICATES.to_owned(),
                    authority.certificate().to_owned(),
                ),
            ])),
            ..ConfigMap::default()
        }
    }

    fn sequence(signed: &SignedBundle, authority: &Authority) -> u64 {
        let bundle = signed.verify_pinned(authority.pin(), DOMAIN).unwrap();
        bundle.sequence()
    }

    #[test]
    fn what_stands_there_is_kept_while_its_signature_holds() {
        let authority = authority();
        let first = wanted(None, None, &authority, now()).unwrap();
        assert!(!first.is_written);
        let later = now() + jiff::SignedDuration::from_hours(1);
        let stands = published(&first.signed, &authority);
        let kept = wanted(Some(&stands), None, &authority, later).unwrap();
        assert_eq!((kept.signed, kept.is_written), (first.signed, true));
    }

    #[test]
    fn what_is_damaged_or_gone_is_signed_anew_and_never_goes_back() {
        let (authority, foreign) = (authority(), authority());
        let first = wanted(None, None, &authority, now()).unwrap().signed;
        let later = now() + jiff::SignedDuration::from_secs(1);
        let mut garbage = published(&first, &authority);
        let data = garbage.data.as_mut().unwrap();
        data.insert(TRUST_BUNDLE_SIGNED.to_owned(), "garbage".to_owned());
        let theirs = published(&foreign.sign_bundle(MAX_SEQUENCE).unwrap(), &authority);
        for stands in [None, Some(&garbage), Some(&theirs)] {
            let anew = wanted(stands, None, &authority, later).unwrap();
            assert!(!anew.is_written);
            assert_eq!(
                sequence(&anew.signed, &authority),
                sequence(&first, &authority) + 1
            );
            let back = wanted(stands, Some(&first), &authority, later).unwrap();
            assert_eq!(back.signed, first, "as it was signed before");
        }
    }

    #[test]
    fn a_clock_that_goes_back_does_not_take_the_sequence_with_it() {
        assert_eq!(next(None, Timestamp::UNIX_EPOCH), 1);
        assert_eq!(next(Some(7), Timestamp::UNIX_EPOCH), 8);
        assert_eq!(next(Some(7), now()), 1_772_366_400);
        assert_eq!(next(Some(MAX_SEQUENCE), now()), MAX_SEQUENCE);
    }

    #[tokio::test]
    async fn of_two_operators_that_sign_at_once_one_signature_is_published() {
        let server = Server::default();
        let store = Store {
            client: server.client(),
            namespace: "system".to_owned(),
        };
        let authority = authority();
        let theirs = authority.sign_bundle(9).unwrap();
        let mut config_map = published(&theirs, &authority);
        config_map.metadata.name = Some(TRUST_BUNDLE.to_owned());
        server.another_is_quicker_with(config_map);
        let signed = store.publish(&authority, None, now()).await.unwrap();
        assert_eq!(signed, theirs);
    }

    #[tokio::test]
    async fn certificates_that_somebody_changed_are_put_right() {
        let server = Server::default();
        let store = Store {
            client: server.client(),
            namespace: "system".to_owned(),
        };
        let authority = authority();
        let object = format!("configmaps/{TRUST_BUNDLE}");
        let signed = store.publish(&authority, None, now()).await.unwrap();
        let expected = server.get(&object).unwrap()["data"].clone();
        assert_eq!(expected["ca.crt"], authority.certificate());
        for key in [TRUST_BUNDLE_CERTIFICATES, TRUST_BUNDLE_SIGNED] {
            let mut changed = server.get(&object).unwrap();
            changed["data"][key] = "somebody else's".into();
            server.put(&object, changed);
            let again = store
                .publish(&authority, Some(&signed), now())
                .await
                .unwrap();
            assert_eq!(again, signed);
            assert_eq!(server.get(&object).unwrap()["data"], expected, "{key}");
        }
    }
}
