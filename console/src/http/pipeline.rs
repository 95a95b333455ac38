//! The one way that every request goes.
//!
//! ```text
//! pace of the address ─► query ─► from another site? ─► who ─► pace of the user ─► CSRF ─► body ─► place
//!       ─► what it is about ─► right ─► handler ─► cookie, where it is to be sealed anew
//! ```
//!
//! A user's request takes its place only after its body and its identity have arrived, so a peer that sends slowly holds
//! none. It holds the place until the last byte of the answer is sent. Strangers hold no such place: a login, or a token
//! that is not known, is one of a crowd of strangers, where the newest has room.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts as _, RawPathParams, Request},
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use console_api::{
    ObjectId, invocation::NewInvocation, pairing::NewCode, problem::ProblemCode,
    session::CSRF_HEADER,
};
use futures::StreamExt as _;
use http::{HeaderMap, header, request::Parts};
use tokio::time::{Instant, error::Elapsed, timeout, timeout_at};

use super::{
    Lasts, Remote,
    call::{Call, expect_json, read_json},
    handle,
    held::keeping,
    query::Query,
    unread::Unread,
};
use crate::{
    Console,
    caller::{Caller, Digest, OwnApi, Token, Who},
    clock::{self, now},
    guard::{
        bounds::{BODY_TIME, MAX_BODY, MAX_HEADERS, MAX_LOGIN, SHORT, full},
        origin,
        party::Party,
        pool::Held,
        rates::Address,
    },
    metrics::Outcome,
    problem::{Answer, Fault},
    registry::{Bound, Need, RouteId, Scope, Target},
    session::{Sealed, cookie, csrf, life, seal},
};

/// An answer, whatever happens.
pub async fn answer(console: Arc<Console>, id: RouteId, request: Request) -> Response {
    let begun = clock::instant();
    let (parts, body) = request.into_parts();
    let mut body = Unread::new(&parts, body);
    let address = address(parts.extensions.get());
    let serving = serve(&console, id, parts, &mut body, begun + SHORT);
    let result = if id.route().need == Need::Token {
        let served = console.as_stranger(address, serving).await;
        served.and_then(|result| result)
    } else {
        serving.await
    };
    let response = result.unwrap_or_else(|fault| {
        tracing::debug!(route = ?id, code = %fault.0.code, detail = fault.0.detail, "Refused");
        fault.into_response()
    });
    console
        .metrics
        .answered(Some(id), Outcome::of(response.status()));
    if id.route().bound == Bound::Short {
        console.metrics.took(id, begun.elapsed());
    }
    body.discard().await;
    response
}

/// Returns where a connection comes from.
fn address(remote: Option<&Remote>) -> Option<Address> {
    remote.map(|remote| Address::from(remote.address.ip()))
}

/// A request that has arrived: what it sent, and who sent it.
struct Arrived {
    query: Query,
    caller: Option<Caller>,
    session: Option<Sealed>,
    body: Bytes,
    /// The bytes of the body, as they are counted.
    _bytes: Option<Held>,
}

async fn serve(
    console: &Arc<Console>,
    id: RouteId,
    mut parts: Parts,
    body: &mut Unread,
    by: Instant,
) -> Answer {
    let remote = parts.extensions.get::<Remote>().cloned();
    let address = address(remote.as_ref());
    let arriving = arrive(console, id, &parts, body, remote.as_ref());
    let arrived = timeout_at(by, arriving).await.unwrap_or_else(too_long)?;
    let Arrived {
        query,
        caller,
        session,
        body,
        _bytes,
    } = arrived;
    let from = Party {
        address,
        user: caller.as_ref().map(|caller| caller.who.user.clone()),
    };
    let bound = bound(id, &query);
    // A stranger takes none: it would keep out another who logs in.
    let place = from.user.is_some().then(|| {
        let place = console.places.enter(bound, &from);
        place.inspect_err(|_| console.metrics.full(bound))
    });
    let place = place.transpose()?;
    let leaving = remote.map_or_else(
        || console.stop.clone(),
        |remote| remote.connection.leaving().clone(),
    );
    let answering = async {
        let target = target(id, &mut parts, &query, &body).await?;
        if let (Some(permission), Some(caller)) = (id.route().permission(), &caller) {
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
            leaving,
        };
        handle(call)
            .await
            .map_err(|fault| refused(console, fault, token, session.is_some()))
    };
    let response = match bound {
        Bound::Short => timeout_at(by, answering).await.unwrap_or_else(too_long)?,
        Bound::Wait => answering.await?,
        Bound::Stream | Bound::Download => {
            let mut response = answering.await?;
            response.extensions_mut().insert(Lasts);
            response
        }
    };
    let response = resealed(console, id, session, response);
    Ok(response.map(|body| keeping(body, place)))
}

