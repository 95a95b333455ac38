//! From a code to an identity, against honest gateways, wrong ones, and ones that die.

use std::{path::PathBuf, sync::Mutex, time::Duration};

use node_agent::{
    capability::{About, Registry},
    enrol::{self, Applicant, Error, Invitation, PROOF_SETTLES, Progress},
    host::Facts,
    state::{
        Folder, Identity, Pairing,
        pairing::{Method, Request},
    },
    upstream::dial::Dialer,
};
use pairing::{code::PairingCode, exporter::Exporter, key::KeyFingerprint, opaque::Setup};
use proto::node::{
    Application, Challenge, Denied, Describe, Expired, Failed, Issued, Pending,
    enroll_request::Step, enroll_response::Step as Answer,
};
use tonic::Status;

use crate::gateway::{Authority, EnrollCall, Gateway, Manners, SEQUENCE, soon};

const CODE: &str = "7KQ2-ABCDEF";

/// A device, and the cluster's half of a code.
struct World {
    temporary: tempfile::TempDir,
    authority: Authority,
    gateway: Gateway,
    setup: Setup,
    password_file: Vec<u8>,
    /// What the person was told.
    told: Mutex<Vec<String>>,
}

impl World {
    async fn new() -> Self {
        let authority = Authority::new("ours");
        let setup = Setup::generate();
        let code = PairingCode::parse(CODE).unwrap();
        Self {
            temporary: tempfile::tempdir().unwrap(),
            gateway: Gateway::start(&authority, Manners::default()).await,
            authority,
            password_file: setup.password_file(&code).unwrap(),
            setup,
            told: Mutex::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.temporary.path().join("state")
    }

    fn folder(&self) -> Folder {
        Folder::open(&self.path()).unwrap()
    }

    fn told(&self, text: &str) -> bool {
        self.told
            .lock()
            .unwrap()
            .iter()
            .any(|told| told.contains(text))
    }

    fn pairing(&self) -> Option<Pairing> {
        let view = node_agent::state::View::of(&self.path()).unwrap().unwrap();
        let saved = view.pairing().unwrap()?;
        Some(saved.pairing().clone())
    }

    fn identity(&self) -> Option<Identity> {
        let view = node_agent::state::View::of(&self.path()).unwrap().unwrap();
        view.identity().unwrap()
    }
}

/// The gateway's half.
struct Cluster<'a> {
    authority: &'a Authority,
    setup: &'a Setup,
    password_file: Option<&'a [u8]>,
}

impl World {
    fn split(&mut self) -> (&mut Gateway, Cluster<'_>, Device<'_>) {
        let Self {
            gateway,
            authority,
            setup,
            password_file,
            temporary,
            told,
        } = self;
        let address = gateway.address.to_string();
        (
            gateway,
            Cluster {
                authority,
                setup,
                password_file: Some(password_file),
            },
            Device {
                path: temporary.path().join("state"),
                address,
                settles: PROOF_SETTLES,
                told,
            },
        )
    }
}

/// The device's half.
struct Device<'a> {
    path: PathBuf,
    address: String,
    settles: Duration,
    told: &'a Mutex<Vec<String>>,
}

impl Device<'_> {
    fn told(&self, text: &str) -> bool {
        let told = self.told.lock().unwrap();
        told.iter().any(|told| told.contains(text))
    }

    async fn pair(&self, code: &str, pin: Option<KeyFingerprint>) -> Result<Identity, Error> {
        let invitation = Invitation {
            gateway: self.address.clone(),
            code: PairingCode::parse(code).unwrap(),
            pin,
            requested_name: "lamp".to_owned(),
        };
        self.run(Some(invitation)).await
    }

    async fn resume(&self) -> Result<Identity, Error> {
        self.run(None).await
    }

    async fn run(&self, invitation: Option<Invitation>) -> Result<Identity, Error> {
        let folder = Folder::open(&self.path).unwrap();
        let key = folder.key().unwrap();
        let capabilities = Registry::built_in(About::default()).declared();
        let facts = Facts::read();
        let applicant = Applicant {
            folder: &folder,
            key: &key,
            dialer: &Dialer::default(),
            facts: &facts,
            capabilities: &capabilities,
            settles: self.settles,
        };
        let mut tell = |progress: Progress<'_>| {
            let text = node_agent::terminal::of_progress(&progress);
            self.told.lock().unwrap().push(text);
        };
        if let Some(invitation) = invitation {
            return soon(enrol::pair(applicant, invitation, &mut tell)).await;
        }
        let saved = folder.view().pairing().unwrap().unwrap();
        soon(enrol::resume(applicant, saved, &mut tell)).await
    }
}

