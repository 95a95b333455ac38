//! Several candidates at one pretended API server, in virtual time.

use std::cell::Cell;

use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::*;
use crate::{metrics::Metrics, pretended::Server};

const LEASE: &str = "leases/fairlead-operator";
/// Longer than any wait for a Lease.
const LONG: Duration = Duration::from_mins(2);

fn election(server: &Server, name: &str) -> Election {
    let metrics = Metrics::register(&mut Registry::default());
    Election {
        client: server.client(),
        namespace: "system".to_owned(),
        identity: names::operator_identity(name),
        report: Report::new(server.client(), name, metrics),
    }
}

fn holder(server: &Server) -> Option<String> {
    let lease = server.get(LEASE)?;
    Some(lease["spec"]["holderIdentity"].as_str()?.to_owned())
}

fn by_a_stranger(holder: &str) -> Value {
    json!({
        "metadata": {
            "name": "fairlead-operator", "namespace": "system",
            "labels": { "fairlead.dev/component": "gateway" }, "finalizers": ["example.com/stay"],
        },
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": 1_000_000_000,
            "acquireTime": "2090-01-01T00:00:00.000000Z",
            "renewTime": "2090-01-01T00:00:00.000000Z",
            "leaseTransitions": i32::MAX,
        },
    })
}

async fn wins(candidate: &mut Candidate<'_>) -> Duration {
    let began = Instant::now();
    timeout(LONG, candidate.campaign(|| {})).await.unwrap();
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn of_two_that_begin_at_once_one_leads_and_the_other_stands_by() {
    let server = Server::default();
    let (one, two) = (election(&server, "one"), election(&server, "two"));
    let (mut one, mut two) = (Candidate::new(&one), Candidate::new(&two));
    wins(&mut one).await;
    let stands_by = Cell::new(false);
    let second = async { timeout(LONG, two.campaign(|| stands_by.set(true))).await };
    tokio::select! {
        () = one.keep() => panic!("the leader lost the Lease"),
        won = second => assert!(won.is_err(), "both lead"),
    }
    assert!(stands_by.get());
    assert_eq!(holder(&server).unwrap(), "fairlead-operator-one");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_is_replaced_and_one_that_leaves_is_replaced_at_once() {
    let server = Server::default();
    let (one, two) = (election(&server, "one"), election(&server, "two"));
    let (mut one, mut two) = (Candidate::new(&one), Candidate::new(&two));
    wins(&mut one).await;
    let took = wins(&mut two).await;
    assert_eq!(took.as_secs(), 15, "as long as the Lease lasts");
    assert_eq!(holder(&server).unwrap(), "fairlead-operator-two");
    // The dead one comes back, and finds who leads.
    assert!(timeout(LONG, one.keep()).await.is_ok());
    two.release().await;
    assert_eq!(holder(&server), None);
    assert_eq!(wins(&mut one).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_made_before_with_a_duration_of_decades_delays_an_operator_by_the_cap() {
    for holder_before in ["gateway-0", "fairlead-operator-not-really"] {
        let server = Server::default();
        server.put(LEASE, by_a_stranger(holder_before));
        let one = election(&server, "one");
        let took = wins(&mut Candidate::new(&one)).await;
        let cap = u64::from(crds::lease::MAX_LEASE_SECONDS.unsigned_abs());
        assert_eq!(took.as_secs(), cap, "{holder_before}");
        let lease = server.get(LEASE).unwrap();
        assert_eq!(lease["spec"]["holderIdentity"], "fairlead-operator-one");
        assert_eq!(lease["spec"]["leaseDurationSeconds"], DURATION_SECONDS);
        let metadata = &lease["metadata"];
        assert!(
            metadata["labels"].is_null() && metadata["finalizers"].is_null(),
            "what the stranger wrote stays: {metadata}"
        );
        assert_eq!(server.events().len(), 1, "{:?}", server.events());
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_is_deleted_or_taken_by_a_stranger_takes_it_back_and_says_so() {
    let server = Server::default();
    let (one, two) = (election(&server, "one"), election(&server, "two"));
    let (mut leader, mut other) = (Candidate::new(&one), Candidate::new(&two));
    wins(&mut leader).await;
    let disturbed = async {
        sleep(RENEW_EVERY / 2).await;
        server.delete(LEASE);
        sleep(RENEW_EVERY * 2).await;
        assert_eq!(holder(&server).unwrap(), "fairlead-operator-one");
        server.delete(LEASE);
        server.put(LEASE, by_a_stranger("gateway-0"));
        sleep(RENEW_EVERY * 2).await;
        assert_eq!(holder(&server).unwrap(), "fairlead-operator-one");
    };
    tokio::select! {
        () = disturbed => {}
        () = leader.keep() => panic!("the leader gave up"),
        () = other.campaign(|| {}) => panic!("two lead"),
    }
    let told = server.events();
    for reason in ["ElectionLeaseGone", "ElectionLeaseHeldByStranger"] {
        assert!(told.iter().any(|told| told == reason), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_gives_up_before_another_one_may_lead() {
    let server = Server::default();
    let one = election(&server, "one");
    let mut leader = Candidate::new(&one);
    wins(&mut leader).await;
    server.refuse("leases");
    let began = Instant::now();
    timeout(LONG, leader.keep()).await.unwrap();
    let led = began.elapsed();
    assert!(
        led <= RENEW_WITHIN && RENEW_WITHIN.as_secs() < u64::from(DURATION_SECONDS.unsigned_abs()),
        "{led:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_renewal_hangs_gives_up_all_the_same() {
    let server = Server::default();
    let one = election(&server, "one");
    let mut leader = Candidate::new(&one);
    wins(&mut leader).await;
    let hangs = Election {
        client: crate::context::tests::hanging(),
        ..election(&server, "one")
    };
    leader.election = &hangs;
    let began = Instant::now();
    timeout(LONG, leader.keep()).await.unwrap();
    assert!(began.elapsed() <= RENEW_WITHIN);
}
