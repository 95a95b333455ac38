//! The one way that every request goes.
//!
//! ```text
//! place ─► pace of the address ─► query ─► from another site? ─► who ─► pace of the user ─► CSRF ─► body
//!       ─► what it is about ─► right ─► handler ─► cookie, where it is to be sealed anew
//! ```

use std::sync::Arc;

use axum::{
    body::to_bytes,
    extract::{FromRequestParts as _, RawPathParams, Request},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use console_api::{
    ObjectId, invocation::NewInvocation, pairing::NewCode, problem::ProblemCode,
    session::CSRF_HEADER,
};
use http::{HeaderMap, header, request::Parts};
use tokio::time::timeout;

use super::{
    Remote,
    call::{Call, expect_json, read_json},
    handle,
    query::Query,
    unread::Unread,
};
use crate::{
    Console,
    caller::{Caller, OwnApi, Token, Who},
    clock::now,
    guard::{
        bounds::{BODY_TIME, MAX_BODY, SHORT},
        origin,
        rates::Address,
    },
    metrics::Outcome,
    problem::{Answer, Fault},
    registry::{Bound, Need, Route, RouteId, Scope, Target},
    session::{Sealed, cookie, csrf, life, seal},
};

/// An answer, whatever happens.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge, where it is observed how long an answer takes"
)]
pub async fn answer(console: Arc<Console>, id: RouteId, request: Request) -> Response {
    let begun = std::time::Instant::now();
    let (parts, body) = request.into_parts();
    let mut body = Unread::new(&parts, body);
    let serving = serve(&console, id, parts, &mut body);
    let bound = id.route().bound;
    let result = match bound {
        Bound::Short => timeout(SHORT, serving).await.unwrap_or_else(|_| {
            Err(Fault::new(
                ProblemCode::Timeout,
                "it took too long: whether it was done is not known",
            ))
        }),
        Bound::Wait | Bound::Stream => serving.await,
    };
    let response = result.unwrap_or_else(|fault| {
        tracing::debug!(route = ?id, code = %fault.0.code, detail = fault.0.detail, "Refused");
        fault.into_response()
    });
    console
        .metrics
        .answered(Some(id), Outcome::of(response.status()));
    if bound == Bound::Short {
        console.metrics.took(id, begun.elapsed());
    }
    body.discard().await;
    response
}

async fn serve(console: &Arc<Console>, id: RouteId, mut parts: Parts, body: &mut Unread) -> Answer {
    let route = id.route();
    let place = console.places.enter(route.bound)?;
    let address = parts
        .extensions
        .get()
        .map(|Remote(address)| Address::from(address.ip()));
    if let Some(address) = address {
        console.rates.of_address(address)?;
    }
    let query = Query::read(id, &parts.uri)?;
    if route.changes() {
        origin::check(&parts.uri, &parts.headers)?;
    }
    let (caller, session) = match route.need {
        Need::Nobody | Need::Token => (None, None),
        Need::Identity | Need::Permission(_) => {
            let (caller, session) = who(console, &parts.headers, address).await?;
            (Some(caller), session)
        }
    };
    if let Some(caller) = &caller {
        console.rates.of_user(&caller.who.user)?;
    }
    if let Some(session) = session.as_ref().filter(|_| route.changes()) {
        check_csrf(session, &parts.headers)?;
    }
    let body = read_body(&route, &parts.headers, body).await?;
    let target = target(id, &mut parts, &query, &body).await?;
    if let (Some(permission), Some(caller)) = (route.permission(), &caller) {
        console.access.require(caller, permission, &target).await?;
    }
    let token = caller.as_ref().map(|caller| caller.digest);
    let call = Call {
        console: Arc::clone(console),
        id,
        target,
        caller,
        session: session.clone(),
        address,
        query,
        headers: parts.headers,
        body,
        place: Some(place),
    };
    match handle(call).await {
        Ok(response) => Ok(resealed(console, id, session, response)),
        Err(mut fault) => {
            // The API server does not take the token any more, so neither do we.
            if let (Some(token), ProblemCode::Unauthenticated) = (token, fault.0.code) {
                console.identities.forget(&token);
                if session.is_some() {
                    fault = session_over();
                }
            }
            Err(fault)
        }
    }
}

/// Who asks, and with which session.
async fn who(
    console: &Console,
    headers: &HeaderMap,
    address: Option<Address>,
) -> Answer<(Caller, Option<Sealed>)> {
    let bearer = Token::of_headers(headers)
        .map_err(|error| Fault::new(ProblemCode::Unauthenticated, error.to_string()))?;
    // Who says who he is means it, whatever the browser adds.
    let (token, session) = if let Some(token) = bearer {
        (token, None)
    } else {
        let session = session_of(console, headers)?;
        (session.token.clone(), Some(session))
    };
    let Some(who) = console.who(&token, address).await? else {
        return Err(if session.is_some() {
            session_over()
        } else {
            Fault::new(
                ProblemCode::Unauthenticated,
                "the cluster does not take this token: get a new one",
            )
        });
    };
    if let Some(session) = &session {
        check_logouts(console, &who, session)?;
    }
    let caller = Caller {
        who,
        digest: token.digest(),
        api: OwnApi::new(console.without_credentials.clone(), &token),
    };
    Ok((caller, session))
}

