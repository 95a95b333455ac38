//! `invoke`: runs a capability, tells on standard error how it goes, and ends as it ends.
//!
//! - [`input`]: what the capability is given;
//! - [`check`]: what is wrong before anything is made;
//! - [`mod@follow`]: until the end, and Ctrl-C;
//! - [`outcome`]: what is shown of the end;
//! - [`several`]: the same for several devices at once, each in a line.

mod check;
pub mod follow;
mod input;
mod outcome;
mod several;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::error::ErrorKind;
use crds::{
    CapabilityInvocation,
    v1alpha1::{CapabilityInvocationSpec, ObjectReference, capability_invocation::WhenOffline},
};
use kube::{Api, ResourceExt as _, api::ObjectMeta};
use serde_json::Value;
use tokio::time::timeout;

use self::follow::{Followed, follow};
use super::artifact::Console;
use crate::{
    args::usage,
    cluster::{Cluster, posting, told},
    commands::fleet::{self, FleetArgs, Seen, Target},
    exit::Exit,
    show::{Format, Many, Shown, note, out},
    terminal::{Interrupts, Presses},
};

/// How long the API server may take to make an invocation.
const MAKE: Duration = Duration::from_secs(30);
/// The cluster writes an end by itself so long after the deadline, where nobody else does.
const AFTER_DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, clap::Args)]
#[command(
    override_usage = "kubectl fairlead invoke [OPTIONS] DEVICE[,DEVICE…] CAPABILITY\n       \
                            kubectl fairlead invoke [OPTIONS] -l SELECTOR CAPABILITY"
)]
pub struct Invoke {
    /// Name of the device, or of several with commas between them; then name of the capability.
    #[arg(required = true, num_args = 1..=2, value_names = ["DEVICE", "CAPABILITY"])]
    words: Vec<String>,
    #[command(flatten)]
    fleet: FleetArgs,
    /// What the capability is given, as JSON; `-` reads it from standard input.
    #[arg(long, value_name = "JSON", conflicts_with = "file")]
    input: Option<String>,
    /// The same, out of a file; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Wait for the end.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    wait: bool,
    /// How long it may take, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(1..=3600))]
    timeout: i64,
    /// Where the device is not there, wait for it for so long, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(1..=604_800))]
    queue: Option<i64>,
    /// Two invocations with the same key are done once.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Where `-o raw` finds an output that is too large for a resource.
    #[command(flatten)]
    console: Console,
}

/// What is asked of each device.
struct Request {
    capability: String,
    input: Option<Value>,
    user: String,
}

impl Invoke {
    pub async fn run(self, cluster: &Cluster, shown: Shown) -> anyhow::Result<Exit> {
        let (target, capability) = self.target()?;
        if shown.format == Some(Format::Raw) && !matches!(target, Target::One(_)) {
            let words = "-o raw is for one device: use -o json for several";
            return Err(usage(ErrorKind::ArgumentConflict, words).into());
        }
        let input = input::read(self.input.as_deref(), self.file.as_deref())?;
        let one = matches!(target, Target::One(_));
        let members = fleet::find(cluster, target, self.fleet.parallel()).await?;
        let request = Request {
            capability,
            input,
            user: cluster.user().await?,
        };
        // From before anything is made: what is pressed meanwhile cancels it, too.
        let interrupts = Interrupts::listen()?;
        interrupts
            .counted(
                "cancelling; Ctrl-C again leaves it alone",
                async |presses| match members.as_slice() {
                    [member] if one => self.one(cluster, &request, member, presses, shown).await,
                    members => {
                        self.several(cluster, &request, members, presses, shown)
                            .await
                    }
                },
            )
            .await
    }

    /// What was typed, as devices and a capability.
    fn target(&self) -> Result<(Target, String), clap::Error> {
        match self.fleet.split(&self.words)? {
            (target, [capability]) => Ok((target, capability.clone())),
            (_, []) => Err(usage(
                ErrorKind::MissingRequiredArgument,
                "give the name of the CAPABILITY",
            )),
            (_, [_, unexpected, ..]) => {
                let words =
                    format!("unexpected argument {unexpected}: with -l, give CAPABILITY alone");
                Err(usage(ErrorKind::UnknownArgument, words))
            }
        }
    }

    async fn one(
        &self,
        cluster: &Cluster,
        request: &Request,
        member: &fleet::Member,
        presses: Presses,
        shown: Shown,
    ) -> anyhow::Result<Exit> {
        let made = self.make(cluster, request, member).await?;
        let name = made.name_any();
        note(&format!("{name} is made"));
        if !self.wait {
            match shown.for_programs(std::slice::from_ref(&made), Many::One)? {
                Some(text) => out(&text)?,
                None => out(&format!("capabilityinvocation.fairlead.dev/{name}\n"))?,
            }
            return Ok(Exit::Done);
        }
        match follow(cluster, &name, self.patience(), presses, note).await? {
            Followed::Ended(ended) => outcome::show(cluster, &self.console, &ended, shown).await,
            Followed::Open => {
                note(&format!("{name} goes on: kubectl get inv {name}"));
                Ok(Exit::StillOpen)
            }
            Followed::Left => Ok(Exit::Interrupted),
        }
    }

