//! What is known of a code. A code that has ended costs no request.

use crds::{PairingCode, names};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _};

use super::{
    plan::{self, CodeSecret, Observed, Room, has_ended},
    secret,
};
use crate::{
    context::{Context, now},
    reconcile::{Error, api},
};

/// Reads the code anew, for its tries and uses count. `None` if it is gone.
pub async fn observe(context: &Context, code: &PairingCode) -> Result<Option<Observed>, Error> {
    if has_ended(code) {
        return Ok(Some(Observed {
            now: now(),
            code: code.clone(),
            secret: CodeSecret::NotRead,
            room: Room::Free,
        }));
    }
    let room = if plan::waits_to_be_drawn(code, now()) {
        context.places.room(code, &context.codes)
    } else {
        Room::Free
    };
    if room != Room::Free {
        // Nothing depends on its Secret until its turn comes or its time is over.
        return Ok(Some(Observed {
            now: now(),
            code: code.clone(),
            secret: CodeSecret::NotRead,
            room,
        }));
    }
    let (namespace, name) = (code.namespace().unwrap_or_default(), code.name_any());
    let codes: Api<PairingCode> = Api::namespaced(context.client.clone(), &namespace);
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    let secret_name = names::code_secret(&name);
    let (code, secret) = futures::try_join!(codes.get_opt(&name), secrets.get_opt(&secret_name))
        .map_err(api("get the PairingCode and its Secret"))?;
    let Some(code) = code.filter(|code| code.metadata.deletion_timestamp.is_none()) else {
        return Ok(None);
    };
    let secret = secret::classify(secret.as_ref(), &code);
    Ok(Some(Observed {
        now: now(),
        code,
        secret,
        room,
    }))
}