/// Reads what a request sent, and whose it is.
async fn arrive(
    console: &Console,
    id: RouteId,
    parts: &Parts,
    body: &mut Unread,
    remote: Option<&Remote>,
) -> Answer<Arrived> {
    let route = id.route();
    let address = address(remote);
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
    let from = Party {
        address,
        user: caller.as_ref().map(|caller| caller.who.user.clone()),
    };
    if let Some(user) = &from.user {
        if let Some(remote) = remote {
            remote.connection.is_of(&from);
        }
        console.rates.of_user(user)?;
    }
    if let Some(session) = session.as_ref().filter(|_| route.changes()) {
        check_csrf(session, &parts.headers)?;
    }
    let mut bytes = None;
    let mut content = Bytes::new();
    if route.takes_body {
        let held = bytes.insert(console.places.bodies.open(&from));
        // Counts a body that does not come, too.
        held.grow(MAX_HEADERS).map_err(full)?;
        let most = if from.user.is_some() {
            MAX_BODY
        } else {
            MAX_LOGIN
        };
        content = read_body(&parts.headers, body, most, held).await?;
    }
    Ok(Arrived {
        query,
        caller,
        session,
        body: content,
        _bytes: bytes,
    })
}

/// Returns the bound of a request: without a wait, an answer is short.
fn bound(id: RouteId, query: &Query) -> Bound {
    let bound = id.route().bound;
    if bound == Bound::Wait && query.number("wait").unwrap_or(0) == 0 {
        return Bound::Short;
    }
    bound
}

fn too_long<T>(_: Elapsed) -> Answer<T> {
    Err(Fault::new(
        ProblemCode::Timeout,
        "it took too long: whether it was done is not known",
    ))
}

/// Returns the answer to a request that was refused. A token that the API server no longer accepts is forgotten.
fn refused(console: &Console, fault: Fault, token: Option<Digest>, has_session: bool) -> Fault {
    let (Some(token), ProblemCode::Unauthenticated) = (token, fault.0.code) else {
        return fault;
    };
    console.identities.forget(&token);
    if has_session { session_over() } else { fault }
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

/// Reads a body of at most so many bytes, which `held` counts as they arrive.
async fn read_body(
    headers: &HeaderMap,
    body: &mut Unread,
    most: usize,
    held: &mut Held,
) -> Answer<Bytes> {
    expect_json(headers)?;
    let too_large = || {
        Fault::new(
            ProblemCode::TooLarge,
            format!("the body is {most} bytes long at most"),
        )
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > most as u64) {
        return Err(too_large());
    }
    let reading = async {
        let mut content = BytesMut::new();
        let mut data = body.take().into_data_stream();
        while let Some(chunk) = data.next().await {
            let chunk = chunk.map_err(|_| Fault::field("body", "it did not arrive whole"))?;
            if chunk.len() > most - content.len() {
                return Err(too_large());
            }
            held.grow(chunk.len()).map_err(full)?;
            content.extend_from_slice(&chunk);
        }
        Ok(content.freeze())
    };
    timeout(BODY_TIME, reading)
        .await
        .unwrap_or_else(|_| Err(Fault::field("body", "it took too long to arrive")))
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
