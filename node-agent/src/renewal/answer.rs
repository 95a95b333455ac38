//! Whether another certificate takes the place of the one at hand. Pure but for the arithmetic of signatures.

use pairing::{
    bundle::{Held, NotAccepted, SignedBundle},
    certificate::Presented,
    key::KeyFingerprint,
};
use proto::node::Renewed;

use crate::{
    enrol::issued::{Refusal, Told},
    state::{
        Identity,
        identity::{Der, Life},
    },
};

/// Why the one at hand stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotTaken {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the certificate names another device")]
    AnotherDevice,
    #[error("the certificate ends no later than the one at hand")]
    NotNewer,
}

impl From<NotAccepted> for NotTaken {
    fn from(error: NotAccepted) -> Self {
        Self::Refused(error.into())
    }
}

/// The identity with the new certificate; nothing of an answer that fails one check is kept.
///
/// An authority that this device trusts already signed the bundle, and one of the bundle signed the certificate. So a
/// gateway can neither bring an authority of its own nor leave this device with a certificate that it would not believe
/// itself.
pub(super) fn check(
    renewed: Renewed,
    key: KeyFingerprint,
    at_hand: &Identity,
) -> Result<Identity, NotTaken> {
    let told = Told::read(renewed.chain, key)?;
    let leaf = at_hand.chain().next().ok_or(Refusal::Unreadable)?;
    let Ok(Presented::Device { id, .. }) = Presented::read(&leaf) else {
        return Err(Refusal::Unreadable.into());
    };
    if told.id != id {
        return Err(NotTaken::AnotherDevice);
    }
    let bundle = SignedBundle::from_bytes(&renewed.signed_bundle)?.verify(&Held {
        trust_domain: &id.trust_domain,
        sequence: at_hand.bundle_sequence,
        authorities: &at_hand.authorities(),
    })?;
    told.verify(bundle.authorities())?;
    let ends = |leaf| Life::of(leaf).map(|life| life.not_after);
    let (old, new) = (ends(&leaf), ends(&told.leaf));
    let (Ok(old), Ok(new)) = (old, new) else {
        return Err(Refusal::Unreadable.into());
    };
    if new <= old {
        return Err(NotTaken::NotNewer);
    }
    Ok(Identity {
        chain: told.chain.into_iter().map(Der).collect(),
        bundle: bundle.authorities().iter().cloned().map(Der).collect(),
        bundle_sequence: bundle.sequence(),
        ..at_hand.clone()
    })
}

#[cfg(test)]
mod tests;