    /// Makes the invocation of a device, where nothing is known to be wrong with it.
    async fn make(
        &self,
        cluster: &Cluster,
        request: &Request,
        member: &fleet::Member,
    ) -> anyhow::Result<CapabilityInvocation> {
        let waits = self.queue.is_some();
        let wrong = match &member.device {
            Seen::Device(device) => check::not_declared(device, &request.capability, waits),
            // To invoke takes no right to read the device: the cluster decides.
            Seen::Forbidden(_) => None,
            Seen::Wrong(why) => Some(why.clone()),
        };
        if let Some(wrong) = wrong {
            anyhow::bail!("{wrong}");
        }
        let invocations: Api<CapabilityInvocation> = cluster.api();
        let object = self.object(&member.name, request);
        timeout(MAKE, invocations.create(&posting(), &object))
            .await
            .context("the API server has not answered, and it may have been made: kubectl get inv")?
            .map_err(told)
            .with_context(|| format!("run {} on {}", request.capability, member.name))
    }

    /// How long its end is waited for.
    fn patience(&self) -> Duration {
        let seconds = self.timeout + self.queue.unwrap_or(0);
        Duration::from_secs(seconds.unsigned_abs()) + AFTER_DEADLINE
    }

    fn object(&self, device: &str, request: &Request) -> CapabilityInvocation {
        let mut spec: CapabilityInvocationSpec = CapabilityInvocationSpec {
            device_ref: ObjectReference::new(device),
            capability: request.capability.clone(),
            input: request.input.clone(),
            timeout_seconds: self.timeout,
            idempotency_key: self.key.clone(),
            max_output_bytes: 65536,
            ttl_seconds_after_finished: 3600,
            // The API server stamps it, or demands that it is true.
            requested_by: Some(request.user.clone()),
            ..CapabilityInvocationSpec::default()
        };
        if let Some(seconds) = self.queue {
            spec.when_offline = WhenOffline::Queue;
            spec.queue_seconds = Some(seconds);
        }
        CapabilityInvocation {
            metadata: ObjectMeta {
                generate_name: Some("inv-".to_owned()),
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;
    use crate::args::{Args, Command};

    fn parsed(line: &str) -> Invoke {
        let args = Args::try_parse_from(line.split(' ')).unwrap();
        let Command::Invoke(invoke) = args.command else {
            panic!("it is invoke")
        };
        invoke
    }

    fn object(invoke: &Invoke) -> CapabilityInvocation {
        let (target, capability) = invoke.target().unwrap();
        let Target::One(device) = target else {
            panic!("it is one")
        };
        let request = Request {
            capability,
            input: input::read(invoke.input.as_deref(), None).unwrap(),
            user: "ada".to_owned(),
        };
        invoke.object(&device, &request)
    }

    #[test]
    fn what_is_typed_is_what_is_asked_for() {
        let invoke = parsed(
            "k invoke lamp disk.clean --input {\"a\":1} --timeout 5 --queue 60 --key k1 --wait=false",
        );
        let object = object(&invoke);
        assert_eq!(object.spec.device_ref.name, "lamp");
        assert_eq!(object.spec.capability, "disk.clean");
        assert_eq!(object.spec.input, Some(json!({"a": 1})));
        assert_eq!(object.spec.timeout_seconds, 5);
        assert_eq!(
            (object.spec.when_offline, object.spec.queue_seconds),
            (WhenOffline::Queue, Some(60))
        );
        assert_eq!(object.spec.requested_by.as_deref(), Some("ada"));
        assert!(!invoke.wait);
        assert!(parsed("k invoke lamp x").wait);
        assert!(parsed("k invoke lamp x --wait").wait);
    }

    #[test]
    fn what_is_not_said_is_what_the_resource_has_by_itself() {
        let object = object(&parsed("k invoke lamp x"));
        let defaults: CapabilityInvocationSpec = serde_json::from_value(json!({
            "deviceRef": {"name": "lamp"}, "capability": "x", "requestedBy": "ada",
        }))
        .unwrap();
        assert_eq!(object.spec, defaults);
    }

    #[test]
    fn with_a_selector_the_one_word_is_the_capability() {
        let (target, capability) = parsed("k invoke -l site=harbour x").target().unwrap();
        assert_eq!(target, Target::Labelled("site=harbour".to_owned()));
        assert_eq!(capability, "x");
        assert!(parsed("k invoke -l site=harbour lamp x").target().is_err());
        assert!(parsed("k invoke lamp").target().is_err());
    }
}