impl Cluster<'_> {
    /// Answers Begin, checks the proof, and returns what the device asks for.
    async fn admit(&self, call: &mut EnrollCall) -> Application {
        let exporter = call.exporter;
        let attempt = self.challenge(call, exporter).await;
        let Step::Proof(proof) = call.next().await else {
            unreachable!("a proof is next");
        };
        attempt.verify(&proof.ke3).unwrap();
        let Step::Application(application) = call.next().await else {
            unreachable!("the application comes with the proof");
        };
        application
    }

    async fn challenge(
        &self,
        call: &mut EnrollCall,
        exporter: Exporter,
    ) -> pairing::opaque::Attempt {
        let Step::Begin(begin) = call.next().await else {
            unreachable!("a device begins");
        };
        assert_eq!(begin.code_id, "7KQ2");
        let (attempt, ke2) = self
            .setup
            .challenge(self.password_file, &begin.code_id, &begin.ke1, &exporter)
            .unwrap();
        call.answer(Answer::Challenge(Challenge { ke2 })).await;
        attempt
    }

    fn issued(&self, application: &Application) -> Issued {
        Issued {
            chain: vec![
                self.authority
                    .device(&application.pkcs10, "kitchen", "lamp"),
                self.authority.der(),
            ],
            signed_bundle: self.authority.own_bundle(),
            namespace: "kitchen".to_owned(),
            device: "lamp".to_owned(),
            gateways: vec!["gateway.example:7443".to_owned()],
        }
    }
}

fn pending() -> Answer {
    Answer::Pending(Pending {
        namespace: "kitchen".to_owned(),
        request: "preq-1".to_owned(),
        expires_in_seconds: 900,
    })
}

#[tokio::test]
async fn a_uri_and_a_typed_code_both_lead_to_an_identity() {
    for by_uri in [true, false] {
        let mut world = World::new().await;
        let pin = by_uri.then(|| world.authority.pin());
        let (gateway, cluster, device) = world.split();
        let (paired, key) = tokio::join!(device.pair(CODE, pin), async {
            let mut call = gateway.enrolment().await;
            let application = cluster.admit(&mut call).await;
            assert_eq!(application.requested_name, "lamp");
            assert_eq!(application.capabilities.len(), 3);
            assert_eq!(
                application.method(),
                if by_uri {
                    proto::node::PairingMethod::Qr
                } else {
                    proto::node::PairingMethod::Pin
                }
            );
            call.answer(pending()).await;
            call.answer(Answer::Issued(cluster.issued(&application)))
                .await;
            call.key
        });
        let identity = paired.unwrap();
        assert_eq!(Some(&identity), world.identity().as_ref());
        assert_eq!(world.pairing(), None);
        assert_eq!(world.folder().key().unwrap().fingerprint(), key);
        assert_eq!(world.told("A PIN cannot verify"), !by_uri);
        assert!(world.told("kubectl -n kitchen patch preq preq-1"));
    }
}

#[tokio::test]
async fn a_wrong_code_is_not_tried_again_and_nothing_that_proves_it_leaves() {
    let mut world = World::new().await;
    for pin in [None, Some(world.authority.pin())] {
        let (gateway, cluster, device) = world.split();
        let (paired, ()) = tokio::join!(device.pair("7KQ2-000000", pin), async {
            let mut call = gateway.enrolment().await;
            let exporter = call.exporter;
            cluster.challenge(&mut call, exporter).await;
            assert!(call.is_over().await, "no proof follows");
        });
        assert!(matches!(paired, Err(Error::CodeNotProved)), "{paired:?}");
        assert!(gateway.enrolments.try_recv().is_err(), "tried once");
        assert_eq!(world.pairing(), None);
    }
}

