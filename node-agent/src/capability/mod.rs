//! What this device can do. One file per capability that is built in; [`command`]: those that are declared;
//! [`desktop`]: those that open something on the screen; [`live`]: all of them, and when that changes; [`progress`]: how
//! far one has come; [`spool`]: where large outputs go; [`terms`]: what one takes and answers.

pub mod command;
pub mod desktop;
mod echo;
mod health;
mod identity;
pub mod live;
pub mod progress;
pub mod spool;
pub mod terms;

use std::{collections::BTreeMap, fmt, pin::Pin, sync::Arc, time::Duration};

use self::spool::Spool;
pub use identity::About;
use proto::node::{self, Availability, Execution, FailureCode};
use tokio_util::sync::CancellationToken;

use self::{progress::Reporter, terms::Terms};

/// A future that ends with a capability's output.
pub type Running = Pin<Box<dyn Future<Output = Result<Vec<u8>, Failure>> + Send>>;

/// Something that can be asked of this device.
pub trait Capability: Send + Sync {
    /// Dotted lower-case words, 63 bytes at most. Never changes.
    fn name(&self) -> &str;

    /// One line for people.
    #[expect(
        clippy::unnecessary_literal_bound,
        reason = "those that are declared have one of their own"
    )]
    fn description(&self) -> &str {
        ""
    }

    /// What it takes and answers.
    fn terms(&self) -> &Terms {
        &terms::NONE
    }

    /// Whether it takes `input`, which is JSON, as far as that can be told from the two alone: neither clock nor disk is
    /// looked at, and it is quick. Asked before a person is, and once more before it runs.
    ///
    /// # Errors
    /// `INVALID_INPUT`, with the place.
    fn takes(&self, input: &[u8]) -> Result<(), Failure> {
        self.terms().takes(input)
    }

    /// What a person is shown in the place of `input`, where that reads like something else than what will be done.
    fn understood(&self, _input: &[u8]) -> Option<String> {
        None
    }

    fn execution(&self) -> Execution {
        Execution::Automatic
    }

    fn availability(&self) -> Availability {
        Availability::Available
    }

    /// Runs of it at once, one at least.
    fn concurrency(&self) -> usize {
        usize::MAX
    }

    /// Does it. Anything that may block belongs in a blocking thread. Dropping the future stops it; what cannot be
    /// stopped so must heed [`Call::stopped`].
    fn run(&self, call: Call) -> Running;

    /// How long it may take to stop in good order after [`Call::stopped`], before its future is dropped. It has less where
    /// the invocation's deadline is nearer.
    fn grace(&self) -> Duration {
        Duration::ZERO
    }
}

/// Its name.
impl fmt::Debug for dyn Capability + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is known of a capability without running it.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    pub availability: Availability,
    /// Runs at once.
    pub concurrency: usize,
    /// A person is asked first.
    pub is_mediated: bool,
    /// Who says what it takes. `None`: it takes anything.
    pub capability: Option<&'a dyn Capability>,
}

impl Offer<'_> {
    /// See [`Capability::takes`].
    pub fn takes(&self, input: &[u8]) -> Result<(), Failure> {
        self.capability
            .map_or(Ok(()), |capability| capability.takes(input))
    }
}

/// One invocation, as a capability sees it.
#[derive(Clone, Debug)]
pub struct Call {
    /// JSON; `null` where there was none.
    pub input: Vec<u8>,
    /// Larger outputs are refused, or go to the spool.
    pub max_output_bytes: usize,
    /// Where a larger output may go. What is there when the capability ends well is its output, whatever it returns.
    pub spool: Option<Spool>,
    /// The user who asked. For people, never for a decision.
    pub requested_by: String,
    /// Cancelled when the invocation must stop.
    pub stopped: CancellationToken,
    /// Where it may say how far it has come.
    pub progress: Reporter,
}

/// Why a capability gave no output.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: FailureCode,
    /// For people, 512 characters at most.
    pub message: String,
}

impl Failure {
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Everything that this device can do, by name.
#[derive(Clone, Default)]
pub struct Registry {
    by_name: BTreeMap<String, Arc<dyn Capability>>,
}

/// Its names.
impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl Registry {
    /// What every agent can do.
    pub fn built_in(about: About) -> Self {
        let mut registry = Self::default();
        registry.add(Arc::new(echo::Echo));
        registry.add(Arc::new(health::SystemHealth::default()));
        registry.add(Arc::new(identity::SystemIdentity::new(about)));
        registry
    }

    /// Replaces a capability of the same name.
    pub fn add(&mut self, capability: Arc<dyn Capability>) {
        self.by_name
            .insert(capability.name().to_owned(), capability);
    }

    pub fn get(&self, name: &str) -> Option<Arc<dyn Capability>> {
        self.by_name.get(name).cloned()
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Capability>> {
        self.by_name.values()
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// What a gateway is told.
    pub fn declared(&self) -> Vec<node::Capability> {
        let capabilities = self.by_name.values();
        capabilities
            .map(|capability| terms::declared(capability.as_ref()))
            .collect()
    }

    /// What can be done now.
    pub fn surface(&self) -> BTreeMap<&str, Offer<'_>> {
        let capabilities = self.by_name.iter();
        capabilities
            .map(|(name, capability)| {
                let offer = Offer {
                    availability: capability.availability(),
                    concurrency: capability.concurrency(),
                    is_mediated: capability.execution() == Execution::Mediated,
                    capability: Some(capability.as_ref()),
                };
                (name.as_str(), offer)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn call(input: &str) -> Call {
        Call {
            input: input.as_bytes().to_vec(),
            max_output_bytes: 65_536,
            spool: None,
            requested_by: "jane".to_owned(),
            stopped: CancellationToken::new(),
            progress: Reporter::default(),
        }
    }

    #[tokio::test]
    async fn every_built_in_answers_json_under_a_name_that_fits() {
        let registry = Registry::built_in(About::default());
        let declared = registry.declared();
        assert_eq!(
            declared.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
            ["echo", "system.health", "system.identity"]
        );
        for capability in declared {
            assert!(capability.name.len() <= 63);
            let run = registry.get(&capability.name).unwrap().run(call("null"));
            let output = run.await.unwrap();
            serde_json::from_slice::<serde_json::Value>(&output).unwrap();
        }
    }
}
