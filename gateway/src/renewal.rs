//! Another certificate for a device that has one, while it goes on with its stream.
//!
//! ```text
//! Renew -> the request in Device.status.renewal -> the operator answers beside it -> Renewed
//! ```
//!
//! Nothing is kept here: a device whose stream broke asks again, at any gateway, and is told at once what was issued
//! meanwhile. A renewal extends nothing by itself: the device comes back with the new certificate before the old one
//! ends.
//!
//! On `DeviceEvent::Renew` a stream makes one future of [`Renewals::renew`] and drives it beside its other work; a further
//! Renew is ignored meanwhile. What is renewed is pushed; [`NotRenewed::Invalid`] ends the stream as malformed; of
//! everything else the device is told nothing, and asks again. Dropping the future is safe at any time.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::{
    Device,
    names::GATEWAY,
    v1alpha1::device::{DeviceStatus, Renewal},
};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use pairing::key::KeyFingerprint;
use proto::node::Renewed;
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, sleep_until, timeout},
};
use x509_parser::prelude::parse_x509_certificate;

use crate::{
    clock::now,
    csr,
    domain::device::{Denied, DeviceKey, KnownDevice, admit},
    enrollment::api::{self, call},
    index::{Index, devices::Following},
    pem,
};

/// Longest PKCS#10, in bytes of DER: its PEM must fit the schema.
const MAX_CSR: usize = 2900;
/// How long a device waits for an answer before it has to ask again.
const TIME: Duration = Duration::from_mins(1);
/// An answer takes as long, whatever it is: a device that asks in a loop costs a read a second.
const LEAST_TIME: Duration = Duration::from_secs(1);
/// A device's request takes the place of another one no sooner than this: one that makes a new request each time would
/// be issued as many certificates.
const BETWEEN_REQUESTS: SignedDuration = SignedDuration::from_secs(20);
/// How long before it is seen whether another stream of the device still waits.
const TURN: Duration = Duration::from_millis(100);
/// Requests to the API server at once.
const REQUESTS: usize = 16;
/// How often a write is based anew on what somebody else wrote.
const CONFLICTS: usize = 8;

/// Renews certificates.
pub struct Renewals {
    client: Client,
    requests: Semaphore,
}

/// A device that wants another certificate.
#[derive(Clone, Debug)]
pub struct Asking {
    pub device: DeviceKey,
    /// The key that TLS proved.
    pub key: KeyFingerprint,
    /// Until when the certificate of this connection is valid. What ends no later is no renewal of it.
    pub not_after: Timestamp,
    /// As the device sent it.
    pub pkcs10: Vec<u8>,
}

/// Why there is no other certificate.
#[derive(Debug, thiserror::Error)]
pub enum NotRenewed {
    /// What the device sent cannot be used; the text says why.
    #[error(transparent)]
    Invalid(#[from] csr::Invalid),
    /// The device is not let in any more: its stream ends by itself.
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("the operator refuses it: {0}")]
    Refused(String),
    #[error("another request of the device took its place")]
    Superseded,
    #[error("no certificate was issued in time")]
    NotYet,
    #[error("what was issued cannot be used: {0}")]
    Unusable(&'static str),
    #[error(transparent)]
    Unavailable(#[from] api::Error),
}

/// What was issued, as it stands in the status. This gateway carries it and adds nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Answer {
    /// PEM.
    chain: String,
    /// Base64.
    signed_bundle: String,
}

/// How a request stands.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Standing {
    /// This was issued for it.
    Issued(Answer),
    Refused(String),
    /// It is there, and nobody has answered.
    Waiting,
    /// It is not there, or its answer is of no use. Another one was written then.
    Absent(Option<Timestamp>),
}