fn session_of(console: &Console, headers: &HeaderMap) -> Answer<Sealed> {
    let Some(text) = cookie::find(headers) else {
        return Err(Fault::new(
            ProblemCode::Unauthenticated,
            "log in, or send a token that the cluster takes: Authorization: Bearer TOKEN",
        ));
    };
    let keys = console.keys.keys().ok_or_else(keys_missing)?;
    let session = seal::open(&text, &keys).map_err(|_| session_over())?;
    if !life::is_alive(&session, now()) {
        return Err(session_over());
    }
    Ok(session)
}

/// Whether the session was logged out, which is recorded by user.
fn check_logouts(console: &Console, who: &Who, session: &Sealed) -> Answer<()> {
    match console.logouts.is_over(&who.user, session) {
        Some(false) => Ok(()),
        Some(true) => Err(session_over()),
        None => Err(logouts_unknown()),
    }
}

/// The ConfigMaps of logouts have not been read yet.
pub fn logouts_unknown() -> Fault {
    Fault::unavailable("this gateway does not know yet which sessions were logged out: try again")
}

/// The keys are not mounted.
pub fn keys_missing() -> Fault {
    Fault::new(
        ProblemCode::NotConfigured,
        "this gateway has no keys for sessions: send the token with every request, and see --console-keys-dir",
    )
}

fn session_over() -> Fault {
    Fault::new(
        ProblemCode::SessionExpired,
        "the session is over: log in again",
    )
}

fn check_csrf(session: &Sealed, headers: &HeaderMap) -> Answer<()> {
    let mut given = headers.get_all(CSRF_HEADER).iter();
    let token = given.next().map(http::HeaderValue::as_bytes);
    if given.next().is_none() && token.is_some_and(|token| csrf::is_right(&session.id, token)) {
        return Ok(());
    }
    Err(Fault::new(
        ProblemCode::InvalidCsrf,
        "send the csrfToken of GET /console/v1/auth/session as X-CSRF-Token",
    ))
}

async fn read_body(route: &Route, headers: &HeaderMap, body: &mut Unread) -> Answer<Bytes> {
    if !route.takes_body {
        return Ok(Bytes::new());
    }
    expect_json(headers)?;
    let too_large = || {
        Fault::new(
            ProblemCode::TooLarge,
            format!("the body is {MAX_BODY} bytes long at most"),
        )
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > MAX_BODY as u64) {
        return Err(too_large());
    }
    match timeout(BODY_TIME, to_bytes(body.take(), MAX_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_large(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Fault::field("body", "it did not arrive whole")),
        Err(_) => Err(Fault::field("body", "it took too long to arrive")),
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    let mut cause = Some(error as &dyn std::error::Error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What a request is about.
async fn target(id: RouteId, parts: &mut Parts, query: &Query, body: &Bytes) -> Answer<Target> {
    let about = |id: &ObjectId, capability: Option<String>| Target {
        namespace: Some(id.namespace().to_owned()),
        name: Some(id.name().to_owned()),
        capability,
    };
    match id.route().scope {
        Scope::Nothing => Ok(Target::default()),
        Scope::Query => Ok(Target {
            namespace: query.text("namespace").map(str::to_owned),
            ..Target::default()
        }),
        Scope::Path => {
            let invalid = |message: String| Fault::field("path.id", message);
            let params = RawPathParams::from_request_parts(parts, &()).await;
            let params = params.map_err(|_| invalid("it is no UTF-8".to_owned()))?;
            let text = params
                .iter()
                .find(|(name, _)| *name == "id")
                .map(|(_, text)| text);
            let object = text.unwrap_or_default().parse::<ObjectId>();
            object
                .map(|object| about(&object, None))
                .map_err(|error| invalid(error.to_string()))
        }
        Scope::Body if id == RouteId::CodeCreate => {
            let code: NewCode = read_json(body)?;
            if !console_api::id::is_namespace(&code.namespace) {
                return Err(Fault::field(
                    "body.namespace",
                    "give the name of a namespace",
                ));
            }
            Ok(Target {
                namespace: Some(code.namespace),
                ..Target::default()
            })
        }
        Scope::Body => {
            let invocation: NewInvocation = read_json(body)?;
            Ok(about(&invocation.device, Some(invocation.capability)))
        }
    }
}

/// The answer, with the cookie sealed anew where it was used for long enough.
fn resealed(
    console: &Console,
    id: RouteId,
    session: Option<Sealed>,
    mut response: Response,
) -> Response {
    let now = now();
    let fresh = session.and_then(|session| life::refreshed(&session, now));
    let (Some(fresh), Some(keys)) = (fresh, console.keys.keys()) else {
        return response;
    };
    if id == RouteId::Logout {
        return response;
    }
    let sealed = seal::seal(&fresh, console.keys.sealing(&keys, now), seal::nonce());
    // It fitted before, and is as long.
    if let Ok(value) = cookie::set(sealed) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}
