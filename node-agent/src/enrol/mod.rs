//! From a pairing code to an identity.
//!
//! dial → the gateway proves itself → pairing on the disk → our proof and application → a person decides → checked →
//! identity on the disk. A stop anywhere goes on with the same key, and so with the same request.
//!
//! - `dial`: the connections, as types that allow the right order only;
//! - `verify`: what makes a server one that may be talked to;
//! - [`issued`]: what makes a certificate one that is taken;
//! - [`error`]: what ends a pairing, and what only interrupts it.
//!
//! Says what happens through [`Progress`]; prints nothing itself.

mod dial;
pub mod error;
pub mod issued;
mod verify;

use std::time::Duration;

pub use error::Error;
use pairing::{code::PairingCode, key::KeyFingerprint};
use proto::node::{self, Application, Denied, Failed, enroll_response::Step as Answer};

use self::dial::Applied;
use crate::{
    host::{Facts, clock},
    state::{
        DeviceKey, Folder, Identity, Pairing, Saved,
        pairing::{Method, Request},
    },
    terminal::printable,
    upstream::{backoff, connect::chain, dial::Dialer},
};

/// How long a gateway may take to know of a proof that it was sent: it writes that down first, and another gateway reads
/// it a moment later still.
pub const PROOF_SETTLES: Duration = Duration::from_secs(10);

/// What a person brought.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// `HOST:PORT`.
    pub gateway: String,
    pub code: PairingCode,
    /// The authority, where a URI named it.
    pub pin: Option<KeyFingerprint>,
    /// 1 to 253 bytes.
    pub requested_name: String,
}

/// Who pairs.
#[derive(Clone, Copy, Debug)]
pub struct Applicant<'a> {
    pub folder: &'a Folder,
    pub key: &'a DeviceKey,
    pub dialer: &'a Dialer,
    pub facts: &'a Facts,
    pub capabilities: &'a [node::Capability],
    /// [`PROOF_SETTLES`].
    pub settles: Duration,
}

/// What happens meanwhile.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// The gateway proved itself. `pinned`: by a certificate of the pinned authority and by the code; else by the code
    /// alone, and the authority was learnt.
    Proved {
        gateway: &'a str,
        pinned: bool,
        authority: KeyFingerprint,
    },
    /// A person must decide.
    Pending {
        request: &'a Request,
        key: KeyFingerprint,
        expires_in: Duration,
    },
    /// The gateway is away; it is asked again after the pause.
    Interrupted { reason: String, pause: Duration },
}

/// Who is told of progress.
pub type Listener<'a> = dyn FnMut(Progress<'_>) + Send + 'a;

/// Proves a code, once, and waits for the decision.
pub async fn pair(
    applicant: Applicant<'_>,
    invitation: Invitation,
    tell: &mut Listener<'_>,
) -> Result<Identity, Error> {
    let Invitation {
        gateway,
        code,
        pin,
        requested_name,
    } = invitation;
    let code_id = code.id().to_owned();
    let proved = dial::dial(applicant.dialer, &gateway, pin, applicant.key)
        .await?
        .prove(code)
        .await?;
    tell(Progress::Proved {
        gateway: &gateway,
        pinned: pin.is_some(),
        authority: proved.authority(),
    });
    let saved = applicant.folder.save_pairing(Pairing {
        gateway,
        authority: proved.authority(),
        method: if pin.is_some() {
            Method::Qr
        } else {
            Method::Pin
        },
        code_id,
        requested_name,
        request: None,
    })?;
    // A stream that broke meanwhile is one that broke later: the gateway is asked how things stand.
    let application = applicant.application(&saved)?;
    let applied = proved.apply(&saved, application).ok();
    follow(applicant, saved, applied, tell).await
}

/// Goes on with a pairing that was interrupted.
pub async fn resume(
    applicant: Applicant<'_>,
    saved: Saved,
    tell: &mut Listener<'_>,
) -> Result<Identity, Error> {
    follow(applicant, saved, None, tell).await
}

impl Applicant<'_> {
    fn application(&self, saved: &Saved) -> Result<Application, Error> {
        let Pairing {
            method,
            requested_name,
            ..
        } = saved.pairing();
        let method = match method {
            Method::Pin => node::PairingMethod::Pin,
            Method::Qr => node::PairingMethod::Qr,
        };
        Ok(Application {
            pkcs10: self.key.certificate_request()?,
            requested_name: requested_name.clone(),
            client_kind: node::ClientKind::Node.into(),
            method: method.into(),
            platform: Some(self.facts.to_platform()),
            capabilities: self.capabilities.to_vec(),
        })
    }
}

