//! Another certificate before the one at hand ends, for the same key and over the device's own stream.
//!
//! ```text
//! due (moment) -> Renew -> Renewed -> checked (answer) -> on the disk -> the stream ends -> the next one shows it
//! ```
//!
//! The certificate at hand counts until the new one is on the disk, whole: what is refused, lost or cannot be written
//! leaves it as it is, and the device asks again. A process that dies anywhere on the way starts with the one or the
//! other.
//!
//! - [`moment`] says when;
//! - [`answer`] says what is taken.
//!
//! Does not connect: [`crate::upstream`] does, with what it is given here.

pub mod answer;
#[cfg(test)]
mod fixtures;
pub mod moment;

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use proto::node::{DeviceEvent, Renew, Renewed, device_event::Event as ToGateway};
use rustls::CertificateError;
use tokio::{sync::mpsc, time::sleep};

use self::moment::{Held, Origin, Reading};
use crate::{
    host::clock,
    state::{DeviceKey, Folder, Identity, Refused, identity::Life},
    upstream::{backoff, connect::chain, rfc3339},
};

/// Longest sleep: a machine that slept wakes up later than its timers think, and its clock may be set at any time.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// What to do about an answer that is not accepted.
pub const REMEDY: &str = "have the cluster's administrator check the gateways: one may be compromised, or older than the \
                      operator; this device keeps its certificate and asks again";

/// Why a certificate cannot be renewed at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this device's certificate cannot be read ({0:?})")]
    Read(CertificateError),
    #[error("make a certificate signing request")]
    Request(#[from] rcgen::Error),
}

/// What there is to renew, for as long as the certificate is the one at hand.
#[derive(Clone, Debug)]
pub struct Renewal {
    held: Held,
    /// The same each time: gateways know by it that it is asked for again.
    pkcs10: Vec<u8>,
}

impl Renewal {
    /// For the certificate that this process has from now on.
    pub fn of(key: &DeviceKey, identity: &Identity, origin: Origin) -> Result<Self, Error> {
        let leaf = identity
            .chain()
            .next()
            .ok_or(Error::Read(CertificateError::BadEncoding))?;
        Ok(Self {
            held: Held {
                life: Life::of(&leaf).map_err(Error::Read)?,
                origin,
                since: reading(),
                jitter: moment::jitter(&leaf),
            },
            pkcs10: key.certificate_request()?,
        })
    }
}

/// The renewal on one stream.
#[derive(Debug)]
pub struct Renewing<'a> {
    renewal: &'a Renewal,
    key: &'a DeviceKey,
    identity: &'a Identity,
    folder: &'a Folder,
    /// A question went out on this stream and nothing came back. One answer is looked at for each: they cost arithmetic.
    is_asked: AtomicBool,
    /// Is on the disk.
    renewed: OnceLock<(Identity, Renewal)>,
}

impl<'a> Renewing<'a> {
    pub fn new(
        renewal: &'a Renewal,
        key: &'a DeviceKey,
        identity: &'a Identity,
        folder: &'a Folder,
    ) -> Self {
        Self {
            renewal,
            key,
            identity,
            folder,
            is_asked: AtomicBool::new(false),
            renewed: OnceLock::new(),
        }
    }

    /// Asks when it is time, and again until it is answered.
    pub async fn ask(&self, outbound: &mpsc::Sender<DeviceEvent>) -> Infallible {
        let held = &self.renewal.held;
        let mut asked = 0_u32;
        while self.renewed.get().is_none() {
            await_zero(|| held.due_in(reading())).await;
            self.is_asked.store(true, Ordering::Relaxed);
            let event = Some(ToGateway::Renew(Renew {
                pkcs10: self.renewal.pkcs10.clone(),
            }));
            if outbound.send(DeviceEvent { event }).await.is_err() {
                break;
            }
            asked = asked.saturating_add(1);
            tracing::info!(asked, "Asking for another certificate");
            let again = clock::now().after(held.pause(asked, backoff::random()));
            await_zero(|| again.since(clock::now())).await;
        }
        // Whoever listens ends the stream.
        pending().await
    }

    /// Takes an answer; whether there is a new certificate on the disk now.
    pub fn take(&self, renewed: Renewed) -> bool {
        if !self.is_asked.swap(false, Ordering::Relaxed) {
            tracing::warn!("A gateway sent a certificate that was not asked for");
            return false;
        }
        let identity = match answer::check(renewed, self.key.fingerprint(), self.identity) {
            Ok(identity) => identity,
            Err(error) => {
                tracing::error!(
                    error = format!("{error}; {REMEDY}"),
                    "Another certificate is not taken; the one at hand goes on"
                );
                self.note(error.to_string());
                return false;
            }
        };
        // Before anything is written: what cannot be used afterwards is not kept.
        let next = match Renewal::of(self.key, &identity, Origin::Told) {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(error = chain(&error), "Another certificate is of no use");
                return false;
            }
        };
        if let Err(error) = self.folder.save_identity(&identity) {
            tracing::error!(
                error = chain(&error),
                "Keeping another certificate failed; it is asked for again"
            );
            return false;
        }
        tracing::info!("The certificate was renewed");
        if let Err(error) = self.folder.forget_refused() {
            tracing::warn!(error = chain(&error), "Removing refused.json failed");
        }
        self.renewed.set((identity, next)).is_ok()
    }

    /// Shows in `status` and `doctor` why an answer was not accepted.
    fn note(&self, reason: String) {
        let at = rfc3339(clock::wall());
        if let Err(error) = self.folder.save_refused(&Refused { reason, at }) {
            tracing::warn!(error = chain(&error), "Writing refused.json failed");
        }
    }

    /// What is on the disk now, where that is something else, and when to renew it.
    pub fn renewed(self) -> Option<(Identity, Renewal)> {
        self.renewed.into_inner()
    }
}

