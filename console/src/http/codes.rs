//! Pairing codes: made, listed without secrets, revealed to who may read the Secret, taken back.

use console_api::{
    ObjectId,
    pairing::{CodeMaterial, CodePage, NewCode},
    problem::ProblemCode,
    routes,
};
use crds::{PairingCode, names::code_secret, v1alpha1::PairingCodeSpec};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ObjectMeta},
};

use super::{
    call::{Call, created, done, ok},
    idempotency::{self, conflict},
    pages,
};
use crate::{
    problem::{Answer, Fault},
    record,
};

/// Prefix of names that are made up.
const PREFIX: &str = "code";

pub async fn create(call: Call) -> Answer {
    let code: NewCode = call.read()?;
    let caller = call.caller()?;
    let key = idempotency::key(&call)?;
    let name = match (&code.name, &key) {
        (Some(name), _) if !console_api::id::is_name(name) => {
            return Err(Fault::field(
                "body.name",
                "give the name of an object: lower-case letters, digits, dashes and dots",
            ));
        }
        (Some(name), _) => Some(name.clone()),
        (None, Some(key)) => Some(idempotency::name(
            PREFIX,
            &caller.who.user,
            key,
            &code.namespace,
        )),
        (None, None) => None,
    };
    let namespace = code.namespace.clone();
    let object = PairingCode {
        metadata: ObjectMeta {
            generate_name: name.is_none().then(|| format!("{PREFIX}-")),
            name: name.clone(),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        spec: spec(code)?,
        status: None,
    };
    let made = caller.api.create(Some(&namespace), &object).await;
    match (made, name, key) {
        (Ok(made), _, _) => {
            let record = record::code(&made).ok_or_else(Fault::internal)?;
            created(routes::CODE, &record.id, &record)
        }
        // It was sent before.
        (Err(fault), Some(name), Some(_)) if fault.0.code == ProblemCode::Conflict => {
            let found: PairingCode = caller.api.get(&namespace, &name).await?;
            if found.spec != object.spec {
                return Err(conflict(&name));
            }
            ok(&record::code(&found).ok_or_else(Fault::internal)?)
        }
        (Err(fault), _, _) => Err(fault),
    }
}

/// What is not said is what the resource has by itself.
fn spec(code: NewCode) -> Answer<PairingCodeSpec> {
    let mut value = serde_json::to_value(code).map_err(|_| Fault::internal())?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("namespace");
        fields.remove("name");
    }
    serde_json::from_value(value).map_err(|error| Fault::field("body", error.to_string()))
}

pub async fn list(call: Call) -> Answer {
    let params = pages::params(&call.query, &[("status.phase", call.query.text("phase"))])?;
    let namespace = call.target.namespace.as_deref();
    let found = call
        .caller()?
        .api
        .list::<PairingCode>(namespace, &params)
        .await?;
    ok(&CodePage {
        next_cursor: pages::cursor(&found.metadata),
        codes: found.items.iter().filter_map(record::code).collect(),
    })
}

pub async fn get(call: Call) -> Answer {
    let id = call.object()?;
    let found: PairingCode = call.caller()?.api.get(id.namespace(), id.name()).await?;
    ok(&record::code(&found).ok_or_else(Fault::internal)?)
}

pub async fn revoke(call: Call) -> Answer {
    let id = call.object()?;
    let params = DeleteParams::default();
    call.caller()?
        .api
        .delete::<PairingCode>(id.namespace(), id.name(), &params)
        .await?;
    Ok(done())
}

pub async fn material(call: Call) -> Answer {
    let id = call.object()?;
    let secret = code_secret(id.name());
    let secret: Secret = call.caller()?.api.get(id.namespace(), &secret).await?;
    if !is_of(&secret, &id) {
        return Err(Fault::not_found());
    }
    let text = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?;
        String::from_utf8(bytes.0.clone()).ok()
    };
    let material = || {
        Some(CodeMaterial {
            pin: text("pin")?,
            uri: text("uri")?,
            qr_svg: text("qr.svg")?,
            qr_text: text("qr.txt")?,
        })
    };
    // Until the operator has written it, and after the code has ended.
    ok(&material().ok_or_else(Fault::not_found)?)
}

/// Whether it is the Secret of that code, and not just called so.
fn is_of(secret: &Secret, id: &ObjectId) -> bool {
    let owners = secret.owner_references();
    owners
        .iter()
        .any(|owner| owner.kind == "PairingCode" && owner.name == id.name())
}
