//! A rule as a table: who does what, and whether it passes.

use anyhow::{Context as _, bail, ensure};
use http::Method;
use serde_json::{Value, json};

use super::ground::{HOME, MERGE_PATCH, Plane};
use super::objects;

/// A user, by name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Who(pub &'static str);

pub const ADMIN: Who = Who("admin");
pub const OPERATOR: Who = Who("system:serviceaccount:fairlead-system:fairlead-operator");
pub const GATEWAY: Who = Who("system:serviceaccount:fairlead-system:fairlead-gateway");
/// May approve.
pub const ADA: Who = Who("ada");
/// May approve, and makes codes and requests.
pub const RITA: Who = Who("rita");
/// Administers devices and codes. May not approve.
pub const DORA: Who = Who("dora");
/// May invoke everything.
pub const IVAN: Who = Who("ivan");
/// May invoke harmless capabilities.
pub const HUGO: Who = Who("hugo");
/// May invoke everything on the device `kiosk`.
pub const IRIS: Who = Who("iris");
/// May write everything, but neither approve nor invoke.
pub const PAUL: Who = Who("paul");
/// Like Paul, and may invoke in the namespace [`HOME`].
pub const NILS: Who = Who("nils");
/// Like Paul, and may approve the request `one`.
pub const NORA: Who = Who("nora");
/// May look.
pub const VERA: Who = Who("vera");
/// May create and change everything, but delete nothing.
pub const OLGA: Who = Who("olga");
/// Removes the finalizers of a deletion in the foreground. Kubernetes itself gives it the verb delete on everything.
pub const COLLECTOR: Who = Who("system:serviceaccount:kube-system:generic-garbage-collector");

/// Steps in a namespace of their own, one after the other.
pub struct Rule {
    pub name: &'static str,
    stamps: bool,
    steps: Vec<Step>,
}

/// What somebody does, and what comes of it.
pub struct Step {
    who: Who,
    act: Act,
    at_home: bool,
    pod: Option<&'static str>,
    gone: bool,
    refused: Option<&'static str>,
    reads: Vec<(&'static str, Value)>,
}

enum Act {
    Create(Value),
    Patch {
        path: String,
        content_type: &'static str,
        patch: Value,
    },
    Delete {
        path: String,
    },
    /// Reads the object, changes it like a merge patch, and writes the whole of it.
    Replace {
        path: String,
        change: Value,
    },
    Apply(Value),
}

impl Who {
    pub fn creates(self, object: Value) -> Step {
        self.does(Act::Create(object))
    }

    /// A merge patch of an object, which is like `devices/kiosk`.
    pub fn patches(self, object: &str, patch: Value) -> Step {
        self.does(Act::Patch {
            path: object.to_owned(),
            content_type: MERGE_PATCH,
            patch,
        })
    }

    /// A merge patch of the status.
    pub fn writes_status(self, object: &str, status: &Value) -> Step {
        self.patches(&format!("{object}/status"), json!({ "status": status }))
    }

    /// A JSON patch of the status: unlike a merge patch, it can write null.
    pub fn writes_status_at(self, object: &str, pointer: &str, value: &Value) -> Step {
        self.adds(
            &format!("{object}/status"),
            &format!("/status{pointer}"),
            value,
        )
    }

    /// A JSON patch of an object that adds one value.
    pub fn adds(self, object: &str, pointer: &str, value: &Value) -> Step {
        self.does_at(object, "add", pointer, value)
    }

    /// A JSON patch of an object, of one operation.
    pub fn does_at(self, object: &str, operation: &str, pointer: &str, value: &Value) -> Step {
        self.does(Act::Patch {
            path: object.to_owned(),
            content_type: "application/json-patch+json",
            patch: json!([{ "op": operation, "path": pointer, "value": value }]),
        })
    }

    /// An update of the whole object, changed as by a merge patch.
    pub fn replaces(self, object: &str, change: Value) -> Step {
        self.does(Act::Replace {
            path: object.to_owned(),
            change,
        })
    }

    /// A server-side apply.
    pub fn applies(self, object: Value) -> Step {
        self.does(Act::Apply(object))
    }

    pub fn deletes(self, object: &str) -> Step {
        self.does(Act::Delete {
            path: object.to_owned(),
        })
    }

