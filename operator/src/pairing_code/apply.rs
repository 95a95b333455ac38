//! Makes a plan for a code happen.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::{
    PairingCode, names,
    v1alpha1::pairing_code::{CodeFormat, CodePhase, PairingCodeStatus},
};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
};
use pairing::code::{Alphabet, PairingCode as Drawn};

use super::{plan::Change, secret};
use crate::{
    context::Context,
    reconcile::{Error, api, within, write_status},
};

/// How often a code is drawn before it is left to the next try: a free id is found where one of twenty is free.
const MOST_DRAWS: usize = 256;
/// How long one code may keep the others from being activated. Shorter than a pass: who waits for it must not be given
/// up with it.
const ACTIVATION: Duration = Duration::from_secs(10);

pub async fn apply(context: &Context, code: &PairingCode, changes: &[Change]) -> Result<(), Error> {
    for change in changes {
        match change {
            Change::Draw => draw(context, code).await?,
            Change::Activate {
                drawn,
                secret_uid,
                status,
            } => {
                activate(context, code, drawn, secret_uid, status).await?;
            }
            Change::DeleteSecret { uid } => delete_secret(context, code, uid).await?,
            Change::WriteStatus(status) => {
                write_status(&codes(context, code), code, code.status.as_ref(), &**status).await?;
            }
        }
    }
    Ok(())
}

async fn draw(context: &Context, code: &PairingCode) -> Result<(), Error> {
    let alphabet = match code.spec.format {
        CodeFormat::Alphanumeric => Alphabet::Alphanumeric,
        CodeFormat::Numeric => Alphabet::Numeric,
    };
    // An id that another code has would cost a Secret, a list and a deletion each time.
    let drawn = std::iter::repeat_with(|| Drawn::draw(alphabet))
        .take(MOST_DRAWS)
        .find(|drawn| !context.places.has(drawn.id()))
        .ok_or(Error::IdTaken)?;
    let secret = secret::build(
        code,
        &drawn,
        &context.gateway_address,
        context.authority.pin(),
    )
    .map_err(Error::Qr)?;
    let params = PostParams {
        field_manager: Some(names::OPERATOR.to_owned()),
        ..PostParams::default()
    };
    // Created, not applied: a Secret that is there already shows a code that somebody may have read.
    secrets(context, code)
        .create(&params, &secret)
        .await
        .map_err(api("create the code's Secret"))?;
    Ok(())
}

/// Two live codes of one id could not be told apart at a gateway. One is activated at a time, and the list is read from
/// the API server, so that the second one sees the first.
async fn activate(
    context: &Context,
    code: &PairingCode,
    drawn: &Drawn,
    secret_uid: &str,
    status: &PairingCodeStatus,
) -> Result<(), Error> {
    let password_file = context
        .setup
        .password_file(drawn)
        .map_err(Error::PasswordFile)?;
    let _drawing = context.drawing.lock().await;
    within(
        ACTIVATION,
        activate_alone(context, code, drawn, secret_uid, status, &password_file),
    )
    .await
}

async fn activate_alone(
    context: &Context,
    code: &PairingCode,
    drawn: &Drawn,
    secret_uid: &str,
    status: &PairingCodeStatus,
    password_file: &[u8],
) -> Result<(), Error> {
    let same_id = ListParams::default().fields(&format!("status.codeId={}", drawn.id()));
    let same_id = Api::<PairingCode>::all(context.client.clone())
        .list(&same_id)
        .await
        .map_err(api("list the codes of that id"))?;
    let taken = same_id.iter().any(|other| {
        other.metadata.uid != code.metadata.uid
            && other
                .status
                .as_ref()
                .is_some_and(|status| status.phase == Some(CodePhase::Active))
    });
    if taken {
        delete_secret(context, code, secret_uid).await?;
        return Err(Error::IdTaken);
    }
    let status = PairingCodeStatus {
        password_file: Some(STANDARD.encode(password_file)),
        ..status.clone()
    };
    write_status(&codes(context, code), code, code.status.as_ref(), &status).await
}

async fn delete_secret(context: &Context, code: &PairingCode, uid: &str) -> Result<(), Error> {
    let only_this = Preconditions {
        uid: Some(uid.to_owned()),
        ..Preconditions::default()
    };
    let params = DeleteParams::default().preconditions(only_this);
    match secrets(context, code)
        .delete(&names::code_secret(&code.name_any()), &params)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(api("delete the code's Secret")(error)),
    }
}

fn codes(context: &Context, code: &PairingCode) -> Api<PairingCode> {
    Api::namespaced(
        context.client.clone(),
        &code.namespace().unwrap_or_default(),
    )
}

fn secrets(context: &Context, code: &PairingCode) -> Api<Secret> {
    Api::namespaced(
        context.client.clone(),
        &code.namespace().unwrap_or_default(),
    )
}
