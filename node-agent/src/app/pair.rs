//! `pair`: from a code to an identity; goes on with what was interrupted.

use anyhow::Context as _;
use pairing::{code::PairingCode, key::KeyFingerprint, uri::PairingUri};
use runtime::shutdown::StopSignals;
use zeroize::Zeroizing;

use super::{Settings, usage};
use crate::{
    args::Pair,
    enrol::{self, Applicant, Invitation, PROOF_SETTLES, Progress},
    exit::{Interrupted, Refusal},
    host::{Facts, clock},
    state::{Folder, Identity, Saved, Standing, View, identity::LifeState},
    terminal,
    upstream::gateways::is_address,
};

pub(super) async fn pair(settings: &Settings, args: Pair) -> anyhow::Result<()> {
    let Pair {
        code,
        gateway,
        name,
    } = args;
    let folder = Folder::open(&settings.folder)?;
    let view = folder.view();
    let interrupted = match view.standing(clock::wall().as_second())? {
        Standing::Unpaired => None,
        Standing::Pairing(saved) => Some(saved),
        Standing::Paired(identity) => {
            refuse_while_it_holds(view, identity)?;
            None
        }
    };
    let facts = Facts::read();
    let typed = read_code(code, interrupted.is_some())?;
    let (invitation, gateway) = match typed {
        Some(text) => {
            let invitation = invitation(&text, gateway, name, &facts)?;
            let gateway = invitation.gateway.clone();
            (Some(invitation), Some(gateway))
        }
        None => (None, gateway.map(address).transpose()?),
    };
    let capabilities = settings.declared();
    let key = folder.key()?;
    let applicant = Applicant {
        folder: &folder,
        key: &key,
        dialer: &settings.dialer(),
        facts: &facts,
        capabilities: &capabilities,
        settles: PROOF_SETTLES,
    };
    // Not before: whoever sits at a prompt can leave it.
    let mut stop = StopSignals::listen()?;
    let identity = tokio::select! {
        paired = carry_on(applicant, interrupted, invitation, gateway) => paired?,
        () = stop.recv() => return Err(Interrupted.into()),
    };
    terminal::say(&terminal::of_identity(&identity));
    warn_of_the_clock(view, &identity)?;
    Ok(())
}

/// An expired device comes back with its key and a new code.
fn refuse_while_it_holds(view: &View, identity: Identity) -> anyhow::Result<()> {
    if view
        .life_of(&identity)?
        .is_over_at(clock::wall().as_second())
    {
        return Ok(());
    }
    Err(Refusal::AlreadyPaired {
        namespace: identity.namespace,
        device: identity.device,
    }
    .into())
}

fn warn_of_the_clock(view: &View, identity: &Identity) -> anyhow::Result<()> {
    let now = clock::wall();
    if view.life_of(identity)?.at(now.as_second()) != LifeState::Valid {
        terminal::say(&format!(
            "This device's clock says {now:.0}, and the certificate does not hold then: set the clock before you start it."
        ));
    }
    Ok(())
}

/// Goes on with what was interrupted, unless the person brought another code; at `gateway`, where the person named one:
/// the one before may be gone for good, and any of them knows the key.
async fn carry_on(
    applicant: Applicant<'_>,
    interrupted: Option<Saved>,
    invitation: Option<Invitation>,
    gateway: Option<String>,
) -> Result<Identity, enrol::Error> {
    let mut tell = |progress: Progress<'_>| terminal::say(&terminal::of_progress(&progress));
    let redirect = |saved| match gateway {
        Some(gateway) => applicant.folder.redirect_pairing(saved, gateway),
        None => Ok(saved),
    };
    match (interrupted, invitation) {
        (Some(saved), None) => enrol::resume(applicant, redirect(saved)?, &mut tell).await,
        (Some(saved), Some(invitation)) if is_same(&saved, &invitation) => {
            let saved = redirect(saved)?;
            match enrol::resume(applicant, saved, &mut tell).await {
                // The stop came before the proof left. The person brought the code once more.
                Err(enrol::Error::NotAdmitted) => {
                    enrol::pair(applicant, invitation, &mut tell).await
                }
                other => other,
            }
        }
        (_, Some(invitation)) => enrol::pair(applicant, invitation, &mut tell).await,
        (None, None) => Err(enrol::Error::NotAdmitted),
    }
}

/// A code that was proved by this key already may be used up: proving it again would fail, and the request waits.
fn is_same(saved: &Saved, invitation: &Invitation) -> bool {
    saved.pairing().code_id == invitation.code.id()
}

