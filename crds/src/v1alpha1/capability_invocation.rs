//! `CapabilityInvocation`: run one capability on one device, once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ObjectReference;

/// Run one capability on one device, once. Nothing but `cancel` can be changed.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "fairlead.dev",
    version = "v1alpha1",
    kind = "CapabilityInvocation",
    plural = "capabilityinvocations",
    doc = "Runs one capability on one device, once. To run it again, make another one.",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    status = "CapabilityInvocationStatus",
    shortname = "inv",
    category = "fairlead",
    selectable = ".spec.deviceRef.name",
    selectable = ".spec.capability",
    selectable = ".status.phase",
    printcolumn(name = "Device", type_ = "string", json_path = ".spec.deviceRef.name"),
    printcolumn(name = "Capability", type_ = "string", json_path = ".spec.capability"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "integer", json_path = ".status.progress.percent"),
    printcolumn(name = "Error", type_ = "string", json_path = ".status.error.code"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.requestedBy", priority = 1),
    printcolumn(name = "Gateway", type_ = "string", json_path = ".status.gateway", priority = 1),
    printcolumn(name = "Finished", type_ = "date", json_path = ".status.finishedAt", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(oldSelf.status) || !(oldSelf.status.phase in ['Succeeded', 'Failed', 'Refused', 'TimedOut', 'Cancelled', 'Unknown']) || (has(self.status) && self.status.phase == oldSelf.status.phase)").message("an invocation that has ended stays as it ended: make another one").field_path(".status.phase"),
    validation = Rule::new("!has(oldSelf.status) || !(oldSelf.status.phase in ['Dispatched', 'AwaitingMediation']) || (has(self.status) && self.status.phase != 'Queued')").message("an invocation that was dispatched cannot be queued again").field_path(".status.phase")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.deviceRef == oldSelf.deviceRef").message("an invocation cannot be changed, only cancelled: make another one").field_path(".deviceRef"))]
#[x_kube(validation = Rule::new("self.capability == oldSelf.capability").message("an invocation cannot be changed, only cancelled: make another one").field_path(".capability"))]
#[x_kube(validation = Rule::new("self.timeoutSeconds == oldSelf.timeoutSeconds").message("an invocation cannot be changed, only cancelled: make another one").field_path(".timeoutSeconds"))]
#[x_kube(validation = Rule::new("self.whenOffline == oldSelf.whenOffline").message("an invocation cannot be changed, only cancelled: make another one").field_path(".whenOffline"))]
#[x_kube(validation = Rule::new("self.maxOutputBytes == oldSelf.maxOutputBytes").message("an invocation cannot be changed, only cancelled: make another one").field_path(".maxOutputBytes"))]
#[x_kube(validation = Rule::new("self.ttlSecondsAfterFinished == oldSelf.ttlSecondsAfterFinished").message("an invocation cannot be changed, only cancelled: make another one").field_path(".ttlSecondsAfterFinished"))]
#[x_kube(validation = Rule::new("has(self.queueSeconds) == has(oldSelf.queueSeconds) && (!has(self.queueSeconds) || self.queueSeconds == oldSelf.queueSeconds)").message("an invocation cannot be changed, only cancelled: make another one").field_path(".queueSeconds"))]
#[x_kube(validation = Rule::new("has(self.idempotencyKey) == has(oldSelf.idempotencyKey) && (!has(self.idempotencyKey) || self.idempotencyKey == oldSelf.idempotencyKey)").message("an invocation cannot be changed, only cancelled: make another one").field_path(".idempotencyKey"))]
#[x_kube(validation = Rule::new("has(self.requestedBy) == has(oldSelf.requestedBy) && (!has(self.requestedBy) || self.requestedBy == oldSelf.requestedBy)").message("who asked for an invocation cannot be changed").field_path(".requestedBy"))]
#[x_kube(validation = Rule::new("!has(oldSelf.cancel) || has(self.cancel)").message("a cancellation cannot be taken back").field_path(".cancel"))]
#[x_kube(validation = Rule::new("self.whenOffline == 'Queue' || !has(self.queueSeconds)").message("queueSeconds needs whenOffline: Queue").field_path(".queueSeconds"))]
pub struct CapabilityInvocationSpec {
    /// The device that runs it.
    pub device_ref: ObjectReference,
    /// Name of the capability. It must be granted to the device.
    #[schemars(length(min = 1, max = 63), regex(pattern = crate::schema::CAPABILITY_NAME))]
    pub capability: String,
    /// What the capability is given: any JSON, 32 KiB at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::any_json")]
    pub input: Option<Value>,
    /// How long the whole may take, in seconds from the creation of this object (with `whenOffline: Queue`, after the
    /// wait). Past it nothing is started.
    #[serde(default = "default_timeout_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: i64,
    /// What happens when the device is not there.
    #[serde(default)]
    pub when_offline: WhenOffline,
    /// With `whenOffline: Queue`, how long it waits for the device, in seconds. An hour where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub queue_seconds: Option<i64>,
    /// Two invocations of one device with the same key are one: the second gets the first one's result, and
    /// `status.duplicateOf` names the first. The device remembers for as long as it remembers the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub idempotency_key: Option<String>,
    /// Most bytes of output that are kept here. What is larger becomes `status.artefact`, where the gateways have a
    /// store for it.
    #[serde(default = "default_max_output_bytes")]
    #[schemars(range(min = 0, max = 262_144))]
    pub max_output_bytes: i64,
    /// How long this object is kept after the end, in seconds.
    #[serde(default = "default_ttl_seconds_after_finished")]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub ttl_seconds_after_finished: i64,
    /// Who asked: the user name that the API server authenticated. Stamped, or must be true where
    /// MutatingAdmissionPolicy is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub requested_by: Option<String>,
    /// Set to stop it, before or while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Cancel>,
}

/// What happens when the device is not there.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum WhenOffline {
    /// The invocation fails at once.
    #[default]
    Fail,
    /// The invocation waits for the device.
    Queue,
}

/// A wish to stop.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum Cancel {
    Requested,
}

