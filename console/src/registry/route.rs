//! Routes: where, what it takes, what it is about, how long it may last.

use console_api::routes;
use http::Method;

use super::Permission;

/// Every route of the console.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RouteId {
    Healthz,
    OpenApi,
    Login,
    Logout,
    Session,
    Access,
    Inventory,
    DeviceDetail,
    Instances,
    Events,
    CodeCreate,
    CodeList,
    CodeGet,
    CodeRevoke,
    CodeMaterial,
    RequestList,
    RequestGet,
    RequestApprove,
    RequestDeny,
    DeviceSuspend,
    DeviceResume,
    DeviceRevoke,
    DeviceRename,
    DeviceGrant,
    DeviceDelete,
    InvocationCreate,
    InvocationList,
    InvocationGet,
    InvocationCancel,
    InvocationArtefact,
}

/// What a route takes of the caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// Nothing: anybody may ask.
    Nobody,
    /// A token that the cluster takes, in the body.
    Token,
    /// To be somebody whom the cluster knows.
    Identity,
    /// A permission, for what the request is about.
    Permission(Permission),
}

/// Where a request says what it is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Nowhere: there is one.
    Nothing,
    /// In the query, `namespace`; without it, all namespaces.
    Query,
    /// In the path, `{id}`.
    Path,
    /// In the body.
    Body,
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bound {
    /// Some seconds.
    Short,
    /// As long as `?wait=` says. Without it, some seconds.
    Wait,
    /// As long as the caller reads, within limits: events.
    Stream,
    /// The same: an artefact.
    Download,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Route {
    pub method: Verb,
    /// With its parameters in braces.
    pub path: &'static str,
    pub need: Need,
    pub scope: Scope,
    pub bound: Bound,
    /// Whether it has a body of JSON.
    pub takes_body: bool,
    /// What would show more. Without it the answer says what it left out.
    pub shows_more: &'static [Permission],
    /// What it does, for people.
    pub summary: &'static str,
}

/// Methods that the console has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verb {
    Get,
    Post,
    Delete,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }

    pub fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
            Self::Delete => Method::DELETE,
        }
    }
}

const READ: Route = Route {
    method: Verb::Get,
    path: "",
    need: Need::Identity,
    scope: Scope::Nothing,
    bound: Bound::Short,
    takes_body: false,
    shows_more: &[],
    summary: "",
};

const fn read(path: &'static str, need: Need, scope: Scope, summary: &'static str) -> Route {
    Route {
        path,
        need,
        scope,
        summary,
        ..READ
    }
}

const fn change(
    path: &'static str,
    permission: Permission,
    scope: Scope,
    summary: &'static str,
) -> Route {
    Route {
        method: Verb::Post,
        path,
        need: Need::Permission(permission),
        scope,
        summary,
        ..READ
    }
}

impl Route {
    const fn with_body(mut self) -> Self {
        self.takes_body = true;
        self
    }

    const fn needs(mut self, need: Need) -> Self {
        self.need = need;
        self
    }

    const fn deletes(mut self) -> Self {
        self.method = Verb::Delete;
        self
    }

    const fn lasts(mut self, bound: Bound) -> Self {
        self.bound = bound;
        self
    }

    const fn shows_more(mut self, permissions: &'static [Permission]) -> Self {
        self.shows_more = permissions;
        self
    }

    /// Whether it changes something: then a session needs its CSRF token.
    pub fn changes(&self) -> bool {
        match self.method {
            Verb::Get => false,
            Verb::Post | Verb::Delete => true,
        }
    }

    pub fn permission(&self) -> Option<Permission> {
        match self.need {
            Need::Permission(permission) => Some(permission),
            Need::Nobody | Need::Token | Need::Identity => None,
        }
    }
}

impl RouteId {
    /// Every route, in the order of the documentation.
    pub const ALL: [Self; 30] = [
        Self::Healthz,
        Self::OpenApi,
        Self::Login,
        Self::Logout,
        Self::Session,
        Self::Access,
        Self::Inventory,
        Self::DeviceDetail,
        Self::Instances,
        Self::Events,
        Self::CodeCreate,
        Self::CodeList,
        Self::CodeGet,
        Self::CodeRevoke,
        Self::CodeMaterial,
        Self::RequestList,
        Self::RequestGet,
        Self::RequestApprove,
        Self::RequestDeny,
        Self::DeviceSuspend,
        Self::DeviceResume,
        Self::DeviceRevoke,
        Self::DeviceRename,
        Self::DeviceGrant,
        Self::DeviceDelete,
        Self::InvocationCreate,
        Self::InvocationList,
        Self::InvocationGet,
        Self::InvocationCancel,
        Self::InvocationArtefact,
    ];