/// What the person brought; `None` where there is something to go on with instead.
fn read_code(
    given: Option<String>,
    interrupted: bool,
) -> anyhow::Result<Option<Zeroizing<String>>> {
    let text = match given.map(Zeroizing::new) {
        Some(text) if text.as_str() == "-" => {
            terminal::read_line().context("read the code from standard input")?
        }
        Some(text) => text,
        None if interrupted => return Ok(None),
        None if terminal::is_interactive() => terminal::ask("Pairing code:")?,
        None => {
            return Err(usage(
                "no pairing code: give it as an argument, in FAIRLEAD_CODE, or on standard input with -",
            ));
        }
    };
    Ok(Some(text))
}

fn invitation(
    text: &str,
    gateway: Option<String>,
    name: Option<String>,
    facts: &Facts,
) -> anyhow::Result<Invitation> {
    let requested_name = name.unwrap_or_else(|| facts.hostname.clone());
    if !(1..=253).contains(&requested_name.len()) || requested_name.chars().any(char::is_control) {
        return Err(usage("--name has 1 to 253 characters that can be printed"));
    }
    let text = text.trim();
    let (code, pin, told) = if text.contains("://") {
        let uri: PairingUri = text.parse().map_err(|error| usage(in_one_line(&error)))?;
        (uri.code, Some(uri.authority), Some(uri.gateway))
    } else {
        let code = PairingCode::parse(text).map_err(|error| usage(in_one_line(&error)))?;
        (code, None::<KeyFingerprint>, None)
    };
    let gateway = match gateway.or(told) {
        Some(gateway) => gateway,
        None if terminal::is_interactive() => {
            terminal::ask("Gateway (HOST:PORT):")?.trim().to_owned()
        }
        None => {
            return Err(usage(
                "a typed code does not say where the gateway is: add --gateway HOST:PORT",
            ));
        }
    };
    Ok(Invitation {
        gateway: address(gateway)?,
        code,
        pin,
        requested_name,
    })
}

fn address(gateway: String) -> anyhow::Result<String> {
    if is_address(&gateway) {
        Ok(gateway)
    } else {
        Err(usage("the gateway's address is not HOST:PORT"))
    }
}

fn in_one_line(error: &(dyn std::error::Error + 'static)) -> String {
    crate::upstream::connect::chain(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn facts() -> Facts {
        Facts {
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            agent_version: "0".to_owned(),
            hostname: "box".to_owned(),
        }
    }

    fn uri() -> String {
        PairingUri {
            gateway: "gateway.example:7443".to_owned(),
            namespace: "kitchen".to_owned(),
            authority: KeyFingerprint::of_spki(b"authority"),
            code: PairingCode::parse("7KQ2-ABCDEF").unwrap(),
        }
        .expose()
    }

    #[test]
    fn a_uri_brings_its_gateway_and_its_authority_and_a_code_neither() {
        let scanned = invitation(&uri(), None, None, &facts()).unwrap();
        assert_eq!(scanned.gateway, "gateway.example:7443");
        assert!(scanned.pin.is_some());
        assert_eq!(scanned.requested_name, "box");

        let elsewhere = Some("other.example:1".to_owned());
        let moved = invitation(&uri(), elsewhere.clone(), None, &facts()).unwrap();
        assert_eq!(moved.gateway, "other.example:1");
        assert_eq!(moved.pin, scanned.pin);

        let typed =
            invitation("7kq2 abcdef", elsewhere, Some("lamp".to_owned()), &facts()).unwrap();
        assert_eq!((typed.pin, typed.requested_name.as_str()), (None, "lamp"));
    }

    #[test]
    fn what_cannot_be_read_is_a_usage_error_that_shows_no_code() {
        let gateway = || Some("g:1".to_owned());
        for (text, gateway, name) in [
            ("7KQ2-ABCDE", gateway(), None),
            ("https://x/#7KQ2-ABCDEF", gateway(), None),
            ("7KQ2-ABCDEF", Some("nowhere".to_owned()), None),
            ("7KQ2-ABCDEF", gateway(), Some(String::new())),
            ("7KQ2-ABCDEF", gateway(), Some("a\nb".to_owned())),
        ] {
            let error = invitation(text, gateway, name, &facts()).unwrap_err();
            assert_eq!(Exit::of(&error), Exit::Usage, "{text}");
            assert!(!format!("{error:#}").contains("ABCDE"), "{error:#}");
        }
    }
}
