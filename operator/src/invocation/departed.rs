//! Devices that were deleted while they held a stream. What a gateway had sent to such a one, it may not have said yet; and
//! once the Device is gone, nothing else tells an invocation of it from one of a Device that never was.
//!
//! A Device whose session had ended is not remembered: what was sent by then is marked before the end is written.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crds::Device;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::watch::Guard;

/// How long one is remembered: longer than what was sent to it can be waited for.
const KEPT: SignedDuration = SignedDuration::from_hours(2);
/// Most that are remembered.
const MOST: usize = 8192;

/// The Devices that were seen to go.
#[derive(Debug, Default)]
pub struct Departed(Mutex<Gone>);

/// What is known of a Device that is not there.
#[derive(Clone, Debug, PartialEq)]
pub struct Absence {
    /// Since when one that was there would have been seen.
    pub seen_since: Timestamp,
    /// Of the last of that name that was deleted while it held a stream.
    pub departure: Option<Departure>,
}

/// How a Device went that held a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Departure {
    /// When it was seen to be gone.
    pub at: Timestamp,
    /// Its version, which is that of the deletion.
    pub version: Option<String>,
    /// Since when it held the stream. Absent where nobody can say.
    pub connected_at: Option<Timestamp>,
}

/// Namespace and name.
type Key = (String, String);

#[derive(Debug, Default)]
struct Gone {
    by_key: HashMap<Key, Departure>,
    by_moment: BTreeSet<(Timestamp, Key)>,
    /// The moment of the youngest that was forgotten for want of room.
    forgotten: Option<Timestamp>,
}

impl Departed {
    /// Takes in that a Device was deleted.
    pub fn note(&self, device: &Guard<Device>, now: Timestamp) {
        let connected_at = match &device.0 {
            Ok(device) => {
                let session = device.status.as_ref().and_then(|it| it.session.as_ref());
                let Some(session) = session.filter(|session| session.ended_at.is_none()) else {
                    return;
                };
                session.connected_at.as_ref().map(|time| time.0)
            }
            Err(_) => None,
        };
        let key = (device.namespace().unwrap_or_default(), device.name_any());
        let departure = Departure {
            at: now,
            version: device.resource_version(),
            connected_at,
        };
        self.gone().keep(key, departure);
    }

    /// What is known of a Device of that name, where Devices have been seen without a break since then.
    pub fn absence(&self, namespace: &str, name: &str, seen_since: Timestamp) -> Absence {
        let gone = self.gone();
        let departure = gone.by_key.get(&(namespace.to_owned(), name.to_owned()));
        Absence {
            seen_since: gone.forgotten.map_or(seen_since, |at| at.max(seen_since)),
            departure: departure.cloned(),
        }
    }

    fn gone(&self) -> MutexGuard<'_, Gone> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gone {
    fn keep(&mut self, key: Key, mut departure: Departure) {
        if let Some(before) = self.by_key.get(&key) {
            // What was sent to the one before may still be open, too.
            departure.connected_at = departure.connected_at.min(before.connected_at);
            self.by_moment.remove(&(before.at, key.clone()));
        }
        self.by_moment.insert((departure.at, key.clone()));
        let oldest_kept = departure.at.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
        self.by_key.insert(key, departure);
        while let Some((at, _)) = self.by_moment.first()
            && (*at < oldest_kept || self.by_moment.len() > MOST)
            && let Some((at, key)) = self.by_moment.pop_first()
        {
            self.by_key.remove(&key);
            if at >= oldest_kept {
                self.forgotten = Some(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::{DeviceSpec, DeviceStatus, device::Session};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn lamp(session: impl Into<Option<Session>>) -> Guard<Device> {
        let mut device = Device::new("lamp", DeviceSpec::default());
        device.metadata.namespace = Some("kitchen".to_owned());
        device.metadata.resource_version = Some("7".to_owned());
        device.status = Some(DeviceStatus {
            session: session.into(),
            ..DeviceStatus::default()
        });
        Guard(Ok(device))
    }

    fn session(connected: i64, ended: Option<i64>) -> Session {
        Session {
            gateway: "a".to_owned(),
            epoch: 1,
            connected_at: Some(Time(at(connected))),
            ended_at: ended.map(|ended| Time(at(ended))),
        }
    }

    fn departure(departed: &Departed) -> Option<Departure> {
        departed.absence("kitchen", "lamp", at(0)).departure
    }

    #[test]
    fn only_one_that_held_a_stream_is_remembered() {
        let departed = Departed::default();
        departed.note(&lamp(None), at(100));
        departed.note(&lamp(session(10, Some(90))), at(100));
        assert_eq!(departure(&departed), None);
        departed.note(&lamp(session(10, None)), at(100));
        let expected = Departure {
            at: at(100),
            version: Some("7".to_owned()),
            connected_at: Some(at(10)),
        };
        assert_eq!(departure(&departed), Some(expected));
        let other = departed.absence("kitchen", "kettle", at(0));
        assert_eq!((other.departure, other.seen_since), (None, at(0)));
        assert_eq!(departed.absence("garden", "lamp", at(0)).departure, None);
    }

    #[test]
    fn one_that_cannot_be_read_may_have_held_a_stream() {
        let departed = Departed::default();
        let Ok(device) = lamp(None).0 else {
            unreachable!("it was made so")
        };
        let invalid = crds::Invalid {
            metadata: device.metadata,
            error: "broken".to_owned(),
        };
        departed.note(&Guard(Err(invalid)), at(100));
        assert_eq!(departure(&departed).unwrap().connected_at, None);
    }

    #[test]
    fn the_stream_of_the_one_before_counts_too() {
        let departed = Departed::default();
        departed.note(&lamp(session(10, None)), at(100));
        departed.note(&lamp(session(110, None)), at(120));
        let last = departure(&departed).unwrap();
        assert_eq!((last.at, last.connected_at), (at(120), Some(at(10))));
    }

    #[test]
    fn what_is_old_is_forgotten_and_what_there_is_no_room_for_is_no_longer_vouched_for() {
        let departed = Departed::default();
        departed.note(&lamp(session(0, None)), at(0));
        departed.note(&named("young"), at(7_201));
        assert_eq!(departure(&departed), None);
        assert_eq!(departed.absence("kitchen", "lamp", at(0)).seen_since, at(0));
        for number in 0..MOST {
            departed.note(&named(&format!("d{number}")), at(7_300));
        }
        assert_eq!(departed.gone().by_key.len(), MOST);
        assert_eq!(departed.gone().by_moment.len(), MOST);
        let young = departed.absence("kitchen", "young", at(0));
        assert_eq!((young.departure, young.seen_since), (None, at(7_201)));
    }

    fn named(name: &str) -> Guard<Device> {
        let mut device = lamp(session(0, None)).0.unwrap();
        device.metadata.name = Some(name.to_owned());
        Guard(Ok(device))
    }
}
