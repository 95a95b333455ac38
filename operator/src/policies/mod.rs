//! Whether the admission policies are in force on which a signature rests.
//!
//! A certificate is signed because an object says so: a decision, a code, a Device. What that object is worth is the
//! policies' doing, so before the operator signs it makes them show that they refuse what they must, by dry runs
//! ([`probe`]) under an account ([`account`]) that has the rights by RBAC and must not get through.
//!
//! - [`plan`]: what the answers come to, and what was written before a policy was in force. Pure;
//! - [`verdicts`]: answers that need not be asked for again.

mod account;
pub mod plan;
mod probe;
mod verdicts;

use std::time::Duration;

use futures::{FutureExt as _, future::join_all};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::{
    ResourceExt as _,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::time::{Instant, timeout};

pub use self::{account::Account, probe::Probe};
use self::{
    plan::{Answer, Lack, Policy, Since, Standing, Why, shortened},
    verdicts::{Subject, Verdicts},
};
use crate::{
    metrics::Metrics,
    reconcile::{Error, api},
    watch::Guard,
};

/// How long a signature waits for the policies to be read for the first time.
const FIRST_READ: Duration = Duration::from_secs(5);

/// The policies, and how they are asked.
pub struct Policies {
    pub stored: Store<Guard<ValidatingAdmissionPolicy>>,
    pub bindings: Store<Guard<ValidatingAdmissionPolicyBinding>>,
    pub account: Account,
    pub metrics: Metrics,
    verdicts: Verdicts,
}

/// A policy as it is stored.
struct Form {
    since: jiff::Timestamp,
    /// Changes with it.
    version: String,
}

impl Policies {
    pub fn new(
        stored: Store<Guard<ValidatingAdmissionPolicy>>,
        bindings: Store<Guard<ValidatingAdmissionPolicyBinding>>,
        account: Account,
        metrics: Metrics,
    ) -> Self {
        Self {
            stored,
            bindings,
            account,
            metrics,
            verdicts: Verdicts::default(),
        }
    }

    /// Whether all of these policies are in force in the namespace now. Fails where the API server does not answer: then
    /// the caller tries again.
    pub async fn check(&self, namespace: &str, probes: &[Probe]) -> Result<Standing, Error> {
        if let Some(first) = probes.first()
            && !self.are_read().await
        {
            let why = "the operator has not read the policies: it needs list and watch on validatingadmissionpolicies and \
                       validatingadmissionpolicybindings";
            return Ok(self.lacking(Lack {
                policy: first.policy,
                why: Why::CannotTell(why.to_owned()),
            }));
        }
        let mut since = Since::default();
        let mut forms = Vec::new();
        for Probe { policy, .. } in probes {
            match self.form(*policy) {
                Ok(form) => {
                    since.0.insert(*policy, form.since);
                    forms.push(form);
                }
                Err(why) => {
                    let why = Why::NotEnforced(why);
                    return Ok(self.lacking(Lack {
                        policy: *policy,
                        why,
                    }));
                }
            }
        }
        let asked = probes
            .iter()
            .zip(&forms)
            .map(|(probe, form)| self.answer(namespace, probe, form));
        let mut lacks = Vec::new();
        for (probe, answer) in probes.iter().zip(join_all(asked).await) {
            lacks.extend(answer?.lack(probe.policy));
        }
        // What is established counts before what cannot be verified.
        lacks.sort_by_key(|lack| !lack.is_certain());
        Ok(match lacks.into_iter().next() {
            Some(lack) => Standing::Lacking(lack),
            None => Standing::InForce(since),
        })
    }

    async fn are_read(&self) -> bool {
        let read = async {
            let both = futures::join!(
                self.stored.wait_until_ready(),
                self.bindings.wait_until_ready()
            );
            both.0.is_ok() && both.1.is_ok()
        };
        timeout(FIRST_READ, read.boxed()).await.unwrap_or(false)
    }

    fn lacking(&self, lack: Lack) -> Standing {
        let result = if lack.is_certain() {
            "not_in_force"
        } else {
            "unverified"
        };
        self.metrics.policy_checked(lack.policy.name(), result);
        Standing::Lacking(lack)
    }

    /// The policy as it is stored, or why it refuses nothing.
    fn form(&self, policy: Policy) -> Result<Form, String> {
        let name = policy.name();
        let stored = self.stored.get(&ObjectRef::new(name));
        let stored = stored.as_ref().and_then(|stored| stored.0.as_ref().ok());
        let bindings = self.bindings.state();
        let bindings: Vec<_> = bindings
            .iter()
            .filter_map(|binding| binding.0.as_ref().ok())
            .collect();
        let all = || bindings.iter().copied();
        if let Some(why) = crds::policies::not_enforced(name, stored, all()) {
            return Err(why);
        }
        let stored = stored.ok_or_else(|| "it does not exist".to_owned())?;
        let mut versions: Vec<_> = crds::policies::of(name, all())
            .map(|binding| format!("{}={:?}", binding.name_any(), binding.resource_version()))
            .collect();
        versions.sort();
        Ok(Form {
            since: crds::policies::last_changed(name, stored, all()),
            version: format!("{:?} {}", stored.resource_version(), versions.join(" ")),
        })
    }

    async fn answer(&self, namespace: &str, probe: &Probe, form: &Form) -> Result<Answer, Error> {
        let subject = Subject {
            namespace: namespace.to_owned(),
            policy: probe.policy,
            labels: probe.labels,
        };
        if let Some(answer) = self.verdicts.get(&subject, &form.version, Instant::now()) {
            return Ok(answer);
        }
        let begun = Instant::now();
        let answer = self.ask(namespace, probe).await?;
        let result = match &answer {
            Answer::Refused => "in_force",
            Answer::NotRefused => "not_in_force",
            Answer::CannotTell(_) => "unverified",
        };
        self.metrics.policy_checked(probe.policy.name(), result);
        self.verdicts
            .keep(subject, &form.version, answer.clone(), begun);
        Ok(answer)
    }

    async fn ask(&self, namespace: &str, probe: &Probe) -> Result<Answer, Error> {
        let client = match self.account.client().await {
            Ok(client) => client,
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                let why = format!(
                    "the operator gets no token of ServiceAccount {}: {}",
                    crds::names::PROBE,
                    status.message
                );
                return Ok(Answer::CannotTell(shortened(&why)));
            }
            Err(error) => return Err(api("get a token for dry runs")(error)),
        };
        match probe.run(client, namespace).await {
            Ok(()) => Ok(Answer::NotRefused),
            Err(kube::Error::Api(status)) => {
                if status.code == 401 {
                    self.account.forget().await;
                }
                Answer::to_error(probe.policy, status.code, &status.message)
                    .ok_or_else(|| api("make a dry run")(kube::Error::Api(status)))
            }
            Err(error) => Err(api("make a dry run")(error)),
        }
    }
}
