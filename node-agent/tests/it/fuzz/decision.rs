//! What an agent decides about what its gateway sends.

use std::{
    collections::{BTreeMap, HashSet},
    iter,
    sync::Arc,
};

use node_agent::{
    agent::{
        jobs::Jobs,
        order::{self, Wish},
        plan::{self, Effect, Event, Limits, Observed},
    },
    capability::Offer,
    host::clock::Moment,
    journal::{Bounds, Follow, Journal, Mark, Record, Uid},
    mediation::rules::Rules,
};
use prost::Message as _;
use proto::node::{self, Availability, GatewayEvent, gateway_event};

/// An agent that has seen something already: one of every kind that a journal knows.
pub struct Known {
    _folder: tempfile::TempDir,
    journal: Journal,
    jobs: Jobs,
}

const NOW: Moment = Moment::from_millis(10_000);

impl Known {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path, Bounds::default(), Moment::default()).unwrap();
        let name = |text: &str| format!("check-{text}");
        let mark = |key: &str| Some(Mark::of(key, "echo", b"1", "jane"));
        let accepted = |text: &str, mark| Record::Accepted {
            uid: uid(text),
            name: name(text),
            mark,
        };
        let result = |text: &str, artefact| node::Result {
            uid: text.to_owned(),
            name: name(text),
            outcome: node::Outcome::Succeeded.into(),
            artefact,
            ..node::Result::default()
        };
        let finished = |text: &str| Record::Finished {
            uid: uid(text),
            result: result(text, None),
        };
        let artefact = node::Artefact {
            sha256: vec![7; 32],
            size_bytes: 1 << 20,
            ..node::Artefact::default()
        };
        let records = [
            accepted("a", mark("a")),
            accepted("b", mark("b")),
            finished("b"),
            accepted("c", None),
            finished("c"),
            Record::Acked { uid: uid("c") },
            Record::Cancelled {
                uid: uid("d"),
                name: name("d"),
            },
            Record::Following {
                uid: uid("e"),
                name: name("e"),
                follow: Follow {
                    first: uid("a"),
                    first_name: name("a"),
                    max_output_bytes: 1_000,
                    is_of_another: true,
                },
            },
            accepted("f", None),
            Record::Kept {
                uid: uid("f"),
                result: result("f", Some(artefact)),
            },
        ];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let committed = journal.commit(Arc::from(records), 0, Moment::default());
        runtime.block_on(committed).unwrap();
        let mut jobs = Jobs::default();
        let order = order::parse(
            gateway_event::Event::Dispatch(node::Dispatch {
                uid: "a".to_owned(),
                name: name("a"),
                capability: "echo".to_owned(),
                remaining_ms: 30_000,
                ..node::Dispatch::default()
            }),
            NOW,
        );
        let Some(Wish::Dispatch(order)) = order else {
            unreachable!("an order");
        };
        jobs.start(&Arc::from(order));
        Self {
            _folder: folder,
            journal,
            jobs,
        }
    }
}

/// What comes at once, at most.
const MOST: usize = 16;

/// The events that an input stands for, each with its length in front.
pub fn in_a_row(mut bytes: &[u8]) -> Vec<gateway_event::Event> {
    let messages = iter::from_fn(|| GatewayEvent::decode_length_delimited(&mut bytes).ok());
    messages
        .take(MOST)
        .filter_map(|message| message.event)
        .collect()
}

/// Decides about events, and looks that nothing starts unrecorded, or a second time.
pub fn decide(known: &Known, events: &[gateway_event::Event]) {
    let now = NOW;
    let events: Vec<Event> = events
        .iter()
        .filter_map(|event| order::parse(event.clone(), now))
        .filter_map(Event::wished)
        .collect();
    let offer = Offer {
        availability: Availability::Available,
        concurrency: 2,
        is_mediated: false,
        capability: None,
    };
    let plan = plan::plan(&Observed {
        now,
        events: &events,
        ledger: known.journal.ledger(),
        bounds: Bounds::default(),
        repeats: &[],
        jobs: &known.jobs,
        refused: &HashSet::new(),
        told: Some(&HashSet::new()),
        told_asked: &HashSet::new(),
        surface: &BTreeMap::from([("echo", offer)]),
        rules: &Rules::default(),
        limits: Limits::default(),
        stop_at: None,
    });
    let accepted: HashSet<&Uid> = plan
        .records
        .iter()
        .filter(|record| matches!(record, Record::Accepted { .. }))
        .map(Record::uid)
        .collect();
    let mut started = HashSet::new();
    for effect in &plan.effects {
        if let Effect::Start(order) = effect {
            assert!(accepted.contains(&order.uid), "it starts unrecorded");
            assert!(started.insert(order.uid.clone()), "it starts twice");
            let phase = known.journal.ledger().phase(&order.uid);
            assert_eq!(phase, None, "{} started before", order.uid);
        }
    }
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}