impl Renewals {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            requests: Semaphore::new(REQUESTS),
        }
    }

    /// Asks for another certificate and waits for it, a minute at most. Two streams of one device take turns.
    pub async fn renew(&self, index: &Index, asking: Asking) -> Result<Renewed, NotRenewed> {
        let earliest = Instant::now() + LEAST_TIME;
        let renewed = match timeout(TIME, self.ask(index, &asking)).await {
            Ok(renewed) => renewed,
            Err(_) => Err(NotRenewed::NotYet),
        };
        match &renewed {
            Ok(_) => tracing::info!(device = %asking.device, "A certificate was renewed"),
            Err(error) => tracing::info!(
                device = %asking.device,
                error = error as &dyn std::error::Error,
                "A certificate was not renewed"
            ),
        }
        sleep_until(earliest).await;
        renewed
    }

    async fn ask(&self, index: &Index, asking: &Asking) -> Result<Renewed, NotRenewed> {
        let csr = csr::read(&asking.pkcs10, &asking.key, MAX_CSR)?;
        // Before anything is read: what is written after that is heard of.
        let following = loop {
            match index.devices.follow(&asking.device) {
                Some(following) => break following,
                None => sleep(TURN).await,
            }
        };
        let answer = match self.request(asking, &csr).await? {
            Some(answer) => answer,
            None => self.answer(index, &following, asking, &csr).await?,
        };
        renewed(&answer, &asking.key)
    }

    /// Sees to it that the request stands there; returns what was issued before.
    async fn request(&self, asking: &Asking, csr: &str) -> Result<Option<Answer>, NotRenewed> {
        let mut conflicts = 0;
        loop {
            let (device, renewal) = self.read(asking).await?;
            let before = match standing(renewal.as_ref(), csr, Some(asking.not_after)) {
                Standing::Issued(answer) => return Ok(Some(answer)),
                Standing::Waiting => return Ok(None),
                Standing::Refused(why) => return Err(NotRenewed::Refused(why)),
                Standing::Absent(before) => before,
            };
            if let Some(wait) = before.and_then(|before| wait(before, now())) {
                sleep(wait).await;
                continue;
            }
            match self.write(&device, csr).await {
                Ok(()) => return Ok(None),
                Err(error) if error.is_outdated() && conflicts < CONFLICTS => conflicts += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for what is issued from now on.
    async fn answer(
        &self,
        index: &Index,
        following: &Following<'_>,
        asking: &Asking,
        csr: &str,
    ) -> Result<Answer, NotRenewed> {
        loop {
            following.changed().await;
            let Some(known) = index.devices.get(&asking.device) else {
                return Err(Denied::Unknown.into());
            };
            // It may still show the answer to an earlier request: that costs a read.
            if !known.is_renewal_answered {
                continue;
            }
            let (_, renewal) = self.read(asking).await?;
            match standing(renewal.as_ref(), csr, None) {
                Standing::Issued(answer) => return Ok(answer),
                Standing::Refused(why) => return Err(NotRenewed::Refused(why)),
                Standing::Waiting => {}
                Standing::Absent(_) => return Err(NotRenewed::Superseded),
            }
        }
    }

    /// The device, if it is let in, and its renewal.
    async fn read(&self, asking: &Asking) -> Result<(KnownDevice, Option<Renewal>), NotRenewed> {
        let DeviceKey { namespace, name } = &asking.device;
        let api: Api<Device> = Api::namespaced(self.client.clone(), namespace);
        let device = {
            let _place = self.place().await;
            call(api.get_opt(name)).await?
        };
        let mut device = device.ok_or(Denied::Unknown)?;
        let renewal = device.status.as_mut().and_then(take_renewal);
        let device = KnownDevice::read(device).ok_or(Denied::Unknown)?;
        admit(Some(&device), &asking.key)?;
        Ok((device, renewal))
    }

    /// Writes the request in the place of any other, to that version of the device.
    async fn write(&self, device: &KnownDevice, csr: &str) -> Result<(), api::Error> {
        let DeviceKey { namespace, name } = &device.key;
        let api: Api<Device> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({
            "metadata": { "resourceVersion": device.resource_version },
            "status": { "renewal": {
                "csr": csr, "requestedAt": now(),
                // Of the request before.
                "chain": null, "signedBundle": null, "generation": null, "refused": null, "secretGeneration": null,
            } },
        });
        let params = PatchParams {
            field_manager: Some(GATEWAY.to_owned()),
            ..PatchParams::default()
        };
        let _place = self.place().await;
        call(api.patch_status(name, &params, &Patch::Merge(&patch)))
            .await
            .map(|_| ())
    }

    async fn place(&self) -> SemaphorePermit<'_> {
        self.requests
            .acquire()
            .await
            .expect("the semaphore is never closed")
    }
}

fn renewed(answer: &Answer, key: &KeyFingerprint) -> Result<Renewed, NotRenewed> {
    let chain = pem::certificates(answer.chain.as_bytes())
        .map_err(|_| NotRenewed::Unusable("its chain cannot be read"))?;
    let leaf = chain.first().map(KeyFingerprint::of_certificate);
    if !matches!(leaf, Some(Ok(leaf)) if leaf == *key) {
        return Err(NotRenewed::Unusable("it is for another key"));
    }
    Ok(Renewed {
        chain: chain.iter().map(|der| der.to_vec()).collect(),
        signed_bundle: STANDARD
            .decode(&answer.signed_bundle)
            .map_err(|_| NotRenewed::Unusable("its signed bundle cannot be read"))?,
    })
}

fn take_renewal(status: &mut DeviceStatus) -> Option<Renewal> {
    status.renewal.take()
}

/// How the request stands. `than`: what was issued before is of use where it ends later than that, whatever request of
/// the device it was issued for: it is for the same key, and none is issued again so soon.
fn standing(renewal: Option<&Renewal>, csr: &str, than: Option<Timestamp>) -> Standing {
    let Some(renewal) = renewal else {
        return Standing::Absent(None);
    };
    let written = renewal.requested_at.as_ref().map(|time| time.0);
    // Without a signed bundle, an operator of an earlier version answered: the device would refuse it.
    let answer = match (&renewal.chain, &renewal.signed_bundle) {
        (Some(chain), Some(signed_bundle)) => Some(Answer {
            chain: chain.clone(),
            signed_bundle: signed_bundle.clone(),
        }),
        (Some(_) | None, Some(_) | None) => None,
    };
    if let (Some(answer), Some(than)) = (&answer, than)
        && ends_later(&answer.chain, than)
    {
        return Standing::Issued(answer.clone());
    }
    if renewal.csr != csr {
        return Standing::Absent(written);
    }
    if let (Some(answer), None) = (answer, than) {
        return Standing::Issued(answer);
    }
    match (&renewal.chain, &renewal.refused) {
        (None, Some(why)) if than.is_none() => Standing::Refused(why.clone()),
        (None, None) => Standing::Waiting,
        // Of what was refused before, what stood in the way may be gone.
        (Some(_), _) | (None, Some(_)) => Standing::Absent(written),
    }
}

/// Whether the leaf of a chain is valid for longer than until then.
fn ends_later(chain: &str, than: Timestamp) -> bool {
    let leaf = pem::certificates(chain.as_bytes())
        .ok()
        .and_then(|chain| chain.into_iter().next());
    leaf.and_then(|leaf| not_after(&leaf))
        .is_some_and(|not_after| not_after > than)
}

fn not_after(leaf: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, leaf) = parse_x509_certificate(leaf).ok()?;
    Timestamp::from_second(leaf.validity().not_after.timestamp()).ok()
}

