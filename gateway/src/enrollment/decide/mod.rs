//! What a pairing code and the requests of a key allow. Pure: the time and everything that was read come in.
//!
//! Decides by numbers and by `expiresAt`, and not by the phase alone: the operator sets that a moment later.

use crds::{
    PairingCode, PairingRequest,
    names::PROOF_SECONDS,
    v1alpha1::{
        ObjectReference,
        pairing_code::{AdmittedKey, CodePhase},
    },
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

#[cfg(test)]
mod tests;

/// An object by its namespace and name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    pub namespace: String,
    pub name: String,
}

impl Place {
    pub fn of(object: &impl kube::Resource<DynamicType = ()>) -> Self {
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }
}

/// Why a code cannot be used. For our log; strangers are never told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unusable {
    NotDrawn,
    Over,
    Expired,
    Used,
    Locked,
}

/// Whether a challenge may be made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Attempt {
    /// Yes, once this many attempts are written.
    Count { attempts: i64 },
    /// As many challenges are out as may be, and some may yet be proved: look again in a moment.
    Wait,
    /// Answer as for a code that does not exist.
    Refuse(Unusable),
}

/// Of the codes that carry an id, the one that is meant: ids are unique among codes that live, and the dead keep theirs.
pub fn live(codes: Vec<PairingCode>) -> Option<PairingCode> {
    let is_active = |code: &PairingCode| {
        code.status
            .as_ref()
            .is_some_and(|status| status.phase == Some(CodePhase::Active))
    };
    let at = codes.iter().position(is_active).unwrap_or(0);
    codes.into_iter().nth(at)
}

/// An attempt is counted before the challenge leaves, for whoever holds it can check one guess and walk away.
pub fn attempt(code: &PairingCode, now: Timestamp) -> Attempt {
    if let Some(unusable) = unusable(code, now) {
        return Attempt::Refuse(unusable);
    }
    let Some(status) = &code.status else {
        return Attempt::Refuse(Unusable::NotDrawn);
    };
    if status.password_file.is_none() {
        return Attempt::Refuse(Unusable::NotDrawn);
    }
    if status.attempts < code.spec.max_attempts {
        return Attempt::Count {
            attempts: status.attempts + 1,
        };
    }
    let in_flight =
        |last: Timestamp| now.duration_since(last) < SignedDuration::from_secs(PROOF_SECONDS);
    match &status.last_attempt_at {
        Some(last) if in_flight(last.0) => Attempt::Wait,
        Some(_) | None => Attempt::Refuse(Unusable::Locked),
    }
}

/// What the proof of a code changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Proved {
    /// A use is spent on the key, and the attempt given back: a code for many would lock itself by being used.
    Admit {
        attempts: i64,
        uses: i64,
        admitted: Vec<AdmittedKey>,
    },
    /// The key was admitted before. Only the attempt is given back, while the code still counts any.
    Again { attempts: Option<i64> },
    /// Others were quicker, or the time is over.
    Refuse(Unusable),
}

/// `key` in hexadecimal digits.
pub fn proved(code: &PairingCode, key: &str, now: Timestamp) -> Proved {
    let status = code.status.clone().unwrap_or_default();
    let attempts = (status.attempts - 1).max(0);
    // Before the code's own state: its last use may be this key's.
    if has_admitted(code, key) {
        let counts = status.phase == Some(CodePhase::Active) && attempts != status.attempts;
        return Proved::Again {
            attempts: counts.then_some(attempts),
        };
    }
    if let Some(unusable) = unusable(code, now) {
        return Proved::Refuse(unusable);
    }
    let mut admitted = status.admitted;
    admitted.push(AdmittedKey {
        public_key_sha256: key.to_owned(),
        pairing_request_ref: None,
    });
    Proved::Admit {
        attempts,
        uses: status.uses + 1,
        admitted,
    }
}

fn unusable(code: &PairingCode, now: Timestamp) -> Option<Unusable> {
    let Some(status) = &code.status else {
        return Some(Unusable::NotDrawn);
    };
    match status.phase {
        None => return Some(Unusable::NotDrawn),
        Some(CodePhase::Used | CodePhase::Expired | CodePhase::Locked) => {
            return Some(Unusable::Over);
        }
        Some(CodePhase::Active) => {}
    }
    match &status.expires_at {
        Some(expires_at) if now < expires_at.0 => {}
        Some(_) | None => return Some(Unusable::Expired),
    }
    (status.uses >= code.spec.max_uses).then_some(Unusable::Used)
}

/// Which request of an admitted key counts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Link {
    /// Ours, once this is written.
    Write { admitted: Vec<AdmittedKey> },
    /// This one: the code names it.
    Counts { request: String },
    /// None: the code does not know the key.
    NotAdmitted,
}

