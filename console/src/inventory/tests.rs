//! What pages promise, against every way in which devices may change between them.

use std::collections::{BTreeMap, BTreeSet};

use console_api::inventory::{ClientKind, MAX_PAGE, Presence, Trust};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::json;

use super::{
    fixtures::{known, present},
    *,
};

const NAMESPACES: [&str; 3] = ["a", "ab", "b"];
const PRESENCES: [Presence; 4] = [
    Presence::Degraded,
    Presence::Stale,
    Presence::Offline,
    Presence::Online,
];

/// Everything on one page.
fn whole(devices: &Devices, scope: Option<&str>, filter: &Filter) -> Paged {
    let all = Page {
        limit: MAX_PAGE,
        cursor: None,
    };
    page(devices, scope, filter, &all).unwrap()
}

fn names(paged: &Paged) -> Vec<String> {
    paged
        .devices
        .iter()
        .map(|device| device.id().to_string())
        .collect()
}

#[test]
fn those_that_need_attention_come_first() {
    let mut devices = Devices::default();
    let unknown = known("a", "5", 5, json!({}), json!({}));
    for device in [
        present("a", "1", 1, Presence::Online),
        present("a", "2", 2, Presence::Offline),
        present("b", "3", 3, Presence::Degraded),
        present("a", "4", 4, Presence::Stale),
        unknown,
        present("a", "6", 6, Presence::Degraded),
    ] {
        devices.insert(device);
    }
    let paged = whole(&devices, None, &Filter::default());
    assert_eq!(names(&paged), ["a.6", "b.3", "a.4", "a.2", "a.5", "a.1"]);
    assert_eq!(
        names(&whole(&devices, Some("b"), &Filter::default())),
        ["b.3"]
    );
    assert_eq!(
        names(&whole(&devices, Some("none"), &Filter::default())),
        Vec::<String>::new()
    );
    assert_eq!(
        (
            paged.summary.devices,
            paged.summary.offline,
            paged.summary.degraded
        ),
        (6, 2, 2)
    );
}

#[test]
fn the_cursor_of_another_question_is_none() {
    let mut devices = Devices::default();
    devices.insert(present("a", "1", 1, Presence::Online));
    devices.insert(present("a", "2", 2, Presence::Online));
    let first = Page {
        limit: 1,
        cursor: None,
    };
    let next = page(&devices, Some("a"), &Filter::default(), &first)
        .unwrap()
        .next;
    let second = Page {
        limit: 1,
        cursor: next,
    };
    assert!(
        page(&devices, Some("a"), &Filter::default(), &second)
            .unwrap()
            .next
            .is_none()
    );
    let other = Filter {
        presence: Some(Presence::Online),
        ..Filter::default()
    };
    let bad = PageError::BadCursor(BadCursor);
    assert_eq!(page(&devices, Some("a"), &other, &second).unwrap_err(), bad);
    assert_eq!(
        page(&devices, None, &Filter::default(), &second).unwrap_err(),
        bad
    );
}

#[test]
fn a_gateway_that_is_behind_says_so_and_misses_nothing() {
    let (mut ahead, mut behind) = (Devices::default(), Devices::default());
    for device in [("1", Presence::Degraded), ("2", Presence::Offline)] {
        let (name, presence) = device;
        for devices in [&mut ahead, &mut behind] {
            devices.insert(present("a", name, 1, presence));
        }
    }
    let moved = present("a", "2", 9, Presence::Degraded);
    // The first page comes from the one that has not heard of it, the second from the one that has: 2 has moved to
    // the devices of the first page meanwhile... and the other way round.
    let all = Filter::default();
    ahead.insert(moved.clone());
    let first = page(
        &behind,
        None,
        &all,
        &Page {
            limit: 1,
            cursor: None,
        },
    )
    .unwrap();
    assert_eq!(names(&first), ["a.1"]);
    let mut shown = names(&first);
    let mut cursor = first.next;
    while let Some(next) = cursor {
        let page = page(
            &ahead,
            None,
            &all,
            &Page {
                limit: 1,
                cursor: Some(next),
            },
        )
        .unwrap();
        shown.extend(names(&page));
        cursor = page.next;
    }
    assert!(shown.contains(&"a.2".to_owned()), "{shown:?}");

    // One that is ahead shows Online what the one that is behind has as Degraded: neither walk meets it.
    let (mut ahead, mut behind) = (Devices::default(), Devices::default());
    for devices in [&mut ahead, &mut behind] {
        devices.insert(present("a", "1", 1, Presence::Degraded));
        devices.insert(present("a", "2", 2, Presence::Stale));
    }
    ahead.insert(present("a", "1", 9, Presence::Online));
    let first = page(
        &ahead,
        None,
        &all,
        &Page {
            limit: 1,
            cursor: None,
        },
    )
    .unwrap();
    assert_eq!(names(&first), ["a.2"]);
    let last = page(
        &behind,
        None,
        &all,
        &Page {
            limit: 1,
            cursor: first.next,
        },
    )
    .unwrap();
    assert_eq!(names(&last), Vec::<String>::new());
    let catch_up = Page {
        limit: 1,
        cursor: last.next,
    };
    assert_eq!(
        page(&behind, None, &all, &catch_up).unwrap_err(),
        PageError::Behind
    );
    behind.insert(present("a", "1", 9, Presence::Online));
    let caught = page(&behind, None, &all, &catch_up).unwrap();
    assert_eq!(
        (names(&caught), caught.next),
        (vec!["a.1".to_owned()], None)
    );
}