impl CapabilityInvocationSpec {
    /// Bytes of the input, as JSON without white space: what [`MAX_INPUT_BYTES`](crate::names::MAX_INPUT_BYTES) bounds.
    pub fn input_bytes(&self) -> usize {
        struct Count(usize);

        impl std::io::Write for Count {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0 += bytes.len();
                Ok(bytes.len())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        let mut count = Count(0);
        if let Some(input) = &self.input {
            // A JSON value can be written, and the counter takes all of it.
            let _ = serde_json::to_writer(&mut count, input);
        }
        count.0
    }
}

fn default_timeout_seconds() -> i64 {
    30
}

fn default_max_output_bytes() -> i64 {
    65536
}

fn default_ttl_seconds_after_finished() -> i64 {
    3600
}

/// What became of an invocation.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CapabilityInvocationStatus {
    /// Where it is in its life.
    #[serde(default)]
    pub phase: InvocationPhase,
    /// When it was sent to the device. Absent where the end came so soon that only the end was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub dispatched_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub finished_at: Option<Time>,
    /// The gateway that wrote this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub gateway: Option<String>,
    /// What the capability answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::any_json")]
    pub output: Option<Value>,
    /// SHA-256 of the output as the device sent it, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = crate::schema::SHA256_HEX))]
    pub output_sha256: Option<String>,
    /// The output in the gateways' store, where it is larger than `maxOutputBytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artefact: Option<Artefact>,
    /// Why it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<InvocationError>,
    /// What the person at the device decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mediation: Option<Mediation>,
    /// How far it has come, where the capability says. Written every five seconds at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The invocation with the same `idempotencyKey` that ran instead of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub duplicate_of: Option<String>,
    /// The `metadata.generation` that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = crate::schema::MAX_WHOLE))]
    pub observed_generation: Option<i64>,
    /// `Ready`: whether it succeeded. `Finished`: it has ended, whatever its end; absent until then. `AnsweredLate`: what the device said after the end was written; the phase stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Where an invocation is in its life.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum InvocationPhase {
    /// Not known to have reached the device.
    #[default]
    Queued,
    /// Sent to the device.
    Dispatched,
    /// The person at the device is being asked.
    AwaitingMediation,
    /// The capability ran and answered.
    Succeeded,
    /// It did not run, or it ran and failed; `error` says which.
    Failed,
    /// The person at the device, or its rules, said no.
    Refused,
    /// It was not done in time, and the device said so.
    TimedOut,
    /// It was stopped because somebody asked for it.
    Cancelled,
    /// It may have run: nobody can know. `error` says why.
    Unknown,
}

