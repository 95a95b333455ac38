//! The keys that seal the sessions of console users: made once, rotated every day, replaced where they are of no use.
//!
//! They are in a Secret that gateways mount. With the current key a gateway seals, with both it opens: a session lives for
//! less than a key does, so none loses its key by a rotation. Whoever rotates writes onto the version that he read: of two
//! operators one does.

pub mod plan;

use std::collections::BTreeMap;

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::names::{
    CONSOLE_KEY_BYTES, CONSOLE_KEY_CURRENT, CONSOLE_KEY_MADE_ANNOTATION, CONSOLE_KEY_PREVIOUS,
    CONSOLE_KEYS_SECRET, OPERATOR,
};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use rand_core::{OsRng, RngCore as _};
use serde_json::json;

use self::plan::{Plan, Unreadable};
use crate::{
    authority::store::Store,
    report::{Note, Report},
};

/// Most steps of one look: to make or to replace, and to see that all is well.
const MOST_STEPS: usize = 3;

/// Sees to it that there are keys, and that they are not too old. Returns when to come back.
pub async fn keep(store: &Store, report: &Report, now: Timestamp) -> anyhow::Result<Timestamp> {
    for _ in 0..MOST_STEPS {
        let (secret, _) = store
            .get_or_create(CONSOLE_KEYS_SECRET, || Ok(fresh(store, now)))
            .await?;
        match plan::plan(&secret, now) {
            Plan::Keep(until) => return Ok(until),
            Plan::Rotate => rotate(store, &secret, now).await?,
            Plan::Replace(why) => replace(store, report, &secret, why).await?,
        }
    }
    anyhow::bail!("somebody else changes Secret {CONSOLE_KEYS_SECRET} all the time")
}

fn fresh(store: &Store, now: Timestamp) -> Secret {
    let data = BTreeMap::from([(CONSOLE_KEY_CURRENT.to_owned(), ByteString(draw().to_vec()))]);
    let mut secret = store.secret(CONSOLE_KEYS_SECRET, data);
    secret
        .annotations_mut()
        .insert(CONSOLE_KEY_MADE_ANNOTATION.to_owned(), now.to_string());
    secret
}

/// Where somebody else was quicker, the next look finds that nothing is to be done.
async fn rotate(store: &Store, secret: &Secret, now: Timestamp) -> anyhow::Result<()> {
    let data = secret.data.as_ref();
    let previous = data.and_then(|data| data.get(CONSOLE_KEY_CURRENT));
    let patch = json!({
        "metadata": {
            "resourceVersion": secret.resource_version(),
            "annotations": { CONSOLE_KEY_MADE_ANNOTATION: now.to_string() },
        },
        "data": { CONSOLE_KEY_CURRENT: STANDARD.encode(draw()), CONSOLE_KEY_PREVIOUS: previous },
    });
    let params = PatchParams {
        field_manager: Some(OPERATOR.to_owned()),
        ..PatchParams::default()
    };
    let rotated = store
        .secrets()
        .patch(CONSOLE_KEYS_SECRET, &params, &Patch::Merge(patch))
        .await;
    match rotated {
        Ok(_) => tracing::info!("Rotated the console's keys"),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
        Err(error) => {
            return Err(error).with_context(|| format!("rotate Secret {CONSOLE_KEYS_SECRET}"));
        }
    }
    Ok(())
}

/// Deleted, so that the next look makes it anew: what is in it otherwise, or that it must not be changed, is gone, too.
async fn replace(
    store: &Store,
    report: &Report,
    secret: &Secret,
    why: Unreadable,
) -> anyhow::Result<()> {
    let only_this = Preconditions {
        uid: secret.uid(),
        resource_version: secret.resource_version(),
    };
    let params = DeleteParams::default().preconditions(only_this);
    match store.secrets().delete(CONSOLE_KEYS_SECRET, &params).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
            return Ok(());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("delete Secret {CONSOLE_KEYS_SECRET}"));
        }
    }
    let message = format!(
        "{why}: other keys are made, and whoever was logged in to the console logs in again"
    );
    report
        .tell(
            secret,
            &[Note::warning("ConsoleKeysReplaced", "Replacing", message)],
        )
        .await;
    Ok(())
}

fn draw() -> [u8; CONSOLE_KEY_BYTES] {
    let mut key = [0; CONSOLE_KEY_BYTES];
    OsRng.fill_bytes(&mut key);
    key
}

#[cfg(test)]
mod tests;