#[test]
fn what_moved_and_came_back_while_a_gateway_did_not_watch_is_not_missed() {
    let start = || {
        let mut devices = Devices::default();
        devices.insert(present("a", "1", 1, Presence::Degraded));
        devices.insert(present("a", "0", 2, Presence::Stale));
        devices
    };
    let (mut watching, mut away) = (start(), start());
    let all = Filter::default();
    let page_of =
        |devices: &Devices, cursor| page(devices, None, &all, &Page { limit: 1, cursor }).unwrap();
    let first = page_of(&away, None);
    assert_eq!(names(&first), ["a.1"]);
    // It goes to the front, where the reader was before.
    watching.insert(present("a", "0", 5, Presence::Degraded));
    let second = page_of(&watching, first.next);
    assert_eq!(names(&second), Vec::<String>::new());
    // When the one that was away lists anew, it is where it always was there.
    let mut listed = Devices::default();
    for device in [
        present("a", "1", 1, Presence::Degraded),
        present("a", "0", 7, Presence::Stale),
    ] {
        let known = away.get(&device.name).cloned();
        listed.insert_listed(device, known.as_ref());
    }
    away = listed;
    assert_eq!(names(&page_of(&away, second.next)), ["a.0"]);
}

/// What happens between two pages.
#[derive(Clone, Debug)]
enum Happens {
    /// It is made, or comes to that presence.
    Becomes(usize, u8, Presence),
    /// It changes without moving.
    Renamed(usize, u8),
    Deleted(usize, u8),
    /// The watch of a gateway begins anew.
    ListedAnew,
}

fn happens() -> impl Strategy<Value = Happens> {
    let which = || (0..NAMESPACES.len(), 0_u8..12);
    prop_oneof![
        6 => (which(), select(&PRESENCES)).prop_map(|((n, d), p)| Happens::Becomes(n, d, p)),
        2 => which().prop_map(|(n, d)| Happens::Renamed(n, d)),
        1 => which().prop_map(|(n, d)| Happens::Deleted(n, d)),
        1 => Just(Happens::ListedAnew),
    ]
}

/// The cluster, and two gateways of which the second hears of things later.
#[derive(Default)]
struct World {
    version: u64,
    truth: BTreeMap<(usize, u8), Known>,
    gateways: [Devices; 2],
    unheard: Vec<(Name, Option<Known>, u64)>,
}

impl World {
    fn happen(&mut self, what: &Happens) {
        self.version += 1;
        let version = self.version;
        let changed = match *what {
            Happens::Becomes(namespace, name, presence) => {
                let device = present(NAMESPACES[namespace], &name.to_string(), version, presence);
                self.truth.insert((namespace, name), device.clone());
                (device.name.clone(), Some(device))
            }
            Happens::Renamed(namespace, name) => {
                let Some(device) = self.truth.get_mut(&(namespace, name)) else {
                    return;
                };
                (device.version, device.moved_at) = (version, version);
                device.display_name = Some(version.to_string().into());
                (device.name.clone(), Some(device.clone()))
            }
            Happens::Deleted(namespace, name) => {
                let Some(device) = self.truth.remove(&(namespace, name)) else {
                    return;
                };
                (device.name, None)
            }
            Happens::ListedAnew => {
                let mut listed = Devices::default();
                for device in self.truth.values() {
                    let known = self.gateways[1].get(&device.name).cloned();
                    listed.insert_listed(device.clone(), known.as_ref());
                }
                listed.reached(version);
                self.gateways[1] = listed;
                self.unheard.clear();
                return;
            }
        };
        let (name, device) = changed;
        apply(&mut self.gateways[0], &name, device.clone(), version);
        self.unheard.push((name, device, version));
    }