    fn does(self, act: Act) -> Step {
        Step {
            who: self,
            act,
            at_home: false,
            pod: None,
            gone: false,
            refused: None,
            reads: Vec::new(),
        }
    }
}

impl Step {
    /// It does not pass, and the answer says this.
    pub fn refused(mut self, message: &'static str) -> Self {
        self.refused = Some(message);
        self
    }

    /// The object does not exist any more.
    pub fn not_found(mut self) -> Self {
        self.gone = true;
        self
    }

    /// The answer has this value there.
    pub fn reads(mut self, pointer: &'static str, value: impl Into<Value>) -> Self {
        self.reads.push((pointer, value.into()));
        self
    }

    /// In the namespace [`HOME`], not in that of the rule.
    pub fn at_home(mut self) -> Self {
        self.at_home = true;
        self
    }

    /// With the token of that pod.
    pub fn in_pod(mut self, pod: &'static str) -> Self {
        self.pod = Some(pod);
        self
    }

    async fn run(&self, plane: &Plane, namespace: &str) -> anyhow::Result<()> {
        let namespace = if self.at_home { HOME } else { namespace };
        let answer = self.ask(plane, namespace).await?;
        if self.gone {
            return match answer {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                Ok(object) => bail!("it still exists: {object}"),
                Err(error) => Err(error).context("it is not gone, it failed"),
            };
        }
        match (answer, self.refused) {
            (Ok(object), None) => {
                for (pointer, expected) in &self.reads {
                    let found = object.pointer(pointer).unwrap_or(&Value::Null);
                    ensure!(found == expected, "{pointer} is {found}, not {expected}");
                }
                Ok(())
            }
            (Ok(object), Some(_)) => bail!("it passed: {object}"),
            (Err(error), None) => Err(error).context("it was refused"),
            (Err(kube::Error::Api(status)), Some(message)) => {
                ensure!(
                    [403, 422].contains(&status.code),
                    "refused with {}: {}",
                    status.code,
                    status.message
                );
                ensure!(
                    status.message.contains(message),
                    "refused with another message: {}",
                    status.message
                );
                Ok(())
            }
            (Err(error), Some(_)) => Err(error).context("it was not refused, it failed"),
        }
    }
}

impl Step {
    async fn ask(&self, plane: &Plane, namespace: &str) -> anyhow::Result<kube::Result<Value>> {
        let json = "application/json";
        let (method, path, content_type, body) = match &self.act {
            Act::Create(object) => (
                Method::POST,
                objects::path_of(namespace, object),
                json,
                object.clone(),
            ),
            Act::Patch {
                path,
                content_type,
                patch,
            } => (
                Method::PATCH,
                objects::path(namespace, path),
                *content_type,
                patch.clone(),
            ),
            Act::Delete { path } => (
                Method::DELETE,
                objects::path(namespace, path),
                json,
                Value::Null,
            ),
            Act::Replace { path, change } => {
                let path = objects::path(namespace, path);
                let found = plane
                    .ask(ADMIN, None, Method::GET, &path, json, &Value::Null)
                    .await?
                    .context("read the object")?;
                (Method::PUT, path, json, objects::with(found, change))
            }
            Act::Apply(object) => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let path = objects::path_of(namespace, object);
                (
                    Method::PATCH,
                    format!("{path}/{name}?fieldManager=trial&force=true"),
                    "application/apply-patch+yaml",
                    object.clone(),
                )
            }
        };
        plane
            .ask(self.who, self.pod, method, &path, content_type, &body)
            .await
    }
}

impl Rule {
    pub fn new(name: &'static str, steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            name,
            stamps: true,
            steps: steps.into_iter().collect(),
        }
    }

    /// As on a Kubernetes that serves no mutating policies.
    pub fn without_stamps(mut self) -> Self {
        self.stamps = false;
        self
    }

    pub async fn run(&self, plane: &Plane) -> anyhow::Result<()> {
        let namespace = self.name.replace([':', '_'], "-");
        // A name is a label, of 63 characters at most; the ends of the names differ.
        let namespace = namespace
            .get(namespace.len().saturating_sub(60)..)
            .unwrap_or(&namespace)
            .trim_matches('-');
        plane
            .make(
                "/api/v1/namespaces",
                &objects::namespace(namespace, self.stamps),
            )
            .await?;
        for (number, step) in self.steps.iter().enumerate() {
            step.run(plane, namespace).await.with_context(|| {
                format!(
                    "step {} of {}, by {}",
                    number + 1,
                    self.steps.len(),
                    step.who.0
                )
            })?;
        }
        Ok(())
    }
}
