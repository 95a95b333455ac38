//! Permissions, and what Kubernetes is asked for each.

use console_api::problem::PolicyRule;
use crds::names::{GROUP, code_secret};

/// What a route takes. A name for people and programs; what it means in Kubernetes is [`Permission::reviews`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Permission {
    ObservabilityRead,
    EventsRead,
    PairingRead,
    PairingDecide,
    CodesRead,
    PairingIssue,
    PairingRevoke,
    PairingReveal,
    TrustOperate,
    DeviceDelete,
    InvocationRead,
    CapabilityInvoke,
    InvocationCancel,
    AccessRead,
}

/// What a request is about, as far as it says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Target {
    /// Absent: all namespaces.
    pub namespace: Option<String>,
    /// Absent: all objects.
    pub name: Option<String>,
    /// Absent: all capabilities.
    pub capability: Option<String>,
}

/// One question to the API server's authorizer.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Review {
    pub group: &'static str,
    pub resource: &'static str,
    pub subresource: Option<&'static str>,
    pub verb: &'static str,
    /// Absent: all objects.
    pub name: Option<String>,
    /// Absent: all namespaces.
    pub namespace: Option<String>,
}

const CODES: &str = "pairingcodes";
const REQUESTS: &str = "pairingrequests";
const DEVICES: &str = "devices";
const CAPABILITIES: &str = "capabilities";
const INVOCATIONS: &str = "capabilityinvocations";

impl Permission {
    /// Every permission, in the order in which people are shown them.
    pub const ALL: [Self; 14] = [
        Self::ObservabilityRead,
        Self::EventsRead,
        Self::PairingRead,
        Self::PairingDecide,
        Self::CodesRead,
        Self::PairingIssue,
        Self::PairingRevoke,
        Self::PairingReveal,
        Self::TrustOperate,
        Self::DeviceDelete,
        Self::InvocationRead,
        Self::CapabilityInvoke,
        Self::InvocationCancel,
        Self::AccessRead,
    ];

    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ObservabilityRead => "observability.read",
            Self::EventsRead => "events.read",
            Self::PairingRead => "pairing.read",
            Self::PairingDecide => "pairing.decide",
            Self::CodesRead => "pairing.codes",
            Self::PairingIssue => "pairing.issue",
            Self::PairingRevoke => "pairing.revoke",
            Self::PairingReveal => "pairing.reveal",
            Self::TrustOperate => "trust.operate",
            Self::DeviceDelete => "device.delete",
            Self::InvocationRead => "invocation.read",
            Self::CapabilityInvoke => "capability.invoke",
            Self::InvocationCancel => "invocation.cancel",
            Self::AccessRead => "access.read",
        }
    }

    /// What it lets one do, for people.
    pub fn describes(self) -> &'static str {
        match self {
            Self::ObservabilityRead => "see devices, and what runs Fairlead",
            Self::EventsRead => "see the Kubernetes events of a device",
            Self::PairingRead => "see pairing requests",
            Self::PairingDecide => "approve and deny pairing requests",
            Self::CodesRead => "see pairing codes, without their secrets",
            Self::PairingIssue => "make pairing codes",
            Self::PairingRevoke => "take pairing codes back",
            Self::PairingReveal => "see the secret of a pairing code",
            Self::TrustOperate => {
                "suspend, resume, revoke, rename devices, and grant capabilities to them"
            }
            Self::DeviceDelete => "delete devices",
            Self::InvocationRead => "see invocations and download what they put out",
            Self::CapabilityInvoke => "run a capability on a device",
            Self::InvocationCancel => "ask for an invocation to be stopped",
            Self::AccessRead => "ask what one may do",
        }
    }

    /// What Kubernetes is asked. All must be allowed. With a name in the target it is asked for that object, so that a
    /// right to some objects by name is a right here, too.
    pub fn reviews(self, target: &Target) -> Vec<Review> {
        let on = |group, resource, subresource, verb, name: &Option<String>| Review {
            group,
            resource,
            subresource,
            verb,
            name: name.clone(),
            namespace: target.namespace.clone(),
        };
        let ours = |resource, verb| on(GROUP, resource, None, verb, &target.name);
        let read = |resource| {
            let verb = if target.name.is_some() { "get" } else { "list" };
            ours(resource, verb)
        };
        // What is made has no name that a rule could hold.
        let create = |resource| on(GROUP, resource, None, "create", &None);
        match self {
            Self::ObservabilityRead => vec![read(DEVICES)],
            Self::EventsRead => vec![on("events.k8s.io", "events", None, "list", &None)],
            Self::PairingRead => vec![read(REQUESTS)],
            Self::PairingDecide => vec![
                // What is decided on is looked at first.
                ours(REQUESTS, "get"),
                ours(REQUESTS, "approve"),
                on(GROUP, REQUESTS, Some("status"), "patch", &target.name),
            ],
            Self::CodesRead => vec![read(CODES)],
            Self::PairingIssue => vec![create(CODES)],
            Self::PairingRevoke => vec![ours(CODES, "delete")],
            Self::PairingReveal => {
                let secret = target.name.as_deref().map(code_secret);
                vec![on("", "secrets", None, "get", &secret)]
            }
            Self::TrustOperate => vec![ours(DEVICES, "patch")],
            Self::DeviceDelete => vec![ours(DEVICES, "delete")],
            Self::InvocationRead => vec![read(INVOCATIONS)],
            Self::CapabilityInvoke => vec![
                create(INVOCATIONS),
                ours(DEVICES, "invoke"),
                on(GROUP, CAPABILITIES, None, "invoke", &target.capability),
            ],
            Self::InvocationCancel => vec![ours(INVOCATIONS, "patch")],
            Self::AccessRead => vec![Review {
                group: "authorization.k8s.io",
                resource: "selfsubjectaccessreviews",
                subresource: None,
                verb: "create",
                name: None,
                namespace: None,
            }],
        }
    }
}

impl Review {
    /// The resource as rules name it.
    pub fn resource_path(&self) -> String {
        match self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.to_owned(),
        }
    }

    /// The rule of a Role that would allow it.
    pub fn rule(&self) -> PolicyRule {
        PolicyRule {
            api_groups: vec![self.group.to_owned()],
            resources: vec![self.resource_path()],
            resource_names: self.name.iter().cloned().collect(),
            verbs: vec![self.verb.to_owned()],
            namespace: self.namespace.clone(),
        }
    }
}
