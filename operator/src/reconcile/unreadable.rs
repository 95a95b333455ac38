//! Says of an object that cannot be read as its kind that it cannot, in its own conditions: who looks at it sees that, and
//! not what was true before.
//!
//! Why it cannot be read is not known, only that it cannot; so its conditions are read as JSON, and all others stay.

use crds::{
    Invalid,
    conditions::{READY, condition},
};
use jiff::Timestamp;
use kube::{
    Api, Resource,
    api::{DynamicObject, Patch, PatchParams},
    discovery::ApiResource,
};
use serde_json::{Value, json};

use super::{Error, api};
use crate::context::{Context, now};

const REASON: &str = "InvalidObject";

/// Writes the condition Ready of the object. `ended`: phases from which none follows; what has ended stays as it is.
/// An object that does not even take that is left alone: the event says it.
pub async fn say<K: Resource<DynamicType = ()>>(
    context: &Context,
    invalid: &Invalid,
    ended: &[&str],
) -> Result<(), Error> {
    let metadata = &invalid.metadata;
    let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) else {
        return Ok(());
    };
    let objects: Api<DynamicObject> = Api::namespaced_with(
        context.client.clone(),
        namespace,
        &ApiResource::erase::<K>(&()),
    );
    let object = match objects.get_opt(name).await {
        Ok(Some(object)) => object,
        Ok(None) | Err(kube::Error::SerdeError(_)) => return Ok(()),
        Err(error) => return Err(api("get the object that cannot be read")(error)),
    };
    let status = &object.data["status"];
    let Some(conditions) = conditions(now(), status, invalid, ended) else {
        return Ok(());
    };
    // Onto the version that was read, so that nobody's condition is lost.
    let patch = json!({
        "metadata": { "resourceVersion": object.metadata.resource_version },
        "status": { "conditions": conditions },
    });
    let params = PatchParams {
        field_manager: Some(crds::names::OPERATOR.to_owned()),
        ..PatchParams::default()
    };
    match objects
        .patch_status(name, &params, &Patch::Merge(patch))
        .await
    {
        Ok(_) | Err(kube::Error::SerdeError(_)) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            tracing::debug!(%status, "An object that cannot be read takes no condition either");
            Ok(())
        }
        Err(error) => Err(api("write the condition of the object that cannot be read")(error)),
    }
}