#[tokio::test]
async fn a_relay_gets_nothing_though_the_code_is_right() {
    let mut world = World::new().await;
    let (gateway, cluster, device) = world.split();
    let (paired, ()) = tokio::join!(device.pair(CODE, None), async {
        let mut call = gateway.enrolment().await;
        // What the real gateway would answer to the relay: made for the relay's own connection to it.
        cluster
            .challenge(&mut call, Exporter::from_bytes([9; 32]))
            .await;
        assert!(call.is_over().await, "no proof follows");
    });
    assert!(matches!(paired, Err(Error::CodeNotProved)), "{paired:?}");
}

#[tokio::test]
async fn a_gateway_of_another_authority_than_the_pinned_hears_nothing() {
    let mut world = World::new().await;
    let pin = Authority::new("ours").pin();
    let (gateway, _, device) = world.split();
    let paired = device.pair(CODE, Some(pin)).await;
    assert!(
        matches!(paired, Err(Error::NotTrusted { .. })),
        "{paired:?}"
    );
    assert!(gateway.enrolments.try_recv().is_err());
    assert_eq!(world.pairing(), None);
}

#[tokio::test]
async fn the_pinned_authoritys_certificate_alone_makes_no_gateway() {
    let mut world = World::new().await;
    let pin = world.authority.pin();
    // Anybody can send a public certificate along with his own.
    world.gateway = Gateway::impostor(&Authority::new("theirs"), &world.authority).await;
    let (gateway, _, device) = world.split();
    let paired = device.pair(CODE, Some(pin)).await;
    assert!(
        matches!(paired, Err(Error::NotTrusted { .. })),
        "{paired:?}"
    );
    assert!(gateway.enrolments.try_recv().is_err());
}

#[tokio::test]
async fn a_typed_code_learns_the_authority_that_signed_and_not_one_that_is_sent_along() {
    let mut world = World::new().await;
    let signer = Authority::new("theirs");
    world.gateway = Gateway::impostor(&signer, &world.authority).await;
    let (gateway, cluster, device) = world.split();
    let (_, learnt) = tokio::join!(device.pair(CODE, None), async {
        let mut call = gateway.enrolment().await;
        cluster.admit(&mut call).await;
        call.answer(Answer::Failed(Failed {
            reason: String::new(),
        }))
        .await;
        signer.pin()
    });
    let grouped = node_agent::terminal::grouped(learnt);
    assert!(world.told(grouped.lines().next().unwrap()));
}

#[tokio::test]
async fn what_an_approver_decides_ends_the_pairing() {
    for (answer, expected) in [
        (
            Answer::Denied(Denied {
                reason: "not ours\u{1b}[2J".to_owned(),
                retry_after_seconds: 60,
            }),
            "denied: not ours [2J (try again in 60 s)",
        ),
        (Answer::Expired(Expired {}), "nobody decided in time"),
        (
            Answer::Failed(Failed {
                reason: "NameTaken".to_owned(),
            }),
            "NameTaken",
        ),
    ] {
        let mut world = World::new().await;
        let (gateway, cluster, device) = world.split();
        let (paired, ()) = tokio::join!(device.pair(CODE, None), async {
            let mut call = gateway.enrolment().await;
            cluster.admit(&mut call).await;
            call.answer(pending()).await;
            call.answer(answer).await;
        });
        let error = paired.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(world.pairing(), None);
        assert_eq!(world.identity(), None);
    }
}