/// How long a request still has to wait after one that was written then. However clocks differ, no longer than that.
fn wait(before: Timestamp, now: Timestamp) -> Option<Duration> {
    let wait = (BETWEEN_REQUESTS - now.duration_since(before)).min(BETWEEN_REQUESTS);
    Duration::try_from(wait).ok().filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::domain::fixtures::at;

    /// Ends with 2029.
    fn chain() -> String {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(2030, 1, 1);
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .pem()
    }

    fn renewal(chain: Option<String>, refused: Option<&str>) -> Renewal {
        Renewal {
            csr: "mine".to_owned(),
            requested_at: Some(Time(at(100))),
            generation: chain.as_ref().map(|_| 2),
            signed_bundle: chain.as_ref().map(|_| "AAAA".to_owned()),
            chain,
            refused: refused.map(str::to_owned),
            ..Renewal::default()
        }
    }

    #[test]
    fn what_was_issued_before_is_handed_out_unless_the_device_has_it() {
        let chain = chain();
        let mut renewal = renewal(Some(chain.clone()), None);
        let issued = || {
            Standing::Issued(Answer {
                chain: chain.clone(),
                signed_bundle: "AAAA".to_owned(),
            })
        };
        let (before, after) = (
            "2029-12-31T00:00:00Z".parse().unwrap(),
            "2030-01-01T00:00:00Z".parse().unwrap(),
        );
        let is = |csr, than| standing(Some(&renewal), csr, than);
        assert_eq!(is("mine", Some(before)), issued());
        assert_eq!(is("mine", Some(after)), Standing::Absent(Some(at(100))));
        assert_eq!(
            is("lost", Some(before)),
            issued(),
            "a device that lost its request made another one"
        );
        assert_eq!(is("mine", None), issued());
        assert_eq!(
            is("another", None),
            Standing::Absent(Some(at(100))),
            "its place was taken"
        );
        renewal.signed_bundle = None;
        for than in [Some(before), None] {
            assert_eq!(
                standing(Some(&renewal), "mine", than),
                Standing::Absent(Some(at(100))),
                "an operator of an earlier version answered"
            );
        }
    }

    #[test]
    fn a_request_is_written_once_and_again_after_it_was_refused() {
        let than = Some(Timestamp::MIN);
        assert_eq!(standing(None, "mine", than), Standing::Absent(None));
        assert_eq!(
            standing(Some(&renewal(None, None)), "mine", than),
            Standing::Waiting
        );
        let refused = renewal(None, Some("not now"));
        assert_eq!(
            standing(Some(&refused), "mine", than),
            Standing::Absent(Some(at(100)))
        );
        assert_eq!(
            standing(Some(&refused), "mine", None),
            Standing::Refused("not now".to_owned())
        );
    }

    #[test]
    fn requests_are_written_with_time_between_them_whatever_the_clocks_say() {
        let seconds = Duration::from_secs;
        assert_eq!(wait(at(100), at(100)), Some(seconds(20)));
        assert_eq!(wait(at(100), at(119)), Some(seconds(1)));
        assert_eq!(wait(at(100), at(120)), None);
        assert_eq!(wait(at(100), at(1)), Some(seconds(20)));
    }

    #[test]
    fn the_largest_signing_request_fits_the_schema() {
        assert!(pem::certificate_request(&[0; MAX_CSR]).len() <= 4096);
    }
}