    /// Its row.
    #[expect(clippy::too_many_lines, reason = "it is a table, with a row per route")]
    pub const fn route(self) -> Route {
        use Permission as P;
        use Scope::{Body, Nothing, Path, Query};
        const fn with(permission: Permission) -> Need {
            Need::Permission(permission)
        }
        match self {
            Self::Healthz => read(
                routes::HEALTHZ,
                Need::Nobody,
                Nothing,
                "Whether the console answers",
            ),
            Self::OpenApi => read(routes::OPENAPI, Need::Nobody, Nothing, "This document"),
            Self::Login => change(
                routes::LOGIN,
                P::AccessRead,
                Nothing,
                "Make a session of a token",
            )
            .with_body()
            .needs(Need::Token),
            Self::Logout => change(
                routes::LOGOUT,
                P::AccessRead,
                Nothing,
                "End all sessions of the caller that began before, at every gateway",
            )
            .needs(Need::Identity),
            Self::Session => read(
                routes::SESSION,
                Need::Identity,
                Nothing,
                "Who the caller is",
            ),
            Self::Access => read(
                routes::ACCESS,
                with(P::AccessRead),
                Query,
                "What the caller may do",
            ),
            Self::Inventory => read(
                routes::INVENTORY,
                with(P::ObservabilityRead),
                Query,
                "Devices, those that need attention first, and what waits for a decision",
            )
            .shows_more(&[P::PairingRead]),
            Self::DeviceDetail => read(
                routes::DEVICE_DETAIL,
                with(P::ObservabilityRead),
                Path,
                "All that is known of a device",
            )
            .shows_more(&[P::PairingRead, P::InvocationRead, P::EventsRead]),
            Self::Instances => read(
                routes::INSTANCES,
                with(P::ObservabilityRead),
                Query,
                "What runs Fairlead",
            ),
            Self::Events => read(
                routes::EVENTS,
                with(P::ObservabilityRead),
                Query,
                "What changes, as server-sent events",
            )
            .lasts(Bound::Stream)
            .shows_more(&[P::PairingRead, P::InvocationRead]),
            Self::CodeCreate => {
                change(routes::CODES, P::PairingIssue, Body, "Make a pairing code").with_body()
            }
            Self::CodeList => read(
                routes::CODES,
                with(P::CodesRead),
                Query,
                "Pairing codes, without their secrets",
            ),
            Self::CodeGet => read(
                routes::CODE,
                with(P::CodesRead),
                Path,
                "A pairing code, without its secret",
            ),
            Self::CodeRevoke => change(
                routes::CODE,
                P::PairingRevoke,
                Path,
                "Take a pairing code back",
            )
            .deletes(),
            Self::CodeMaterial => read(
                routes::CODE_MATERIAL,
                with(P::PairingReveal),
                Path,
                "The secret of a pairing code, for the person at the device",
            ),
            Self::RequestList => read(
                routes::REQUESTS,
                with(P::PairingRead),
                Query,
                "Pairing requests",
            ),
            Self::RequestGet => read(
                routes::REQUEST,
                with(P::PairingRead),
                Path,
                "A pairing request, with everything that an approver compares",
            )
            .shows_more(&[P::CodesRead]),
            Self::RequestApprove => change(
                routes::REQUEST_APPROVE,
                P::PairingDecide,
                Path,
                "Approve a pairing request",
            )
            .with_body(),
            Self::RequestDeny => change(
                routes::REQUEST_DENY,
                P::PairingDecide,
                Path,
                "Deny a pairing request",
            )
            .with_body(),
            Self::DeviceSuspend => change(
                routes::DEVICE_SUSPEND,
                P::TrustOperate,
                Path,
                "Cut a device off until it is resumed",
            ),
            Self::DeviceResume => change(
                routes::DEVICE_RESUME,
                P::TrustOperate,
                Path,
                "Let a suspended device back",
            ),
            Self::DeviceRevoke => change(
                routes::DEVICE_REVOKE,
                P::TrustOperate,
                Path,
                "Cut a device off for good",
            ),
            Self::DeviceRename => change(
                routes::DEVICE_RENAME,
                P::TrustOperate,
                Path,
                "Give a device another name for people",
            )
            .with_body(),
            Self::DeviceGrant => change(
                routes::DEVICE_GRANT,
                P::TrustOperate,
                Path,
                "Say what a device may run",
            )
            .with_body(),
            Self::DeviceDelete => {
                change(routes::DEVICE, P::DeviceDelete, Path, "Delete a device").deletes()
            }
            Self::InvocationCreate => change(
                routes::INVOCATIONS,
                P::CapabilityInvoke,
                Body,
                "Run a capability on a device",
            )
            .with_body(),
            Self::InvocationList => read(
                routes::INVOCATIONS,
                with(P::InvocationRead),
                Query,
                "Invocations",
            ),
            Self::InvocationGet => read(
                routes::INVOCATION,
                with(P::InvocationRead),
                Path,
                "An invocation; with wait, once it has ended",
            )
            .lasts(Bound::Wait),
            Self::InvocationCancel => change(
                routes::INVOCATION_CANCEL,
                P::InvocationCancel,
                Path,
                "Ask for an invocation to be stopped",
            ),
            Self::InvocationArtefact => read(
                routes::INVOCATION_ARTEFACT,
                with(P::InvocationRead),
                Path,
                "What an invocation put out, where it was too large for the resource",
            )
            .lasts(Bound::Download),
        }
    }
}