/// The first request that the code names counts, and no other ever.
pub fn link(code: &PairingCode, key: &str, request: &str) -> Link {
    let mut admitted = code.status.clone().unwrap_or_default().admitted;
    let Some(entry) = admitted
        .iter_mut()
        .find(|admitted| admitted.public_key_sha256 == key)
    else {
        return Link::NotAdmitted;
    };
    if let Some(counts) = &entry.pairing_request_ref {
        return Link::Counts {
            request: counts.name.clone(),
        };
    }
    entry.pairing_request_ref = Some(ObjectReference::new(request));
    Link::Write { admitted }
}

/// Whether the key proved the code.
pub fn has_admitted(code: &PairingCode, key: &str) -> bool {
    code.status.as_ref().is_some_and(|status| {
        status
            .admitted
            .iter()
            .any(|admitted| admitted.public_key_sha256 == key)
    })
}

/// The request that a code names for a key.
pub fn named_request(code: &PairingCode, key: &str) -> Option<Place> {
    let admitted = &code.status.as_ref()?.admitted;
    let entry = admitted
        .iter()
        .find(|admitted| admitted.public_key_sha256 == key)?;
    let request = entry.pairing_request_ref.as_ref()?;
    Some(Place {
        namespace: code.namespace().unwrap_or_default(),
        name: request.name.clone(),
    })
}

/// Where a key that comes back without a code goes on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Resumption {
    /// Its request is there.
    Wait { request: Place },
    /// Its request is there, but the code does not name it yet: we, or another gateway, stopped in between.
    Link { code: Place, request: Place },
    /// It proved this code, and never said what it asks for.
    Describe { code: Place },
    /// It never proved a code.
    Unknown,
}

/// The last thing that the key did decides. `codes` are all that admitted the key, `requests` all that are for it.
///
/// Only requests that a gateway made count. Anybody may write one for any key: he would get the device that holds it.
pub fn resumption(key: &str, codes: &[PairingCode], requests: &[PairingRequest]) -> Resumption {
    let made: Vec<&PairingRequest> = requests
        .iter()
        .filter(|request| is_made_for(request, key))
        .collect();
    let from_codes = codes.iter().filter_map(|code| of_code(code, key, &made));
    // A code may be deleted while its request waits.
    let orphans = made
        .iter()
        .filter(|request| !codes.iter().any(|code| is_of_code(request, code)))
        .map(|request| {
            (
                created(*request),
                Resumption::Wait {
                    request: Place::of(*request),
                },
            )
        });
    from_codes
        .chain(orphans)
        .max_by_key(|(when, resumption)| {
            (*when, !matches!(resumption, Resumption::Describe { .. }))
        })
        .map_or(Resumption::Unknown, |(_, resumption)| resumption)
}

fn of_code(
    code: &PairingCode,
    key: &str,
    made: &[&PairingRequest],
) -> Option<(Timestamp, Resumption)> {
    let status = code.status.as_ref()?;
    let entry = status
        .admitted
        .iter()
        .find(|admitted| admitted.public_key_sha256 == key)?;
    let mut own = made.iter().filter(|request| is_of_code(request, code));
    if let Some(named) = &entry.pairing_request_ref {
        // Deleted, where it is not among them: whoever did that does not want to see it again.
        let request = own.find(|request| request.name_any() == named.name)?;
        return Some((
            created(*request),
            Resumption::Wait {
                request: Place::of(*request),
            },
        ));
    }
    let place = Place::of(code);
    if let Some(request) = own.max_by_key(|request| created(**request)) {
        let unnamed = Resumption::Link {
            code: place,
            request: Place::of(*request),
        };
        return Some((created(*request), unnamed));
    }
    let last = status
        .last_attempt_at
        .as_ref()
        .map_or_else(|| created(code), |time| time.0);
    Some((last, Resumption::Describe { code: place }))
}

/// Whether a gateway made it for that key.
pub fn is_made_for(request: &PairingRequest, key: &str) -> bool {
    request.spec.source.is_some() && request.spec.public_key_sha256.as_deref() == Some(key)
}

fn is_of_code(request: &PairingRequest, code: &PairingCode) -> bool {
    request.namespace() == code.namespace()
        && request
            .spec
            .pairing_code_ref
            .as_ref()
            .is_some_and(|named| named.name == code.name_any())
}

fn created(object: &impl kube::Resource) -> Timestamp {
    object
        .meta()
        .creation_timestamp
        .as_ref()
        .map_or(Timestamp::MIN, |time| time.0)
}
