//! How many codes may be usable at once, by namespace, and which of them wait.
//!
//! Ids of codes are unique in the cluster, and there are 10,000 numeric ones. A namespace has a share of them, which
//! shrinks when they run short; the oldest codes of a namespace keep their places, and the others wait until one of those
//! has ended.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crds::{
    PairingCode,
    v1alpha1::pairing_code::{CodeFormat, CodePhase},
};
use jiff::Timestamp;
use kube::{
    ResourceExt as _,
    runtime::reflector::{ObjectRef, Store},
};

use super::plan::Room;
use crate::watch::Guard;

type Reference = ObjectRef<Guard<PairingCode>>;
/// The order in which places are given: by the moment of creation, then by name.
type Turn = (Timestamp, String);

/// The codes that are usable, and those that wait to be.
#[derive(Debug, Default)]
pub struct Places(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Whether all that there are were taken in.
    filled: bool,
    /// By namespace and name.
    codes: HashMap<(String, String), Place>,
    shares: HashMap<(String, Format), Share>,
    usable: BTreeMap<Format, usize>,
    /// Ids of usable codes, each with how many have it.
    ids: HashMap<String, usize>,
}

#[derive(Clone, Debug)]
struct Place {
    format: Format,
    turn: Turn,
    /// Of one that is usable.
    id: Option<String>,
    usable: bool,
}

/// What a namespace has of a format.
#[derive(Debug, Default)]
struct Share {
    usable: usize,
    waiting: BTreeSet<Turn>,
}

/// `CodeFormat`, in an order.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Format {
    Alphanumeric,
    Numeric,
}

/// How many codes of a format may be usable.
struct Bounds {
    /// Of a namespace.
    share: usize,
    /// From so many in the cluster on, a namespace has the small share.
    crowded: usize,
    small_share: usize,
    /// Of the cluster.
    most: usize,
}

impl Format {
    fn of(code: &PairingCode) -> Self {
        match code.spec.format {
            CodeFormat::Alphanumeric => Self::Alphanumeric,
            CodeFormat::Numeric => Self::Numeric,
        }
    }

    fn bounds(self) -> Bounds {
        match self {
            // Of a million ids. Bounds what operators and gateways hold.
            Self::Alphanumeric => Bounds {
                share: 1000,
                crowded: 20_000,
                small_share: 100,
                most: 50_000,
            },
            // Of ten thousand ids. The last of them would have to be searched for.
            Self::Numeric => Bounds {
                share: 100,
                crowded: 8000,
                small_share: 10,
                most: 9500,
            },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Alphanumeric => "alphanumeric",
            Self::Numeric => "numeric",
        }
    }
}

impl Places {
    /// Takes in what was seen of a code; nothing, where it is gone or cannot be read. Returns whom to look at: it, and
    /// those that may have a place now.
    pub fn note(&self, reference: &Reference, seen: Option<&Guard<PairingCode>>) -> Vec<Reference> {
        let mut kept = self.kept();
        let namespace = reference.namespace.clone().unwrap_or_default();
        let before = kept.forget(&namespace, &reference.name);
        if let Some(Ok(code)) = seen.map(|seen| &seen.0) {
            kept.keep(code);
        }
        let mut woken = vec![reference.clone()];
        let key = (namespace, reference.name.clone());
        let is_kept = kept.codes.contains_key(&key);
        if let Some(before) = before.filter(|_| !is_kept) {
            let next = kept.next(&key.0, before.format);
            woken.extend(
                next.into_iter()
                    .map(|name| ObjectRef::new(&name).within(&key.0)),
            );
        }
        woken
    }

    /// Whether a code that is not drawn yet may be. `store`: of all codes, filled.
    pub fn room(&self, code: &PairingCode, store: &Store<Guard<PairingCode>>) -> Room {
        let mut kept = self.kept();
        kept.fill(store);
        kept.room(code)
    }