impl InvocationPhase {
    /// Every phase from which none follows.
    pub const TERMINAL: [Self; 6] = [
        Self::Succeeded,
        Self::Failed,
        Self::Refused,
        Self::TimedOut,
        Self::Cancelled,
        Self::Unknown,
    ];

    /// Whether nothing more will happen.
    pub fn is_terminal(self) -> bool {
        Self::TERMINAL.contains(&self)
    }

    /// The phase as the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Dispatched => "Dispatched",
            Self::AwaitingMediation => "AwaitingMediation",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Refused => "Refused",
            Self::TimedOut => "TimedOut",
            Self::Cancelled => "Cancelled",
            Self::Unknown => "Unknown",
        }
    }
}

/// Why an invocation did not succeed.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InvocationError {
    /// Why, in one word for programs.
    pub code: ErrorCode,
    /// Why, in words for people.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Every reason for which an invocation does not succeed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_codes)]
pub enum ErrorCode {
    /// There is no such Device in the namespace.
    DeviceNotFound,
    /// The Device is suspended, revoked, or its certificate has expired.
    DeviceNotTrusted,
    /// The device is not there and `whenOffline` is Fail, or it did not come while the invocation waited.
    DeviceOffline,
    /// The device does not declare the capability.
    CapabilityNotDeclared,
    /// The capability is not granted to the device.
    CapabilityNotGranted,
    /// The device declares the capability but cannot run it now.
    CapabilityUnavailable,
    /// The input is larger than 32 KiB.
    InputTooLarge,
    /// The capability does not accept the input, or the input is nested too deeply, or it takes too long to be checked.
    InvalidInput,
    /// The output is larger than `maxOutputBytes`, and larger than what the gateways store.
    OutputTooLarge,
    /// The capability ran, but its output, larger than `maxOutputBytes`, could not be stored before the deadline.
    ArtefactNotStored,
    /// The deadline had passed before the device could start it.
    DeadlineBeforeStart,
    /// The capability was stopped at the deadline.
    DeadlineExceeded,
    /// As many invocations are open, of the device or in the namespace, as may be, or as the agent takes.
    QueueFull,
    /// The person at the device, or its rules, said no.
    Refused,
    /// Somebody asked for it to be stopped.
    Cancelled,
    /// The capability ran and reported an error.
    CapabilityFailed,
    /// The agent was restarted while the capability ran: nobody knows how far it came.
    AgentRestarted,
    /// The device did not answer in time: nobody knows whether it ran.
    NoAnswer,
    /// The agent cannot keep its journal, so it refuses what it could not remember.
    JournalUnavailable,
    /// The agent failed in a way that it has no word for.
    Internal,
    /// The person at the device did not answer before the deadline.
    NoDecision,
}

/// What the person at the device decided.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mediation {
    /// Who decided.
    #[schemars(length(max = 253))]
    pub by: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub reason: Option<String>,
}

/// An output in the gateways' store. It is whole: it was written here after its digest was checked.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Artefact {
    /// Where it is in the store. It is removed some time after this object.
    #[schemars(length(min = 1, max = 512))]
    pub key: String,
    /// Its size in bytes.
    #[schemars(range(min = 0, max = crate::schema::MAX_WHOLE))]
    pub size_bytes: i64,
    /// Its SHA-256, hexadecimal.
    #[schemars(length(min = 64, max = 64), regex(pattern = crate::schema::SHA256_HEX))]
    pub sha256: String,
    /// What it is, for example `application/json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub media_type: Option<String>,
}

/// How far an invocation has come.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// 0 to 100.
    #[schemars(range(min = 0, max = 100))]
    pub percent: i64,
    /// What is being done, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
}
