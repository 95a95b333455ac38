//! Logging in, logging out, and who the caller is.

use console_api::{
    problem::ProblemCode,
    session::{Login, Session},
};
use http::header;

use super::{
    call::{Call, done, ok},
    pipeline::{keys_missing, logouts_unknown},
};
use crate::{
    caller::{Token, Who},
    clock::now,
    problem::{Answer, Fault},
    session::{Sealed, SessionId, cookie, csrf, life, logouts::Over, seal},
};

pub async fn login(call: Call) -> Answer {
    // Without the words of what reads it: they may repeat what should have been the token.
    let login: Login = call
        .read()
        .map_err(|_| Fault::field("body", "give {\"token\": TOKEN} and nothing else"))?;
    let token =
        Token::new(login.token).map_err(|error| Fault::field("body.token", error.to_string()))?;
    let console = &call.console;
    let keys = console.keys.keys().ok_or_else(keys_missing)?;
    let Some(who) = console.who(&token, call.address).await? else {
        return Err(Fault::new(
            ProblemCode::Unauthenticated,
            "the cluster does not take this token: get a new one",
        ));
    };
    console.rates.of_user(&who.user)?;
    let over = match console.logouts.over(&who.user) {
        Over::Unknown => return Err(logouts_unknown()),
        Over::Never => None,
        Over::Until(latest) => Some(latest),
    };
    let now = now();
    let session = life::begin(SessionId::random(), token, now, over).ok_or_else(|| {
        Fault::unavailable("your sessions are over for some minutes to come: the clock of a gateway was wrong; try again, or send the token with every request")
    })?;
    let sealed = seal::seal(&session, console.keys.sealing(&keys, now), seal::nonce());
    let cookie = cookie::set(sealed)
        .map_err(|error| Fault::new(ProblemCode::TooLarge, error.to_string()))?;
    let mut response = ok(&shown(&who, Some(&session)))?;
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Ends all sessions of the caller, in every hand, and removes the cookie.
pub async fn logout(call: Call) -> Answer {
    let mut response = done();
    // A caller who sent a token has no session that could end.
    if let Some(session) = &call.session {
        let (console, user) = (&call.console, &call.caller()?.who.user);
        console.rates.of_logout(user)?;
        let ended = console.logouts.end(user, session, now()).await;
        ended.map_err(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "Recording a logout failed");
            Fault::unavailable(
                "your sessions go on, because their end could not be recorded: try again",
            )
        })?;
        response
            .headers_mut()
            .append(header::SET_COOKIE, cookie::removal());
    }
    Ok(response)
}

pub fn show(call: &Call) -> Answer {
    ok(&shown(&call.caller()?.who, call.session.as_ref()))
}

fn shown(who: &Who, session: Option<&Sealed>) -> Session {
    Session {
        user: who.user.clone(),
        groups: who.groups.clone(),
        csrf_token: session.map(|session| csrf::token(&session.id)),
        expires_at: session.map(|session| session.expires_at),
        idle_expires_at: session.map(life::idle_end),
    }
}