    /// Whether a usable code has that id.
    pub fn has(&self, id: &str) -> bool {
        self.kept().ids.contains_key(id)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// At the beginning, codes are looked at one after the other, and all of them count.
    fn fill(&mut self, store: &Store<Guard<PairingCode>>) {
        if self.filled {
            return;
        }
        self.filled = true;
        for code in store.state() {
            if let Ok(code) = &code.0
                && !self.codes.contains_key(&key(code))
            {
                self.keep(code);
            }
        }
    }

    fn keep(&mut self, code: &PairingCode) {
        let status = code.status.as_ref();
        let usable = match status.and_then(|status| status.phase) {
            Some(CodePhase::Active) => true,
            None => false,
            Some(CodePhase::Used | CodePhase::Expired | CodePhase::Locked) => return,
        };
        let key = key(code);
        self.forget(&key.0, &key.1);
        let place = Place {
            format: Format::of(code),
            turn: turn(code),
            id: status.and_then(|status| status.code_id.clone()),
            usable,
        };
        let share = self
            .shares
            .entry((key.0.clone(), place.format))
            .or_default();
        if usable {
            share.usable += 1;
            *self.usable.entry(place.format).or_default() += 1;
            if let Some(id) = &place.id {
                *self.ids.entry(id.clone()).or_default() += 1;
            }
        } else {
            share.waiting.insert(place.turn.clone());
        }
        self.codes.insert(key, place);
    }

    fn forget(&mut self, namespace: &str, name: &str) -> Option<Place> {
        let place = self
            .codes
            .remove(&(namespace.to_owned(), name.to_owned()))?;
        let key = (namespace.to_owned(), place.format);
        let share = self.shares.get_mut(&key)?;
        if place.usable {
            share.usable -= 1;
            if let Some(usable) = self.usable.get_mut(&place.format) {
                *usable -= 1;
            }
            if let Some(id) = &place.id
                && let Some(count) = self.ids.get_mut(id)
            {
                *count -= 1;
                if *count == 0 {
                    self.ids.remove(id);
                }
            }
        } else {
            share.waiting.remove(&place.turn);
        }
        if share.usable == 0 && share.waiting.is_empty() {
            self.shares.remove(&key);
        }
        Some(place)
    }

    fn room(&self, code: &PairingCode) -> Room {
        let format = Format::of(code);
        let bounds = format.bounds();
        let namespace = code.namespace().unwrap_or_default();
        // Those that are older come first, though they are not drawn yet.
        let older = self.shares.get(&(namespace, format)).map_or(0, |share| {
            let waiting = share.waiting.range(..turn(code));
            share.usable + waiting.take(bounds.share).count()
        });
        if older >= bounds.share {
            return Room::NamespaceIsFull {
                format: format.name(),
                most: bounds.share,
            };
        }
        let usable = self.usable.get(&format).copied().unwrap_or(0);
        let is_crowded = usable >= bounds.crowded && older >= bounds.small_share;
        if is_crowded || usable >= bounds.most {
            return Room::ClusterIsFull {
                format: format.name(),
                usable,
            };
        }
        Room::Free
    }

    /// Names of the codes of a namespace that may have a place now.
    fn next(&self, namespace: &str, format: Format) -> Vec<String> {
        let Some(share) = self.shares.get(&(namespace.to_owned(), format)) else {
            return Vec::new();
        };
        let free = format.bounds().share.saturating_sub(share.usable);
        // Those before the last one had a place already.
        let first = free.saturating_sub(2);
        share
            .waiting
            .iter()
            .take(free)
            .skip(first)
            .map(|(_, name)| name.clone())
            .collect()
    }
}

fn key(code: &PairingCode) -> (String, String) {
    (code.namespace().unwrap_or_default(), code.name_any())
}

fn turn(code: &PairingCode) -> Turn {
    let created = code.metadata.creation_timestamp.as_ref();
    (
        created.map_or(Timestamp::MAX, |time| time.0),
        code.name_any(),
    )
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::{PairingCodeSpec, PairingCodeStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::runtime::reflector::store::Writer;

    use super::*;

    fn code(namespace: &str, number: usize, phase: Option<CodePhase>) -> PairingCode {
        let mut code = PairingCode::new(
            &format!("code-{number:05}"),
            PairingCodeSpec {
                format: CodeFormat::Numeric,
                ..PairingCodeSpec::default()
            },
        );
        code.metadata.namespace = Some(namespace.to_owned());
        let second = 1_800_000_000 + i64::try_from(number).unwrap();
        code.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
        code.status = Some(PairingCodeStatus {
            phase,
            code_id: phase.map(|_| format!("{namespace}{number}")),
            ..PairingCodeStatus::default()
        });
        code
    }

    fn see(places: &Places, code: &PairingCode) -> Vec<String> {
        let seen = Guard(Ok(code.clone()));
        let woken = places.note(&ObjectRef::from_obj(&seen), Some(&seen));
        woken.into_iter().map(|woken| woken.name).collect()
    }

    fn room(places: &Places, code: &PairingCode) -> Room {
        places.room(code, &Writer::new(()).as_reader())
    }

    const ACTIVE: Option<CodePhase> = Some(CodePhase::Active);

    #[test]
    fn a_namespace_has_a_hundred_numeric_codes_and_others_have_theirs() {
        let places = Places::default();
        for number in 0..100 {
            see(&places, &code("greedy", number, ACTIVE));
        }
        let late = code("greedy", 200, None);
        see(&places, &late);
        let full = Room::NamespaceIsFull {
            format: "numeric",
            most: 100,
        };
        assert_eq!(room(&places, &late), full);
        assert_eq!(room(&places, &code("other", 300, None)), Room::Free);
        let mut letters = late.clone();
        letters.spec.format = CodeFormat::Alphanumeric;
        assert_eq!(room(&places, &letters), Room::Free);
    }

    #[test]
    fn when_a_code_ends_the_oldest_that_waits_is_looked_at_and_has_a_place() {
        let places = Places::default();
        for number in 0..100 {
            see(&places, &code("greedy", number, ACTIVE));
        }
        let waiting: Vec<_> = (100..120)
            .map(|number| code("greedy", number, None))
            .collect();
        for code in waiting.iter().rev() {
            see(&places, code);
        }
        assert_ne!(room(&places, &waiting[0]), Room::Free);
        let woken = see(&places, &code("greedy", 7, Some(CodePhase::Used)));
        assert_eq!(woken, ["code-00007", "code-00100"]);
        assert_eq!(room(&places, &waiting[0]), Room::Free);
        assert_ne!(room(&places, &waiting[1]), Room::Free);
        // One that is deleted makes room, too.
        let gone = Guard(Ok(code("greedy", 8, ACTIVE)));
        let woken = places.note(&ObjectRef::from_obj(&gone), None);
        assert!(
            woken.iter().any(|woken| woken.name == "code-00101"),
            "{woken:?}"
        );
        assert_eq!(room(&places, &waiting[1]), Room::Free);
        // And one that waited, and was deleted before its turn.
        let gone = Guard(Ok(waiting[0].clone()));
        let woken = places.note(&ObjectRef::from_obj(&gone), None);
        assert!(
            woken.iter().any(|woken| woken.name == "code-00102"),
            "{woken:?}"
        );
    }

    #[test]
    fn many_that_are_made_at_once_do_not_all_find_the_same_place_free() {
        let places = Places::default();
        let codes: Vec<_> = (0..500)
            .map(|number| code("greedy", number, None))
            .collect();
        for code in &codes {
            see(&places, code);
        }
        let free = codes
            .iter()
            .filter(|code| room(&places, code) == Room::Free);
        assert_eq!(free.count(), 100, "none of them is active yet");
    }

    #[test]
    fn where_a_hundred_tenants_take_what_they_may_another_one_still_gets_codes() {
        let places = Places::default();
        let mut drawn = 0;
        for tenant in 0..100 {
            let namespace = format!("tenant-{tenant}");
            for number in 0..100 {
                if room(&places, &code(&namespace, number, None)) == Room::Free {
                    see(&places, &code(&namespace, number, ACTIVE));
                    drawn += 1;
                }
            }
        }
        assert_eq!(drawn, 80 * 100 + 20 * 10);
        let honest = code("honest", 1, None);
        assert_eq!(room(&places, &honest), Room::Free);
        for number in 0..10 {
            see(&places, &code("honest", number, ACTIVE));
        }
        let eleventh = room(&places, &code("honest", 11, None));
        assert!(
            matches!(eleventh, Room::ClusterIsFull { .. }),
            "{eleventh:?}"
        );
    }

    #[test]
    fn the_cluster_is_never_full_to_the_last_id() {
        let places = Places::default();
        for number in 0..9500 {
            see(
                &places,
                &code(&format!("tenant-{}", number / 10), number, ACTIVE),
            );
        }
        let room = room(&places, &code("honest", 9999, None));
        assert!(matches!(room, Room::ClusterIsFull { .. }), "{room:?}");
        assert!(places.has("tenant-00") && !places.has("honest9999"));
    }

    #[test]
    fn what_was_there_before_the_first_look_counts() {
        let mut writer = Writer::new(());
        for number in 0..100 {
            let active = Guard(Ok(code("greedy", number, ACTIVE)));
            writer.apply_watcher_event(&kube::runtime::watcher::Event::Apply(active));
        }
        let places = Places::default();
        let room = places.room(&code("greedy", 200, None), &writer.as_reader());
        assert_ne!(room, Room::Free);
    }

    #[test]
    fn nothing_is_kept_of_codes_that_are_gone() {
        let places = Places::default();
        for number in 0..300 {
            let phase = [None, ACTIVE][number % 2];
            let seen = Guard(Ok(code("kitchen", number, phase)));
            places.note(&ObjectRef::from_obj(&seen), Some(&seen));
            places.note(&ObjectRef::from_obj(&seen), None);
        }
        let kept = places.kept();
        assert!(kept.codes.is_empty() && kept.shares.is_empty() && kept.ids.is_empty());
        assert_eq!(kept.usable[&Format::Numeric], 0);
    }
}
