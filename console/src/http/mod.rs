//! HTTP: the router, the one way that every request goes, and what answers it.
//!
//! - [`pipeline`]: bounds, rates, who, CSRF, rights, in that order, for every route;
//! - [`query`]: the parameters of every route, which the document shows too;
//! - [`call`]: what a handler gets;
//! - [`held`]: an answer that holds its place until its last byte is sent;
//! - [`unread`]: the body of a request that is answered before it was read;
//! - a file per group of routes: what answers.

mod access;
mod artefact;
pub mod call;
mod codes;
mod devices;
mod events;
pub mod held;
mod idempotency;
mod inventory;
mod invocations;
mod meta;
mod pages;
mod pipeline;
pub mod query;
mod requests;
mod session;
mod unread;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, on},
};
use console_api::problem::ProblemCode;

use self::{call::Call, unread::Unread};
use crate::{
    Console,
    guard::{connection::Connection, headers},
    metrics::Outcome,
    problem::{Answer, Fault},
    registry::{RouteId, Verb},
};

/// The connection of a request, in its extensions.
#[derive(Clone, Debug)]
pub struct Remote {
    pub address: SocketAddr,
    pub connection: Arc<Connection>,
}

/// Marks an answer that may last as long as its connection, in its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Lasts;

/// All routes of the table, and nothing else.
pub fn router(console: Arc<Console>) -> Router {
    let mut router = Router::new();
    for id in RouteId::ALL {
        let route = id.route();
        let filter = match route.method {
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
            Verb::Delete => MethodFilter::DELETE,
        };
        let answer = move |State(console): State<Arc<Console>>, request: Request| async move {
            pipeline::answer(console, id, request).await
        };
        router = router.route(route.path, on(filter, answer));
    }
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(axum::middleware::map_response(with_headers))
        .with_state(console)
}

async fn no_route(State(console): State<Arc<Console>>, request: Request) -> Response {
    console.metrics.answered(None, Outcome::Refused);
    discard(request).await;
    Fault::new(
        ProblemCode::NotFound,
        "there is no such route: /openapi.json has all of them",
    )
    .into_response()
}

async fn no_method(State(console): State<Arc<Console>>, request: Request) -> Response {
    console.metrics.answered(None, Outcome::Refused);
    discard(request).await;
    Fault::new(
        ProblemCode::MethodNotAllowed,
        "the route does not have that method: /openapi.json has all of them",
    )
    .into_response()
}

async fn discard(request: Request) {
    let (parts, body) = request.into_parts();
    Unread::new(&parts, body).discard().await;
}

async fn with_headers(mut response: Response) -> Response {
    headers::put(response.headers_mut());
    response
}

/// What answers a route. A new one does not compile until it is here.
async fn handle(call: Call) -> Answer {
    match call.id {
        RouteId::Healthz => Ok(meta::healthz()),
        RouteId::OpenApi => Ok(meta::openapi(&call)),
        RouteId::Login => session::login(call).await,
        RouteId::Logout => session::logout(call).await,
        RouteId::Session => session::show(&call),
        RouteId::Access => access::show(call).await,
        RouteId::Inventory => inventory::page(call).await,
        RouteId::DeviceDetail => inventory::detail(call).await,
        RouteId::Instances => inventory::instances(&call),
        RouteId::Events => events::follow(call).await,
        RouteId::CodeCreate => codes::create(call).await,
        RouteId::CodeList => codes::list(call).await,
        RouteId::CodeGet => codes::get(call).await,
        RouteId::CodeRevoke => codes::revoke(call).await,
        RouteId::CodeMaterial => codes::material(call).await,
        RouteId::RequestList => requests::list(call).await,
        RouteId::RequestGet => requests::get(call).await,
        RouteId::RequestApprove => requests::approve(call).await,
        RouteId::RequestDeny => requests::deny(call).await,
        RouteId::DeviceSuspend => devices::suspend(call).await,
        RouteId::DeviceResume => devices::resume(call).await,
        RouteId::DeviceRevoke => devices::revoke(call).await,
        RouteId::DeviceRename => devices::rename(call).await,
        RouteId::DeviceGrant => devices::grant(call).await,
        RouteId::DeviceDelete => devices::delete(call).await,
        RouteId::InvocationCreate => invocations::create(call).await,
        RouteId::InvocationList => invocations::list(call).await,
        RouteId::InvocationGet => invocations::get(call).await,
        RouteId::InvocationCancel => invocations::cancel(call).await,
        RouteId::InvocationArtefact => artefact::download(call).await,
    }
}

#[cfg(test)]
pub(crate) mod tests;
