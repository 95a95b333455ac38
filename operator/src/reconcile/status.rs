//! How a status is written: only what changed, only onto the version that was observed, and not at all when nothing did.

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{Error, api};

/// Writes the difference from `old` to `new`, if there is one. A conflict means that somebody else wrote first.
pub async fn write_status<K, S>(
    api_of: &Api<K>,
    object: &K,
    old: Option<&S>,
    new: &S,
) -> Result<(), Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
    S: Serialize,
{
    let old = old
        .map_or(Ok(json!({})), serde_json::to_value)
        .map_err(Error::Json)?;
    let new = serde_json::to_value(new).map_err(Error::Json)?;
    let Some(status) = difference(&old, &new) else {
        return Ok(());
    };
    let patch = json!({
        "metadata": { "resourceVersion": object.resource_version() },
        "status": status,
    });
    let params = PatchParams {
        field_manager: Some(crds::names::OPERATOR.to_owned()),
        ..PatchParams::default()
    };
    api_of
        .patch_status(&object.name_any(), &params, &Patch::Merge(patch))
        .await
        .map_err(api("write the status"))?;
    Ok(())
}

/// `new` where it differs from `old`: what a plan has to write.
pub fn settle<S: Clone + Default + PartialEq>(old: Option<&S>, new: S) -> Option<Box<S>> {
    let unchanged = old.map_or_else(|| S::default() == new, |old| *old == new);
    (!unchanged).then(|| Box::new(new))
}

/// A JSON merge patch (RFC 7396) that makes `new` of `old`.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        let changed = match old.get(key) {
            Some(before) => difference(before, value),
            None => Some(value.clone()),
        };
        if let Some(changed) = changed {
            patch.insert(key.clone(), changed);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_written() {
        for (old, new, expected) in [
            (json!({"a": 1}), json!({"a": 1}), None),
            (json!({"a": 1}), json!({"a": 2}), Some(json!({"a": 2}))),
            (
                json!({"a": 1, "b": 2}),
                json!({"a": 1}),
                Some(json!({"b": null})),
            ),
            (
                json!({"a": {"b": 1, "c": 2}}),
                json!({"a": {"b": 1, "c": 3}}),
                Some(json!({"a": {"c": 3}})),
            ),
            (
                json!({"a": [1, 2]}),
                json!({"a": [1]}),
                Some(json!({"a": [1]})),
            ),
            (
                json!({}),
                json!({"a": {"b": 1}}),
                Some(json!({"a": {"b": 1}})),
            ),
        ] {
            assert_eq!(difference(&old, &new), expected, "{old} -> {new}");
        }
    }
}
