//! The story of one call of `Enroll`.
//!
//! ```text
//! Begin  -> count an attempt -> Challenge -> Proof -> spend a use ─┐
//! Resume -> what did this key do last? ── Describe ────────────────┼─> Application -> make the request ─┐
//!                                      └─ its request is there ────┴────────────────────────────────────┴─> Pending -> the end
//! ```
//!
//! It may be dropped at any await: what was written by then is where the key goes on with Resume.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use crds::{PairingCode, names::PROOF_SECONDS};
use futures::StreamExt as _;
use pairing::{
    exporter::Exporter,
    key::KeyFingerprint,
    opaque::{self, Attempt, Setup},
};
use proto::node::{
    Application, Begin, Challenge, Describe, EnrollRequest, EnrollResponse, Proof,
    enroll_request::Step, enroll_response::Step as Answer,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tonic::{Code, Status, Streaming};

use super::{
    Context, answer,
    application::{self, Circumstances},
    codes::Counted,
    decide::{self, Place, Resumption},
    requests::Found,
};
use crate::{
    clock,
    metrics::Enrolment,
    status::{full, later},
    stay::{self, Stay},
    tries::Tries,
};

/// How long a step of the device may take once it has proved the code.
const STEP_TIME: Duration = Duration::from_secs(PROOF_SECONDS.unsigned_abs());
/// How long the operator may take past the end of a request before nobody waits for it any more.
const PATIENCE: Duration = Duration::from_mins(1);
/// No challenge leaves sooner than this after it was asked for. Counting an attempt takes a write, and a stranger must
/// not read from the time of the answer which codes exist.
const CHALLENGE_TIME: Duration = Duration::from_millis(100);
/// When those may come back whose request could not be found among so many.
const RETRY_SEARCH: Duration = Duration::from_mins(1);
/// Codes of one key whose requests are looked for one by one.
const MOST_NAMED: usize = 16;
/// When those may come back whose place another enrollee needed.
const RETRY_PLACE: Duration = Duration::from_secs(5);
/// How long an enrollee keeps its place after its challenge, whoever needs it: a small device stretches its code in less.
const PROOF_GRACE: Duration = Duration::from_secs(5);
/// When those may come back who found no place to wait.
const RETRY_WAITING: Duration = Duration::from_secs(30);

pub struct Exchange {
    pub context: Arc<Context>,
    pub remote: IpAddr,
    pub key: KeyFingerprint,
    pub exporter: Exporter,
    pub stay: Arc<Stay>,
    pub steps: Streaming<EnrollRequest>,
    pub answers: mpsc::Sender<EnrollResponse>,
}

/// How far the device had come.
enum Reached {
    /// It proved this code, and has to say what it asks for.
    Admitted(Place),
    /// It asked before.
    Requested(Place),
}

impl Exchange {
    /// Runs until the end is told, or the gateway stops.
    pub async fn run(mut self) -> Result<(), Status> {
        let stop = self.context.stop.clone();
        let stay = Arc::clone(&self.stay);
        tokio::select! {
            outcome = self.story() => outcome,
            () = stay.given_away() => {
                Err(full("another enrollee needed the place", RETRY_PLACE))
            }
            () = stop.cancelled() => {
                Err(later(Code::Unavailable, "this gateway stops: resume at another one", Duration::ZERO))
            }
        }
    }

    async fn story(&mut self) -> Result<(), Status> {
        let reached = match self.next().await? {
            Step::Begin(begin) => self.prove(begin).await?,
            Step::Resume(_) => self.resume().await?,
            Step::Proof(_) | Step::Application(_) => return Err(out_of_order()),
        };
        let request = match reached {
            Reached::Admitted(code) => self.apply(&code).await?,
            Reached::Requested(request) => request,
        };
        self.await_end(&request).await
    }

    async fn prove(&mut self, begin: Begin) -> Result<Reached, Status> {
        let Begin { code_id, ke1 } = begin;
        self.count_try(&self.context.tries).await?;
        // From here to the proof, within PROOF_GRACE: how often that may be is paced.
        let mut work = self.stay.work();
        let earliest = Instant::now() + CHALLENGE_TIME;
        let setup = self.setup()?;
        let counted = self.context.codes.count_attempt(&code_id).await?;
        let (attempt, ke2) = self.challenge(&setup, counted.as_ref(), &code_id, &ke1)?;
        sleep_until(earliest).await;
        self.answer(Answer::Challenge(Challenge { ke2 })).await?;
        self.context.metrics.enrolment(Enrolment::Challenged);

        let step = match timeout(PROOF_GRACE, self.next()).await {
            Ok(step) => step,
            Err(_) => {
                drop(work);
                let step = self.next().await;
                work = self.stay.work();
                step
            }
        };
        let Step::Proof(Proof { ke3 }) = step? else {
            return Err(out_of_order());
        };
        let verified = attempt.verify(&ke3);
        // No proof passes a challenge that was made up; that there was a code is asked all the same.
        let (Ok(()), Some(Counted { code: place, .. })) = (verified, counted) else {
            return Err(self.not_proved());
        };
        let key = self.key.to_string();
        let Some(code) = self.context.codes.admit(&place, &key).await? else {
            return Err(self.not_proved());
        };
        self.context.metrics.enrolment(Enrolment::Proved);
        tracing::info!(code = place.name, namespace = place.namespace, %key, remote = %self.remote, "A code was proved");
        self.wait_for(STEP_TIME)?;
        drop(work);
        Ok(reached(place, &code, &key))
    }

    /// Without a code that can be used, the challenge is one that nothing satisfies.
    fn challenge(
        &self,
        setup: &Setup,
        counted: Option<&Counted>,
        code_id: &str,
        ke1: &[u8],
    ) -> Result<(Attempt, Vec<u8>), Status> {
        let challenge = |file: Option<&[u8]>| setup.challenge(file, code_id, ke1, &self.exporter);
        let made = match challenge(counted.map(|counted| counted.password_file.as_slice())) {
            Err(opaque::Error::Stored) => {
                tracing::error!(code = ?counted.map(|counted| &counted.code), "The code's password file is damaged");
                challenge(None)
            }
            made => made,
        };
        made.map_err(|_| Status::invalid_argument("ke1 is no OPAQUE message"))
    }

    async fn resume(&mut self) -> Result<Reached, Status> {
        self.count_try(&self.context.resumes).await?;
        let _work = self.stay.work();
        let key = self.key.to_string();
        let codes = self.context.codes.that_admitted(&key).await?;
        let found = self.requests(&key, &codes).await?;
        let reached = match decide::resumption(&key, &codes, &found.requests) {
            Resumption::Unknown if found.is_partial => {
                return Err(later(
                    Code::Unavailable,
                    "there are too many pairing requests for this key: ask who manages them to delete some",
                    RETRY_SEARCH,
                ));
            }
            Resumption::Unknown => {
                return Err(Status::not_found(
                    "this key never proved a code: pair with a code",
                ));
            }
            Resumption::Wait { request } => Reached::Requested(request),
            Resumption::Link { code, request } => {
                Reached::Requested(self.link(&code, request).await?)
            }
            Resumption::Describe { code } => {
                self.wait_for(STEP_TIME)?;
                self.answer(Answer::Describe(Describe {})).await?;
                Reached::Admitted(code)
            }
        };
        self.context.metrics.enrolment(Enrolment::Resumed);
        Ok(reached)
    }

    /// What gateways made for the key. Anybody who may make requests somewhere can make so many for any key that a search
    /// ends before it comes to ours: those that matter to a code are looked for where the code is.
    async fn requests(&self, key: &str, codes: &[PairingCode]) -> Result<Found, Status> {
        let requests = &self.context.requests;
        let mut named = Vec::new();
        for place in codes
            .iter()
            .filter_map(|code| decide::named_request(code, key))
            .take(MOST_NAMED)
        {
            named.extend(requests.get(&place).await?);
        }
        let mut found = requests.of_key(key, None).await?;
        if found.is_partial {
            let unnamed = codes
                .iter()
                .filter(|code| decide::named_request(code, key).is_none());
            for code in unnamed.take(MOST_NAMED) {
                let here = requests
                    .of_key(key, Some(&Place::of(code).namespace))
                    .await?;
                found.requests.extend(here.requests);
            }
        }
        found.requests.extend(named);
        Ok(found)
    }

    /// Makes the request of a key that proved `code`.
    async fn apply(&mut self, code: &Place) -> Result<Place, Status> {
        let application = timeout(STEP_TIME, self.next()).await.map_err(|_| {
            Status::deadline_exceeded("no application came: resume with this key")
        })??;
        let Step::Application(application) = application else {
            return Err(out_of_order());
        };
        let spec = self.spec(application, code)?;
        let request = self.context.requests.create(&code.namespace, spec).await?;
        self.context.metrics.enrolment(Enrolment::Requested);
        let request = self.link(code, request).await?;
        tracing::info!(
            request = request.name, namespace = request.namespace, key = %self.key, remote = %self.remote,
            "A device asks to be paired"
        );
        Ok(request)
    }

    fn spec(
        &self,
        application: Application,
        code: &Place,
    ) -> Result<crds::v1alpha1::PairingRequestSpec, Status> {
        let settings = &self.context.settings;
        let around = Circumstances {
            key: self.key,
            code: &code.name,
            gateway: &settings.gateway,
            remote_address: self.remote.to_canonical().to_string(),
            expires_at: clock::now() + settings.request_time,
        };
        application::read(application, around)
            .map_err(|invalid| Status::invalid_argument(invalid.to_string()))
    }

    /// Returns the request that counts.
    async fn link(&self, code: &Place, request: Place) -> Result<Place, Status> {
        let counts = self
            .context
            .codes
            .link(code, &self.key.to_string(), &request.name)
            .await?;
        Ok(Place {
            name: counts.unwrap_or(request.name),
            ..request
        })
    }

    /// Tells what becomes of the request.
    async fn await_end(&mut self, place: &Place) -> Result<(), Status> {
        let mut states = pin!(self.context.requests.watch(place));
        let mut told = false;
        while let Some(request) = states.next().await {
            let Some(request) = request else {
                return Err(Status::not_found(
                    "the pairing request was deleted: pair with a new code",
                ));
            };
            let now = clock::now();
            if !told {
                self.wait_for(Duration::from_secs(answer::seconds_left(&request, now)) + PATIENCE)?;
                self.answer(Answer::Pending(answer::pending(&request, now)))
                    .await?;
                told = true;
            }
            if let Some(end) = answer::end(&request, &self.context.settings.gateways, now) {
                self.context.metrics.enrolment(step_of(&end));
                return self.answer(end).await;
            }
        }
        Err(later(
            Code::Unavailable,
            "the watch of the request ended: resume",
            Duration::ZERO,
        ))
    }

    async fn count_try(&self, tries: &Tries) -> Result<(), Status> {
        tries.take(self.remote.into()).await.map_err(|wait| {
            self.context.metrics.enrolment(Enrolment::Limited);
            full("too many tries", wait)
        })
    }

    /// From now on this connection is no stranger's.
    fn wait_for(&self, time: Duration) -> Result<(), Status> {
        self.stay.wait(Instant::now() + time).map_err(|stay::Full| {
            full(
                "too many wait for a decision: resume with this key",
                RETRY_WAITING,
            )
        })
    }

    fn setup(&self) -> Result<Arc<Setup>, Status> {
        let setup = self.context.setup.borrow().clone();
        setup.ok_or_else(|| {
            later(
                Code::Unavailable,
                "this gateway is not ready to pair",
                Duration::from_secs(2),
            )
        })
    }

    /// The one answer to wrong, unknown, used, expired and locked.
    fn not_proved(&self) -> Status {
        self.context.metrics.enrolment(Enrolment::NotProved);
        tracing::info!(key = %self.key, remote = %self.remote, "A code was not proved");
        Status::permission_denied("the pairing code was not proved")
    }

    async fn next(&mut self) -> Result<Step, Status> {
        self.steps
            .message()
            .await?
            .and_then(|request| request.step)
            .ok_or_else(out_of_order)
    }

    async fn answer(&self, step: Answer) -> Result<(), Status> {
        let response = EnrollResponse { step: Some(step) };
        self.answers
            .send(response)
            .await
            .map_err(|_| Status::cancelled("the device hung up"))
    }
}

/// A key that proved the code once more goes on where it was.
fn reached(place: Place, code: &PairingCode, key: &str) -> Reached {
    decide::named_request(code, key).map_or(Reached::Admitted(place), Reached::Requested)
}

fn out_of_order() -> Status {
    Status::invalid_argument("not the step that comes next")
}

fn step_of(end: &Answer) -> Enrolment {
    match end {
        Answer::Issued(_) => Enrolment::Issued,
        Answer::Denied(_) => Enrolment::Denied,
        Answer::Expired(_) => Enrolment::Expired,
        Answer::Failed(_) | Answer::Challenge(_) | Answer::Describe(_) | Answer::Pending(_) => {
            Enrolment::Failed
        }
    }
}
