use std::slice::from_ref;

use crds::v1alpha1::device::DeviceGrants;
use serde_json::{Value, json};
use surface::digest;

use super::*;

const SMALL: &str = r#"{"maximum":5,"type":"integer"}"#;
const SMALLER: &str = r#"{"maximum":4,"type":"integer"}"#;
const LARGE: &str = r#"{"maximum":9,"type":"integer"}"#;
use Execution::{Automatic, Mediated};

fn capability(execution: Execution, schema: &str) -> DeclaredCapability {
    DeclaredCapability {
        name: "grow".to_owned(),
        execution,
        input_schema: Some(schema.to_owned()),
        ..DeclaredCapability::default()
    }
}

fn granted(names: &[&str]) -> DeviceSpec {
    DeviceSpec {
        grants: DeviceGrants {
            capabilities: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeviceGrants::default()
        },
        ..DeviceSpec::default()
    }
}

fn pinned(execution: Execution, schema: &str) -> DeviceSpec {
    let mut spec = granted(&["grow"]);
    spec.grants.surfaces = [("grow".to_owned(), digest(execution.as_str(), Some(schema)))].into();
    spec
}

/// A device's life: what it declares and what is granted, one after the other. What is shown is kept in between.
#[derive(Default)]
struct Life {
    status: DeviceStatus,
}

fn fits(permit: &Permit, input: &Value) -> bool {
    let mut schemas = permit.accepted.iter().chain(&permit.declared);
    schemas.all(|schema| schema.check(input).is_ok())
}

impl Life {
    fn declares(&mut self, declared: &[DeclaredCapability], spec: &DeviceSpec) -> &mut Self {
        let available: Vec<_> = declared
            .iter()
            .map(|one| (one.clone(), Availability::Available))
            .collect();
        let shown_now = shown(&available, spec, &self.status, &Known::default());
        self.status.capabilities = shown_now.capabilities.clone();
        self.status.undeclared = shown_now.undeclared.clone();
        assert_eq!(
            shown(&available, spec, &self.status, &Known::default()),
            shown_now,
            "twice"
        );
        self
    }

    fn shows(&self) -> (Granted, Option<(Execution, &str)>) {
        let [one] = &self.status.capabilities[..] else {
            unreachable!("one is declared")
        };
        let accepted = one.accepted.as_ref();
        let accepted = accepted.map(|accepted| {
            (
                accepted.execution,
                accepted.input_schema.as_deref().unwrap(),
            )
        });
        (one.granted, accepted)
    }

    fn runs(
        &self,
        declared: &DeclaredCapability,
        spec: &DeviceSpec,
        input: &Value,
    ) -> Option<bool> {
        let declared = Declared {
            capabilities: vec![(declared.clone(), Availability::Available)],
            ..Declared::default()
        };
        match standing("grow", &declared, spec, &self.status) {
            Standing::Permitted(permit) if fits(&permit, input) => Some(permit.mediate),
            Standing::Permitted(_) | Standing::Pending | Standing::NotGranted => None,
        }
    }
}

#[test]
fn what_grows_waits_and_what_was_granted_goes_on() {
    for spec in [granted(&["grow"]), pinned(Automatic, SMALL)] {
        let mut life = Life::default();
        let (before, after) = (capability(Automatic, SMALL), capability(Automatic, LARGE));
        life.declares(&[before], &spec);
        assert_eq!(life.shows(), (Granted::Granted, None));
        life.declares(from_ref(&after), &spec);
        assert_eq!(life.shows(), (Granted::Pending, Some((Automatic, SMALL))));
        assert_eq!(life.runs(&after, &spec, &json!(5)), Some(false));
        assert_eq!(life.runs(&after, &spec, &json!(9)), None);

        let granted_anew = pinned(Automatic, LARGE);
        life.declares(from_ref(&after), &granted_anew);
        assert_eq!(life.shows(), (Granted::Granted, None));
        assert_eq!(life.runs(&after, &granted_anew, &json!(9)), Some(false));
    }
}

#[test]
fn shrinking_and_growing_back_needs_nobody() {
    let spec = pinned(Automatic, SMALL);
    let mut life = Life::default();
    life.declares(&[capability(Automatic, SMALL)], &spec);
    let smaller = capability(Automatic, SMALLER);
    life.declares(from_ref(&smaller), &spec);
    assert_eq!(life.shows(), (Granted::Granted, Some((Automatic, SMALL))));
    assert_eq!(
        life.runs(&smaller, &spec, &json!(5)),
        None,
        "the device does not take it"
    );
    assert_eq!(life.runs(&smaller, &spec, &json!(4)), Some(false));
    life.declares(&[capability(Mediated, SMALLER)], &spec);
    assert_eq!(life.shows(), (Granted::Granted, Some((Automatic, SMALL))));
    life.declares(&[capability(Automatic, SMALL)], &spec);
    assert_eq!(life.shows(), (Granted::Granted, None));
}

#[test]
fn what_stops_asking_a_person_goes_on_asking_until_somebody_grants_it() {
    let spec = pinned(Mediated, SMALL);
    let mut life = Life::default();
    life.declares(&[capability(Mediated, SMALL)], &spec);
    let bold = capability(Automatic, SMALL);
    life.declares(from_ref(&bold), &spec);
    assert_eq!(life.shows(), (Granted::Pending, Some((Mediated, SMALL))));
    assert_eq!(
        life.runs(&bold, &spec, &json!(1)),
        Some(true),
        "the person is asked"
    );
    let spec = pinned(Automatic, SMALL);
    life.declares(from_ref(&bold), &spec);
    assert_eq!(life.runs(&bold, &spec, &json!(1)), Some(false));
}

