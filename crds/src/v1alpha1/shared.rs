//! What more than one kind contains.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of program enrols.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum ClientKind {
    /// An agent that runs unattended: an edge box, a kiosk, a cluster node.
    #[default]
    Node,
    /// An agent in a person's desktop session.
    Desktop,
    /// A command-line program.
    Cli,
}

/// How a capability is started.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum Execution {
    /// At once.
    #[default]
    Automatic,
    /// After the person at the device allowed it.
    Mediated,
}

impl Execution {
    /// As resources spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Automatic => "Automatic",
            Self::Mediated => "Mediated",
        }
    }
}

/// Another object of the same namespace.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::schema::OBJECT_NAME))]
    pub name: String,
}

impl ObjectReference {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

/// What the device says about itself. Not verified by anybody.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    /// Operating system, for example `linux`.
    #[schemars(length(max = 64))]
    pub os: String,
    /// Processor architecture, for example `x86_64`.
    #[schemars(length(max = 64))]
    pub arch: String,
    /// Version of the agent.
    #[schemars(length(max = 64))]
    pub agent_version: String,
    /// Host name as the device knows it.
    #[schemars(length(max = 253))]
    pub hostname: String,
}

/// A capability that a device says it has.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeclaredCapability {
    /// Name of the capability, for example `system.health`.
    #[schemars(length(min = 1, max = 63), regex(pattern = crate::schema::CAPABILITY_NAME))]
    pub name: String,
    /// Whether it runs at once or after the person at the device allowed it.
    #[serde(default)]
    pub execution: Execution,
    /// The capability's own version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub version: Option<String>,
    /// What it does, in the device's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub description: Option<String>,
    /// What it takes: JSON Schema (draft 2020-12), as JSON text. Absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub input_schema: Option<String>,
    /// What it answers: JSON Schema (draft 2020-12), as JSON text. Absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub output_schema: Option<String>,
    /// What the device advises to give as `spec.timeoutSeconds` of an invocation, in seconds. Whoever makes one may follow
    /// it; what the invocation says counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub default_timeout_seconds: Option<i64>,
    /// The longest that it runs, in seconds: the device stops it then, whatever the invocation says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub max_timeout_seconds: Option<i64>,
    /// Runs of it at once. Absent: as many as the device runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: Option<i64>,
}

/// What a device may be given.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Grants {
    /// Labels that the Device gets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::labels")]
    pub labels: BTreeMap<String, String>,
    /// Capabilities that the device may run. Absent: those it declares. An empty list: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::capability_names")]
    pub capabilities: Option<Vec<String>>,
}
