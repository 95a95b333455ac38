//! What a stranger's steps come to.

use gateway::{
    domain::register,
    enrollment::application::{self, Circumstances},
};
use pairing::{
    code::{Alphabet, PairingCode},
    exporter::Exporter,
    key::KeyFingerprint,
    opaque,
};
use proto::node::{self, enroll_request};
use rcgen::{KeyPair, PublicKeyData as _};

/// A stranger's part of an enrolment, in whatever order.
pub struct Stranger {
    pub pair: KeyPair,
    setup: opaque::Setup,
    exporter: Exporter,
    pub ke1: Vec<u8>,
}

impl Stranger {
    pub fn new() -> Self {
        let code = PairingCode::draw(Alphabet::Alphanumeric);
        let (_, ke1) = opaque::Claim::start(code).unwrap();
        Self {
            pair: KeyPair::generate().unwrap(),
            setup: opaque::Setup::generate(),
            exporter: Exporter::from_bytes([7; 32]),
            ke1,
        }
    }

    pub fn says(&self, step: enroll_request::Step) {
        let challenge =
            |code: &str, ke1: &[u8]| self.setup.challenge(None, code, ke1, &self.exporter);
        match step {
            enroll_request::Step::Begin(begin) => {
                let _ = challenge(&begin.code_id, &begin.ke1);
            }
            enroll_request::Step::Proof(proof) => {
                let (attempt, _) = challenge("ABCD", &self.ke1).unwrap();
                assert!(
                    attempt.verify(&proof.ke3).is_err(),
                    "nothing proves a code that is none"
                );
            }
            enroll_request::Step::Application(application) => self.applies(application),
            enroll_request::Step::Resume(node::Resume {}) => {}
        }
    }

    fn applies(&self, application: node::Application) {
        let around = Circumstances {
            key: KeyFingerprint::of_spki(&self.pair.subject_public_key_info()),
            code: "front-door",
            gateway: "gateway-a",
            remote_address: "127.0.0.1".to_owned(),
            expires_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let Ok(spec) = application::read(application, around) else {
            return;
        };
        assert!((1..=253).contains(&spec.requested_name.len()));
        assert!(spec.capabilities.len() <= register::MAX_CAPABILITIES);
        assert!(!spec.requested_name.chars().any(surface::is_deceptive));
    }
}