/// All conditions that it is to have. `None` where nothing is to be written.
fn conditions(
    now: Timestamp,
    status: &Value,
    invalid: &Invalid,
    ended: &[&str],
) -> Option<Vec<Value>> {
    if status["phase"]
        .as_str()
        .is_some_and(|phase| ended.contains(&phase))
    {
        return None;
    }
    // The place changes with every write, this one too: said, it would be written again and again.
    let what = invalid
        .error
        .rsplit_once(" at line ")
        .map_or(&*invalid.error, |(what, _)| what);
    let message = format!("the object cannot be read, and is not treated as its kind: {what}");
    let generation = invalid.metadata.generation;
    let next = condition(now, generation, READY, false, REASON, message);
    let mut next = serde_json::to_value(next).ok()?;
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let Some(ready) = conditions.iter_mut().find(|it| it["type"] == READY) else {
        conditions.push(next);
        return Some(conditions);
    };
    if ["status", "reason", "message", "observedGeneration"]
        .iter()
        .all(|key| ready[key] == next[key])
    {
        return None;
    }
    if ready["status"] == next["status"] {
        next["lastTransitionTime"] = ready["lastTransitionTime"].take();
    }
    *ready = next;
    Some(conditions)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crds::{Device, PairingCode, PairingRequest};

    use super::*;
    use crate::{context::tests::context, pretended::Server, reconcile::Kind, watch::Guard};

    /// As a newer API server may have it: a value that this program does not know.
    fn lamp() -> Value {
        json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device",
            "metadata": { "name": "lamp", "namespace": "kitchen", "generation": 3 },
            "spec": { "publicKeySha256": "ab", "trust": "Doubtful" },
            "status": { "trust": "Trusted", "conditions": [
                condition_of("Connected", "True"), condition_of("Ready", "True"),
            ] },
        })
    }

    fn condition_of(type_: &str, status: &str) -> Value {
        json!({
            "type": type_, "status": status, "reason": "Before", "message": "as before",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    }

    /// One pass over what the server holds.
    async fn pass<K: Kind + serde::de::DeserializeOwned>(server: &Server, object: &str) {
        let context = Arc::new(context(server.client()));
        let seen = server.get(object).unwrap().to_string();
        let seen: Guard<K> = serde_json::from_str(&seen).unwrap();
        let invalid = seen.0.expect_err("it cannot be read");
        K::unreadable(invalid, context).await.unwrap();
    }

    fn ready(server: &Server, object: &str) -> Value {
        let object = server.get(object).unwrap();
        let conditions = object["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|it| it["type"] == "Ready");
        ready.cloned().unwrap()
    }

    #[tokio::test]
    async fn a_device_that_cannot_be_read_is_not_ready_and_that_is_written_once() {
        let server = Server::default();
        server.put("devices/lamp", lamp());
        pass::<Device>(&server, "devices/lamp").await;
        let said = ready(&server, "devices/lamp");
        assert_eq!(said["status"], "False");
        assert_eq!(said["reason"], "InvalidObject");
        assert_eq!(said["observedGeneration"], 3);
        let message = said["message"].as_str().unwrap();
        assert!(
            message.contains("cannot be read") && !message.contains("column"),
            "{message}"
        );
        assert_ne!(said["lastTransitionTime"], "2026-01-01T00:00:00Z");
        let device = server.get("devices/lamp").unwrap();
        assert_eq!(device["status"]["trust"], "Trusted", "nothing else");
        let connected = &device["status"]["conditions"][0];
        assert_eq!(*connected, condition_of("Connected", "True"));

        // What was written moves what is wrong to another place.
        let mut moved = device;
        moved["metadata"]["annotations"] = json!({ "a": "b".repeat(100) });
        server.put("devices/lamp", moved);
        pass::<Device>(&server, "devices/lamp").await;
        assert_eq!(server.writes("devices").len(), 1);
    }

    #[tokio::test]
    async fn codes_and_requests_say_so_too_but_not_what_has_ended() {
        let server = Server::default();
        let object = |kind: &str, spec: Value, status: Value| {
            json!({
                "apiVersion": "fairlead.dev/v1alpha1", "kind": kind,
                "metadata": { "name": "x", "namespace": "kitchen" }, "spec": spec, "status": status,
            })
        };
        let code = |status| object("PairingCode", json!({ "format": "Runes" }), status);
        server.put("pairingcodes/x", code(Value::Null));
        pass::<PairingCode>(&server, "pairingcodes/x").await;
        assert_eq!(ready(&server, "pairingcodes/x")["reason"], "InvalidObject");
        server.put("pairingcodes/x", code(json!({ "phase": "Used" })));
        pass::<PairingCode>(&server, "pairingcodes/x").await;
        assert_eq!(server.writes("pairingcodes").len(), 1);

        let request = |phase: &str| {
            object(
                "PairingRequest",
                json!({ "requestedName": "lamp", "method": "Telepathy" }),
                json!({ "phase": phase }),
            )
        };
        server.put("pairingrequests/x", request("Pending"));
        pass::<PairingRequest>(&server, "pairingrequests/x").await;
        assert_eq!(ready(&server, "pairingrequests/x")["status"], "False");
        for phase in ["Denied", "Issued", "Expired", "Failed"] {
            server.put("pairingrequests/x", request(phase));
            pass::<PairingRequest>(&server, "pairingrequests/x").await;
        }
        assert_eq!(server.writes("pairingrequests").len(), 1);
    }

    #[tokio::test]
    async fn an_object_that_is_gone_or_takes_nothing_is_left_alone() {
        let server = Server::default();
        server.put("devices/lamp", lamp());
        let invalid = || {
            let seen = server.get("devices/lamp").unwrap().to_string();
            let seen: Guard<Device> = serde_json::from_str(&seen).unwrap();
            seen.0.expect_err("it cannot be read")
        };
        let seen = invalid();
        server.refuse("devices");
        let context = context(server.client());
        say::<Device>(&context, &seen, &[]).await.unwrap();
        assert_eq!(server.writes("devices").len(), 1, "it was tried");
        assert_eq!(
            server.get("devices/lamp").unwrap()["status"],
            lamp()["status"]
        );
        let mut gone = seen;
        gone.metadata.name = Some("fan".to_owned());
        say::<Device>(&context, &gone, &[]).await.unwrap();
    }
}