#[tokio::test]
async fn a_lost_stream_comes_back_with_the_key_and_without_the_code() {
    let mut world = World::new().await;
    let (gateway, cluster, device) = world.split();
    let (paired, ()) = tokio::join!(device.pair(CODE, None), async {
        let mut call = gateway.enrolment().await;
        let application = cluster.admit(&mut call).await;
        let key = call.key;
        call.answer(pending()).await;
        call.fail(Status::unavailable("the gateway stops")).await;
        drop(call);

        let mut call = gateway.enrolment().await;
        assert_eq!(call.key, key);
        assert!(matches!(call.next().await, Step::Resume(_)));
        // The proof arrived, the application did not.
        call.answer(Answer::Describe(Describe {})).await;
        let Step::Application(again) = call.next().await else {
            unreachable!("the application is asked for");
        };
        assert_eq!(again.requested_name, application.requested_name);
        assert_eq!(again.method, application.method);
        call.answer(Answer::Issued(cluster.issued(&again))).await;
    });
    paired.unwrap();
    assert!(world.told("the request stays"));
}

#[tokio::test]
async fn a_stop_in_the_middle_goes_on_with_the_same_key_and_request() {
    let mut world = World::new().await;
    let (gateway, cluster, device) = world.split();
    let mut first = None;
    {
        let pairing = device.pair(CODE, None);
        let stop = async {
            let mut call = gateway.enrolment().await;
            first = Some((cluster.admit(&mut call).await, call.key));
            call.answer(pending()).await;
            while !device.told("preq-1") {
                tokio::task::yield_now().await;
            }
        };
        // The process is killed here.
        tokio::select! {
            biased;
            paired = pairing => unreachable!("{paired:?}"),
            () = stop => {}
        }
    }
    let (application, key) = first.unwrap();
    let pairing_file = std::fs::read_to_string(device.path.join("pairing.json")).unwrap();
    assert!(!pairing_file.contains("ABCDEF"), "{pairing_file}");
    let saved = Folder::open(&device.path)
        .unwrap()
        .view()
        .pairing()
        .unwrap();
    let request = saved.unwrap().pairing().request.clone();
    assert_eq!(request.unwrap().name, "preq-1");

    let (paired, ()) = tokio::join!(device.resume(), async {
        let mut call = gateway.enrolment().await;
        assert_eq!(call.key, key);
        assert!(matches!(call.next().await, Step::Resume(_)));
        call.answer(Answer::Issued(cluster.issued(&application)))
            .await;
    });
    paired.unwrap();
}