#[test]
fn to_go_away_and_come_back_wider_is_to_grow() {
    for spec in [granted(&["grow", "other"]), pinned(Automatic, SMALL)] {
        let mut life = Life::default();
        let wider = capability(Automatic, LARGE);
        life.declares(&[capability(Automatic, SMALL)], &spec)
            .declares(&[], &spec);
        assert_eq!(life.status.undeclared[0].name, "grow");
        life.declares(from_ref(&wider), &spec);
        assert_eq!(life.shows(), (Granted::Pending, Some((Automatic, SMALL))));
        assert_eq!(life.status.undeclared, []);
        assert_eq!(life.runs(&wider, &spec, &json!(9)), None);
        // Narrower first, then away, then wider.
        life.declares(&[capability(Automatic, SMALLER)], &spec)
            .declares(&[], &spec)
            .declares(&[wider], &spec);
        assert_eq!(life.shows(), (Granted::Pending, Some((Automatic, SMALL))));
    }
}

#[test]
fn a_digest_of_something_unknown_grants_nothing() {
    let mut life = Life::default();
    let spec = pinned(Automatic, SMALL);
    let wider = capability(Automatic, LARGE);
    life.declares(from_ref(&wider), &spec);
    assert_eq!(life.shows(), (Granted::Pending, None));
    assert_eq!(life.runs(&wider, &spec, &json!(1)), None);
    life.declares(&[capability(Automatic, SMALL)], &spec);
    assert_eq!(life.shows(), (Granted::Granted, None));
}

#[test]
fn a_digest_takes_back_what_it_does_not_name() {
    let mut life = Life::default();
    let wide = capability(Automatic, LARGE);
    life.declares(from_ref(&wide), &pinned(Automatic, LARGE));
    let back = pinned(Automatic, SMALL);
    life.declares(from_ref(&wide), &back);
    assert_eq!(life.shows(), (Granted::Pending, None));
    assert_eq!(life.runs(&wide, &back, &json!(1)), None);
}

#[test]
fn a_name_that_is_taken_back_is_forgotten() {
    let mut life = Life::default();
    let (small, wide) = (capability(Automatic, SMALL), capability(Automatic, LARGE));
    let spec = granted(&["grow"]);
    life.declares(&[small], &spec)
        .declares(from_ref(&wide), &spec);
    life.declares(from_ref(&wide), &granted(&[]));
    assert_eq!(life.shows(), (Granted::NotGranted, None));
    assert_eq!(life.runs(&wide, &granted(&[]), &json!(1)), None);
    // Whoever grants the name again grants what it means now.
    life.declares(from_ref(&wide), &spec);
    assert_eq!(life.shows(), (Granted::Granted, None));
}

#[test]
fn words_are_no_growth() {
    let spec = pinned(Automatic, SMALL);
    let mut life = Life::default();
    life.declares(&[capability(Automatic, SMALL)], &spec);
    let mut told = capability(
        Automatic,
        r#"{"maximum":5,"title":"How many","type":"integer"}"#,
    );
    told.version = Some("2".to_owned());
    life.declares(&[told], &spec);
    assert_eq!(life.shows(), (Granted::Granted, Some((Automatic, SMALL))));
}

#[test]
fn what_a_device_begins_to_declare_waits_for_a_decision() {
    use Granted::{Granted as Yes, NotGranted, Pending};
    type Decided<'a> = &'a [(&'a str, Granted)];
    let check = |sentence,
                 declares: &[&str],
                 grants: &[&str],
                 before: Decided<'_>,
                 expected: Decided<'_>| {
        let named = |name: &str| DeclaredCapability {
            name: name.to_owned(),
            ..DeclaredCapability::default()
        };
        let before = DeviceStatus {
            capabilities: before
                .iter()
                .map(|(name, granted)| DeviceCapability {
                    name: (*name).to_owned(),
                    granted: *granted,
                    ..DeviceCapability::default()
                })
                .collect(),
            ..DeviceStatus::default()
        };
        let declared: Vec<_> = declares
            .iter()
            .map(|name| (named(name), Availability::Unavailable))
            .collect();
        let Shown {
            capabilities,
            counts,
            ..
        } = shown(&declared, &granted(grants), &before, &Known::default());
        let decided: Vec<_> = capabilities
            .iter()
            .map(|one| (&*one.name, one.granted))
            .collect();
        assert_eq!(decided, expected, "{sentence}");
        let count = |wanted| {
            decided
                .iter()
                .filter(|(_, granted)| *granted == wanted)
                .count()
        };
        assert_eq!(usize::try_from(counts.declared), Ok(decided.len()));
        assert_eq!(usize::try_from(counts.granted), Ok(count(Yes)));
        assert_eq!(usize::try_from(counts.pending), Ok(count(Pending)));
    };
    let echo = ("echo", Yes);
    let pending = ("new", Pending);
    check("granted from the start", &["echo"], &["echo"], &[], &[echo]);
    check(
        "left out by the approver who saw it",
        &["echo"],
        &[],
        &[],
        &[("echo", NotGranted)],
    );
    check(
        "new on a known device, in the order of names",
        &["new", "echo"],
        &["echo"],
        &[echo],
        &[echo, pending],
    );
    check("still not decided", &["new"], &[], &[pending], &[pending]);
    check(
        "decided with yes",
        &["new"],
        &["new"],
        &[pending],
        &[("new", Yes)],
    );
    check(
        "taken back",
        &["echo"],
        &[],
        &[echo],
        &[("echo", NotGranted)],
    );
    check(
        "not declared any more",
        &["echo"],
        &["echo", "old"],
        &[("old", Yes)],
        &[echo],
    );
    check("declared twice", &["echo", "echo"], &["echo"], &[], &[echo]);
}
