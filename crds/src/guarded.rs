//! An object that may be unreadable, so that one of them does not hide all others of its list.
//!
//! Who lists or watches a kind reads each object by itself: what is wrong with one is kept beside its metadata. Nothing
//! is built from an object before its kind is known, so that no nesting, however deep, ends the reading of the list:
//! serde_json stops at 128 levels, an API server takes ten thousand.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{error::Category, value::RawValue};

/// Most characters of [`Invalid::error`].
const MAX_ERROR: usize = 256;

/// An object, or what can be said of one that cannot be read as its kind.
///
/// Reads JSON by `serde_json` alone, and of a watch event only where its type comes first, as API servers write it.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Invalid>);

/// An object that cannot be read as its kind.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{error}")]
pub struct Invalid {
    /// What identifies it: names, uid, versions, moments, labels, annotations and owners. The rest was not read.
    pub metadata: ObjectMeta,
    /// What is wrong and where, 256 characters at most. Nothing of what the object contains.
    pub error: String,
}

impl<K> Guarded<K> {
    /// The object, if it can be read as its kind.
    pub fn readable(self) -> Option<K> {
        self.0.ok()
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let error = match serde_json::from_str(raw.get()) {
            Ok(object) => return Ok(Self(Ok(object))),
            Err(error) => error,
        };
        if let Some(Ok(object)) =
            without_managed_fields(raw.get()).map(|text| serde_json::from_str(&text))
        {
            return Ok(Self(Ok(object)));
        }
        // Where there is not even a name, the list is no list of objects.
        let Named { metadata } =
            serde_json::from_str(raw.get()).map_err(|error| D::Error::custom(told(&error)))?;
        Ok(Self(Err(Invalid {
            metadata: metadata.into(),
            error: told(&error),
        })))
    }
}

/// The text of an object without its `metadata.managedFields`, if it has any.
///
/// Whoever may change an object may write anything there, nested as deeply as an API server takes it and with any moment,
/// and no program of ours looks at it: it must not make an object unreadable.
fn without_managed_fields(text: &str) -> Option<String> {
    type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;
    let mut object: Fields<'_> = serde_json::from_str(text).ok()?;
    let mut metadata: Fields<'_> = serde_json::from_str(object.get("metadata")?.get()).ok()?;
    metadata.remove("managedFields")?;
    let metadata = serde_json::value::to_raw_value(&metadata).ok()?;
    object.insert(Cow::Borrowed("metadata"), &metadata);
    serde_json::to_string(&object).ok()
}

/// What serde_json says, without what it quotes of the object.
fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = match error.classify() {
        // Said of the text, not of what it means: nothing is quoted.
        Category::Io | Category::Syntax | Category::Eof => text,
        Category::Data => format!(
            "{} at line {} column {}",
            of_data(&text),
            error.line(),
            error.column()
        ),
    };
    what.chars().take(MAX_ERROR).collect()
}

/// The part of an error about a value that is the type's and not the value's.
fn of_data(text: &str) -> Cow<'static, str> {
    const UNEXPECTED: [&str; 4] = [
        "invalid type: ",
        "invalid value: ",
        "invalid length ",
        "unknown variant ",
    ];
    let text = text
        .rsplit_once(" at line ")
        .map_or(text, |(before, _)| before);
    if text.starts_with("missing field `") {
        return Cow::Owned(text.to_owned());
    }
    // What was found may contain anything, these words too; what was expected is the last that is said.
    match text.rsplit_once(", expected ") {
        Some((found, expected)) if UNEXPECTED.iter().any(|start| found.starts_with(start)) => {
            Cow::Owned(format!("a value is wrong: expected {expected}"))
        }
        _ => Cow::Borrowed("a value is not what its field takes"),
    }
}

/// An object of which nothing but its metadata is looked at: the rest is skipped, however deep it is.
#[derive(Deserialize)]
struct Named {
    metadata: Metadata,
}

/// Without `managedFields`, which are nested as deep as the object.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> Self {
        let Metadata {
            name,
            namespace,
            uid,
            resource_version,
            generation,
            creation_timestamp,
            deletion_timestamp,
            labels,
            annotations,
            owner_references,
        } = metadata;
        Self {
            name,
            namespace,
            uid,
            resource_version,
            generation,
            creation_timestamp,
            deletion_timestamp,
            labels,
            annotations,
            owner_references,
            ..Self::default()
        }
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(invalid) => &invalid.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(invalid) => &mut invalid.metadata,
        }
    }
}

#[cfg(test)]
mod tests;