#[tokio::test]
async fn after_a_typed_code_only_gateways_of_the_learnt_authority_are_asked() {
    let world = World::new().await;
    // Saved by an earlier process, which learnt another authority than that of whoever answers now.
    let folder = world.folder();
    folder.key().unwrap();
    folder
        .save_pairing(Pairing {
            gateway: world.gateway.address.to_string(),
            authority: Authority::new("ours").pin(),
            method: Method::Pin,
            code_id: "7KQ2".to_owned(),
            requested_name: "lamp".to_owned(),
            request: Some(Request {
                namespace: "kitchen".to_owned(),
                name: "preq-1".to_owned(),
            }),
        })
        .unwrap();
    drop(folder);
    let mut world = world;
    let (gateway, _, device) = world.split();
    {
        let refused = async {
            while !device.told("somebody may be in the middle") {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            resumed = device.resume() => unreachable!("{resumed:?}"),
            () = soon(refused) => {}
        }
    }
    assert!(gateway.enrolments.try_recv().is_err(), "nothing was asked");
    assert_eq!(world.identity(), None);
}

#[tokio::test]
async fn a_forged_certificate_is_refused_and_the_pairing_stays() {
    let stranger = Authority::new("ours");
    let mut world = World::new().await;
    let (gateway, cluster, device) = world.split();
    let (paired, ()) = tokio::join!(device.pair(CODE, None), async {
        let mut call = gateway.enrolment().await;
        let application = cluster.admit(&mut call).await;
        let forged = Cluster {
            authority: &stranger,
            ..cluster
        };
        call.answer(Answer::Issued(forged.issued(&application)))
            .await;
    });
    assert!(matches!(paired, Err(Error::Forged(_))), "{paired:?}");
    assert_eq!(world.identity(), None);
    assert!(world.pairing().is_some());
}

/// The gateway knows the code, and its certificate is a real one; its operator signed nothing of this.
#[tokio::test]
async fn a_gateway_cannot_add_an_authority_of_its_own_to_a_pairing() {
    let own = Authority::new("the gateway's own");
    let cases: [fn(&Authority, &Authority) -> Vec<u8>; 3] = [
        |ours, own| own.signed_bundle(SEQUENCE, &[ours, own]),
        |_, own| own.own_bundle(),
        |_, _| Vec::new(),
    ];
    for bundle in cases {
        let mut world = World::new().await;
        let (gateway, cluster, device) = world.split();
        let (paired, ()) = tokio::join!(device.pair(CODE, None), async {
            let mut call = gateway.enrolment().await;
            let application = cluster.admit(&mut call).await;
            let issued = Issued {
                signed_bundle: bundle(cluster.authority, &own),
                ..cluster.issued(&application)
            };
            call.answer(Answer::Issued(issued)).await;
        });
        assert!(matches!(paired, Err(Error::Forged(_))), "{paired:?}");
        assert_eq!(world.identity(), None);
    }
}

#[tokio::test]
async fn a_key_that_is_not_admitted_is_told_to_begin_again() {
    let mut world = World::new().await;
    let (gateway, cluster, mut device) = world.split();
    device.settles = Duration::ZERO;
    let (paired, ()) = tokio::join!(device.pair(CODE, None), async {
        let mut call = gateway.enrolment().await;
        let exporter = call.exporter;
        cluster.challenge(&mut call, exporter).await;
        // Dies before the proof counts.
        drop(call);
        let mut call = gateway.enrolment().await;
        assert!(matches!(call.next().await, Step::Resume(_)));
        call.fail(Status::not_found("this key never proved a code"))
            .await;
    });
    assert!(matches!(paired, Err(Error::NotAdmitted)), "{paired:?}");
    assert_eq!(world.pairing(), None);
}

#[tokio::test]
async fn a_proof_that_the_gateways_do_not_know_of_yet_is_waited_for() {
    let mut world = World::new().await;
    let (gateway, cluster, device) = world.split();
    let (paired, ()) = tokio::join!(device.pair(CODE, None), async {
        let mut call = gateway.enrolment().await;
        let application = cluster.admit(&mut call).await;
        // Dies while it writes down that the code was proved.
        drop(call);
        let mut call = gateway.enrolment().await;
        assert!(matches!(call.next().await, Step::Resume(_)));
        call.fail(Status::not_found("this key never proved a code"))
            .await;
        drop(call);
        let mut call = gateway.enrolment().await;
        assert!(matches!(call.next().await, Step::Resume(_)));
        call.answer(pending()).await;
        call.answer(Answer::Issued(cluster.issued(&application)))
            .await;
    });
    paired.unwrap();
    assert!(world.told("does not know of this device's proof yet"));
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_tried_once() {
    let mut world = World::new().await;
    let (_, _, mut device) = world.split();
    device.address = "127.0.0.1:1".to_owned();
    let paired = device.pair(CODE, None).await;
    assert!(
        matches!(paired, Err(Error::Unreachable { .. })),
        "{paired:?}"
    );
}

#[tokio::test]
async fn a_gateway_that_breaks_the_protocol_is_an_error_and_no_panic() {
    for answer in [
        Answer::Challenge(Challenge {
            ke2: b"garbage".to_vec(),
        }),
        Answer::Describe(Describe {}),
        pending(),
        Answer::Expired(Expired {}),
    ] {
        let mut world = World::new().await;
        let (gateway, _, device) = world.split();
        let (paired, ()) = tokio::join!(device.pair(CODE, None), async {
            let mut call = gateway.enrolment().await;
            call.next().await;
            call.answer(answer).await;
            assert!(call.is_over().await);
        });
        assert!(matches!(paired, Err(Error::Protocol(_))), "{paired:?}");
        assert_eq!(world.pairing(), None);
    }
}