fn reading() -> Reading {
    Reading {
        moment: clock::now(),
        wall: clock::wall().as_second(),
    }
}

/// Sleeps until nothing is left to wait for.
async fn await_zero(left: impl Fn() -> Duration) {
    loop {
        match left() {
            Duration::ZERO => return,
            left => sleep(left.min(MAX_SLEEP)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{fixtures::World, *};
    use crate::state::atomic::cut_tests::{cuts, sibling};

    /// The folder of a device, and what is in its identity's file before and after a renewal.
    fn device() -> (tempfile::TempDir, Folder, World) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("state")).unwrap();
        let world = World::of(folder.key().unwrap());
        folder.save_identity(&world.identity).unwrap();
        (temporary, folder, world)
    }

    fn renewal(world: &World) -> Renewal {
        Renewal::of(&world.key, &world.identity, Origin::Kept).unwrap()
    }

    #[test]
    fn a_cut_at_any_byte_of_a_renewal_leaves_a_certificate_that_can_be_used() {
        let (_temporary, folder, world) = device();
        let new = world.check(world.renewed()).unwrap();
        let view = folder.view();
        let path = view.path().join("identity.json");
        let before = fs::read(&path).unwrap();
        folder.save_identity(&new).unwrap();
        let after = fs::read(&path).unwrap();

        let mut outcomes: Vec<_> = cuts(&before, &after)
            .into_iter()
            .map(|(_, content)| content)
            .collect();
        outcomes.sort();
        outcomes.dedup();
        // Where the order of the steps were another one, there would be parts of the new one among them.
        assert_eq!(outcomes.len(), 2);
        for content in outcomes {
            fs::write(&path, content).unwrap();
            for length in (0..=after.len()).step_by(97) {
                fs::write(sibling(&path), &after[..length]).unwrap();
                let read = view.identity().unwrap().unwrap();
                assert!(read == world.identity || read == new);
                view.check_identity(&read, &world.key).unwrap();
                view.life_of(&read).unwrap();
            }
        }
        // Whatever a cut left there, the next renewal replaces it.
        folder.save_identity(&new).unwrap();
        assert_eq!(view.identity().unwrap().unwrap(), new);
        assert!(!sibling(&path).exists());
    }

    #[test]
    fn one_answer_is_looked_at_for_each_question() {
        let (_temporary, folder, world) = device();
        let renewal = renewal(&world);
        let renewing = Renewing::new(&renewal, &world.key, &world.identity, &folder);
        assert!(!renewing.take(world.renewed()), "nobody asked");
        renewing.is_asked.store(true, Ordering::Relaxed);
        assert!(!renewing.take(Renewed::default()), "garbage");
        let refused = folder.view().refused().unwrap().unwrap();
        assert_eq!(refused.reason, "no certificate, or more than 16");
        assert!(!renewing.take(world.renewed()), "it was answered");
        assert_eq!(folder.view().identity().unwrap().unwrap(), world.identity);
        renewing.is_asked.store(true, Ordering::Relaxed);
        assert!(renewing.take(world.renewed()));
        let (identity, _) = renewing.renewed().unwrap();
        assert_ne!(identity, world.identity);
        assert_eq!(folder.view().identity().unwrap().unwrap(), identity);
        assert_eq!(folder.view().refused().unwrap(), None);
    }

    #[test]
    fn what_cannot_be_written_is_not_used() {
        let (_temporary, folder, world) = device();
        // Nobody can make the new file.
        fs::create_dir(sibling(&folder.view().path().join("identity.json"))).unwrap();
        let renewal = renewal(&world);
        let renewing = Renewing::new(&renewal, &world.key, &world.identity, &folder);
        renewing.is_asked.store(true, Ordering::Relaxed);
        assert!(!renewing.take(world.renewed()));
        assert!(renewing.renewed().is_none());
        assert_eq!(folder.view().identity().unwrap().unwrap(), world.identity);
    }

    #[test]
    fn the_request_fits_what_gateways_read() {
        let (_temporary, _folder, world) = device();
        assert!(renewal(&world).pkcs10.len() <= 2900);
    }
}