    /// The second gateway hears of that many.
    fn hear(&mut self, count: usize) {
        for (name, device, version) in self.unheard.drain(..count.min(self.unheard.len())) {
            apply(&mut self.gateways[1], &name, device, version);
        }
    }
}

fn apply(devices: &mut Devices, name: &Name, device: Option<Known>, version: u64) {
    match device {
        Some(device) => drop(devices.insert(device)),
        None => drop(devices.remove(name)),
    }
    devices.reached(version);
}

/// Between two pages: what happens, how much of it the second gateway hears, which one serves the next page.
type Between = (Vec<Happens>, usize, usize);

fn between() -> impl Strategy<Value = Vec<Between>> {
    vec((vec(happens(), 0..6), 0_usize..8, 0_usize..2), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_there_all_the_time_is_on_a_page(
        start in vec(happens(), 0..60),
        heard_at_start in 0_usize..80,
        between in between(),
        limit in 1_u32..6,
        scope in option::of(select(&NAMESPACES)),
        presence in option::weighted(0.2, select(&PRESENCES)),
    ) {
        let mut world = World::default();
        for what in &start {
            world.happen(what);
        }
        world.hear(heard_at_start);
        let filter = Filter { presence, ..Filter::default() };
        let matches = |device: &Known| {
            scope.is_none_or(|scope| &*device.name.namespace == scope) && filter.matches(device)
        };
        let there = |world: &World| -> BTreeSet<(usize, u8)> {
            let matching = world.truth.iter().filter(|(_, device)| matches(device));
            matching.map(|(at, _)| *at).collect()
        };
        let mut all_the_time = there(&world);

        let mut shown: BTreeMap<String, usize> = BTreeMap::new();
        let mut cursor = None;
        let mut serves = 0;
        let mut rounds = between.iter().cycle();
        for round in 0.. {
            prop_assert!(round < 1000, "there is no end");
            let asked = Page { limit, cursor: cursor.clone() };
            match page(&world.gateways[serves], scope, &filter, &asked) {
                Ok(paged) => {
                    prop_assert!(paged.devices.len() <= limit as usize);
                    for device in &paged.devices {
                        *shown.entry(device.id().to_string()).or_default() += 1;
                    }
                    // Through its text, as a client has it.
                    cursor = paged.next.map(|next| next.to_string().parse().unwrap());
                    if cursor.is_none() {
                        break;
                    }
                }
                // Later it has heard.
                Err(PageError::Behind) => world.hear(usize::MAX),
                Err(PageError::BadCursor(_)) => prop_assert!(false, "the cursor is a good one"),
            }
            // Changes come to an end, so that what the catch-up must wait for does.
            let Some((happening, heard, next)) = rounds.next().filter(|_| round < 40) else { continue };
            for what in happening {
                world.happen(what);
                let now = there(&world);
                all_the_time.retain(|at| now.contains(at));
            }
            world.hear(*heard);
            serves = *next;
        }
        for (namespace, name) in all_the_time {
            let id = format!("{}.{name}", NAMESPACES[namespace]);
            prop_assert!(shown.contains_key(&id), "{id} was missed");
        }
    }

    #[test]
    fn what_did_not_change_is_on_one_page_of_one_gateway(
        start in vec(happens(), 0..60),
        between in vec(vec(happens(), 0..6), 1..24),
        limit in 1_u32..6,
    ) {
        let mut world = World::default();
        for what in &start {
            world.happen(what);
        }
        let mut unchanged: BTreeMap<_, _> =
            world.truth.iter().map(|(at, device)| (*at, device.version)).collect();
        let mut shown: BTreeMap<String, usize> = BTreeMap::new();
        let mut page_of = Page { limit, cursor: None };
        let mut rounds = between.iter();
        loop {
            let paged = page(&world.gateways[0], None, &Filter::default(), &page_of).unwrap();
            for device in &paged.devices {
                *shown.entry(device.id().to_string()).or_default() += 1;
            }
            let Some(next) = paged.next else { break };
            page_of.cursor = Some(next);
            for what in rounds.next().into_iter().flatten() {
                world.happen(what);
                let truth = &world.truth;
                unchanged.retain(|at, version| truth.get(at).is_some_and(|device| device.version == *version));
            }
        }
        for (namespace, name) in unchanged.into_keys() {
            let id = format!("{}.{name}", NAMESPACES[namespace]);
            prop_assert_eq!(shown.get(&id), Some(&1), "{}", id);
        }
    }

    #[test]
    fn filters_leave_what_they_say_and_count_it(
        happening in vec(
            (0..NAMESPACES.len(), 0_u8..9, select(&PRESENCES), 0_usize..3, 0_usize..3, option::of("[a-c]"), any::<bool>()),
            0..50,
        ),
        scope in option::of(select(&NAMESPACES)),
        trust in option::of(select(Trust::ALL)),
        presence in option::of(select(Presence::ALL)),
        client_kind in option::of(select(ClientKind::ALL)),
        selector in option::of(select(vec!["room=a", "room!=a", "!room", "room in (a,b)", "room notin (c)"])),
        text in option::of(select(vec!["1", "A", "ab.", "LAMP 2", "host-B"])),
    ) {
        let mut devices = Devices::default();
        for (version, (namespace, name, presence, trust, kind, room, deleted)) in (1..).zip(happening) {
            let mut device = known(NAMESPACES[namespace], &name.to_string(), version,
                json!({ "displayName": format!("Lamp {name}"), "clientKind": ClientKind::ALL[kind] }),
                json!({ "presence": presence, "trust": Trust::ALL[trust], "platform": { "os": "", "arch": "", "agentVersion": "",
                    "hostname": format!("HOST-{}", room.clone().unwrap_or_default()) } }));
            device.labels = std::sync::Arc::new(room.map(|room| ("room".to_owned(), room)).into_iter().collect());
            let name = device.name.clone();
            devices.insert(device);
            if deleted {
                devices.remove(&name);
            }
        }
        let filter = Filter {
            trust,
            presence,
            client_kind,
            labels: selector.map(|selector| selector.parse().unwrap()),
            text: text.map(|text| text.parse().unwrap()),
        };
        // From the records, as a reader would.
        let leaves = |record: &console_api::inventory::DeviceRecord| {
            let room = record.labels.get("room").map(String::as_str);
            scope.is_none_or(|scope| record.namespace == scope)
                && trust.is_none_or(|trust| record.trust == Some(trust))
                && presence.is_none_or(|presence| record.presence == Some(presence))
                && client_kind.is_none_or(|kind| record.client_kind == kind)
                && match selector {
                    Some("room=a") => room == Some("a"),
                    Some("room!=a") => room != Some("a"),
                    Some("!room") => room.is_none(),
                    Some("room in (a,b)") => matches!(room, Some("a" | "b")),
                    Some(_) => room != Some("c"),
                    None => true,
                }
                && text.is_none_or(|text| {
                    let all = format!("{}\n{}\n{}", record.id, record.display_name.as_ref().unwrap(),
                        record.platform.as_ref().unwrap().hostname);
                    all.to_lowercase().contains(&text.to_lowercase())
                })
        };
        let every: Vec<_> = devices.by_name(None, None).map(|device| device.record()).collect();
        let mut expected: Vec<_> = every.into_iter().filter(leaves).collect();
        expected.sort_by_key(|record| (record.presence.and_then(Rank::asked), record.namespace.clone(), record.name.clone()));
        let paged = whole(&devices, scope, &filter);
        let shown: Vec<_> = paged.devices.iter().map(|device| device.record()).collect();
        prop_assert_eq!(&shown, &expected);
        let number = |of: &dyn Fn(&console_api::inventory::DeviceRecord) -> bool| expected.iter().filter(|record| of(record)).count() as u64;
        let counts = paged.summary;
        prop_assert_eq!(counts.devices, expected.len() as u64);
        prop_assert_eq!(counts.online, number(&|record| record.presence == Some(Presence::Online)));
        prop_assert_eq!(counts.stale, number(&|record| record.presence == Some(Presence::Stale)));
        prop_assert_eq!(counts.degraded, number(&|record| record.presence == Some(Presence::Degraded)));
        prop_assert_eq!(counts.offline, number(&|record| record.presence == Some(Presence::Offline)));
        prop_assert_eq!(counts.trusted, number(&|record| record.trust == Some(Trust::Trusted)));
        prop_assert_eq!(counts.revoked, number(&|record| record.trust == Some(Trust::Revoked)));
    }
}