/// Waits for the decision, through as many connections as it takes.
async fn follow(
    applicant: Applicant<'_>,
    mut saved: Saved,
    mut applied: Option<Applied>,
    tell: &mut Listener<'_>,
) -> Result<Identity, Error> {
    let mut interruptions = 0;
    // The proof left just now; or in an earlier process, and how long ago that was nobody knows.
    let begun = clock::now();
    loop {
        let mut heard = false;
        let error = match converse(applicant, &mut saved, applied.take(), &mut heard, tell).await {
            Ok(identity) => {
                applicant.folder.save_identity(&identity)?;
                return Ok(identity);
            }
            Err(error) => error,
        };
        let since_proof = match saved.pairing().request {
            Some(_) => Duration::MAX,
            None => clock::now().since(begun),
        };
        let error = error.settled(since_proof >= applicant.settles);
        if error.ends_the_pairing() {
            applicant.folder.forget_pairing()?;
        }
        let Some(asked) = error.may_resume() else {
            return Err(error);
        };
        if !heard {
            applicant.dialer.begin_elsewhere(&saved.pairing().gateway);
        }
        interruptions = if heard { 1 } else { interruptions + 1 };
        let pause = backoff::pause(interruptions, 1, backoff::random());
        let pause = backoff::at_least(pause, Some(asked));
        tell(Progress::Interrupted {
            reason: chain(&error),
            pause,
        });
        tokio::time::sleep(pause).await;
    }
}

/// One connection's worth of waiting.
async fn converse(
    applicant: Applicant<'_>,
    saved: &mut Saved,
    applied: Option<Applied>,
    heard: &mut bool,
    tell: &mut Listener<'_>,
) -> Result<Identity, Error> {
    let mut applied = match applied {
        Some(applied) => applied,
        None => dial::recognise(applicant.dialer, saved, applicant.key)
            .await?
            .resume()?,
    };
    let mut answer = applied.first().await?;
    loop {
        *heard = true;
        answer = match answer {
            Answer::Describe(_) => {
                applied.describe(applicant.application(saved)?)?;
                applied.first().await?
            }
            Answer::Pending(pending) => {
                let expires_in = Duration::from_secs(pending.expires_in_seconds.into());
                let request = request_of(pending)?;
                if saved.pairing().request.as_ref() != Some(&request) {
                    let pairing = Pairing {
                        request: Some(request.clone()),
                        ..saved.pairing().clone()
                    };
                    *saved = applicant.folder.save_pairing(pairing)?;
                }
                tell(Progress::Pending {
                    request: &request,
                    key: applicant.key.fingerprint(),
                    expires_in,
                });
                applied.next().await?
            }
            Answer::Issued(issued) => {
                let expected = issued::Expected {
                    key: applicant.key.fingerprint(),
                    authority: saved.pairing().authority,
                    gateway: &saved.pairing().gateway,
                };
                return Ok(issued::check(issued, expected)?);
            }
            Answer::Denied(Denied {
                reason,
                retry_after_seconds,
            }) => {
                return Err(Error::Denied {
                    reason: printable(&reason),
                    retry_after: Duration::from_secs(retry_after_seconds.into()),
                });
            }
            Answer::Expired(_) => return Err(Error::RequestExpired),
            Answer::Failed(Failed { reason }) => {
                return Err(Error::NotIssued {
                    reason: printable(&reason),
                });
            }
            Answer::Challenge(_) => return Err(Error::Protocol("a challenge out of turn")),
        };
    }
}

/// The names end up in a command that a person copies into a shell: nothing but names may pass.
fn request_of(pending: node::Pending) -> Result<Request, Error> {
    let node::Pending {
        namespace, request, ..
    } = pending;
    let is_name = |text: &str| {
        (1..=253).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    };
    if !is_name(&namespace) || !is_name(&request) {
        return Err(Error::Protocol("a name that is none"));
    }
    Ok(Request {
        namespace,
        name: request,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_but_names_gets_into_the_command_for_the_approver() {
        for (namespace, request, accepted) in [
            ("kitchen", "preq-0a1b", true),
            ("kitchen", "", false),
            ("", "preq", false),
            ("kitchen", "$(reboot)", false),
            ("kitchen", "x; reboot", false),
            ("kitchen", "--all", false),
            ("kit\nchen", "preq", false),
        ] {
            let pending = node::Pending {
                namespace: namespace.to_owned(),
                request: request.to_owned(),
                expires_in_seconds: 1,
            };
            assert_eq!(request_of(pending).is_ok(), accepted, "{request:?}");
        }
    }

    #[test]
    fn whatever_names_a_gateway_tells_a_shell_sees_one_word_each() {
        let names = ("\\PC{0,300}|[a-z0-9.-]{0,300}", ".{0,40}");
        issued::tests::runner()
            .run(&names, |(namespace, request)| {
                let pending = node::Pending {
                    namespace,
                    request,
                    expires_in_seconds: u32::MAX,
                };
                if let Ok(Request { namespace, name }) = request_of(pending) {
                    for word in [namespace, name] {
                        prop_assert!((1..=253).contains(&word.len()) && !word.starts_with('-'));
                        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
                        prop_assert!(word.chars().all(is_plain), "{word:?}");
                    }
                }
                Ok(())
            })
            .unwrap();
    }
}
