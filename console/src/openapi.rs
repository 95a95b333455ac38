//! The OpenAPI document: of the table of routes, the parameters of [`crate::http::query`], and the types of `console_api`.

use std::collections::BTreeMap;

use console_api::{
    access::Access,
    device::{Grant, Rename},
    inventory::{DeviceDetail, DeviceRecord, Instance, Inventory},
    invocation::{Invocation, InvocationPage, NewInvocation},
    pairing::{
        Approve, CodeMaterial, CodePage, CodeRecord, Deny, NewCode, RequestDetail, RequestPage,
    },
    problem::{PROBLEM_JSON, Problem},
    session::{CSRF_HEADER, Login, SESSION_COOKIE, Session},
};
use utoipa::{
    ToSchema,
    openapi::{
        Components, Content, HttpMethod, Info, OpenApi, OpenApiBuilder, PathItem, Paths, Ref,
        RefOr, Required, Response, ResponseBuilder, Schema,
        header::Header,
        path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        schema::{ArrayBuilder, ObjectBuilder, Type},
        security::{
            ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
        },
    },
};

use crate::{
    http::query::{Kind, Param, params},
    registry::{Bound, Need, RouteId, Scope, Verb},
};

/// The version of the API, as the document says it. Paths say `v1`.
const VERSION: &str = "1.0.0";

const BEARER: &str = "bearer";
const SESSION: &str = "session";

/// The document as it is served and committed.
///
/// # Panics
/// Never: a document can be written.
pub fn text() -> String {
    let mut text = document()
        .to_pretty_json()
        .expect("a document can be written");
    text.push('\n');
    text
}

/// The document.
pub fn document() -> OpenApi {
    let mut schemas = Schemas::default();
    let mut paths = Paths::new();
    for id in RouteId::ALL {
        let route = id.route();
        let operation = operation(id, &mut schemas);
        let method = match route.method {
            Verb::Get => HttpMethod::Get,
            Verb::Post => HttpMethod::Post,
            Verb::Delete => HttpMethod::Delete,
        };
        let item = PathItem::new(method, operation);
        match paths.paths.get_mut(route.path) {
            Some(known) => known.merge_operations(item),
            None => {
                paths.paths.insert(route.path.to_owned(), item);
            }
        }
    }
    let mut components = Components::new();
    components.schemas = schemas.0.into_iter().collect();
    components.add_security_scheme(
        BEARER,
        SecurityScheme::Http(
            HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some("A token that the cluster takes: of a ServiceAccount, or of its identity provider."))
                .build(),
        ),
    );
    components.add_security_scheme(
        SESSION,
        SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
            SESSION_COOKIE,
            "Made by logging in. What changes something takes the CSRF token of the session, too, in X-CSRF-Token.",
        ))),
    );
    let mut info = Info::new("Fairlead console", VERSION);
    info.description = Some(
        "Devices, pairing and invocations for programs that do not speak to Kubernetes. Nothing here differs from what \
         Kubernetes shows or allows the same person."
            .to_owned(),
    );
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components))
        .build()
}

/// Schemas by name.
#[derive(Default)]
struct Schemas(BTreeMap<String, RefOr<Schema>>);

impl Schemas {
    /// A reference to a type, which is in the document from then on, with what is in it.
    fn of<T: ToSchema>(&mut self) -> RefOr<Schema> {
        let name = T::name().into_owned();
        if !self.0.contains_key(&name) {
            let mut within = Vec::new();
            T::schemas(&mut within);
            self.0.extend(within);
            self.0.insert(name.clone(), T::schema());
        }
        Ref::from_schema_name(name).into()
    }
}

fn operation(id: RouteId, schemas: &mut Schemas) -> Operation {
    let route = id.route();
    let mut operation = OperationBuilder::new()
        .operation_id(Some(format!("{id:?}")))
        .tag(tag(route.path))
        .summary(Some(route.summary));
    let mut says = Vec::new();
    if let Some(permission) = route.permission() {
        says.push(format!("Takes the permission `{}`.", permission.as_str()));
    }
    if !route.shows_more.is_empty() {
        let more: Vec<_> = route
            .shows_more
            .iter()
            .map(|permission| format!("`{}`", permission.as_str()))
            .collect();
        says.push(format!("Shows more with {}.", more.join(", ")));
    }
    if !says.is_empty() {
        operation = operation.description(Some(says.join(" ")));
    }
    if route.scope == Scope::Path {
        operation = operation.parameter(object_id(schemas));
    }
    for param in params(id) {
        operation = operation.parameter(in_query(param));
    }
    for (name, pattern, describes) in headers(id) {
        operation = operation.parameter(in_header(name, pattern, describes));
    }
    match route.need {
        Need::Nobody | Need::Token => operation = operation.securities(Some([])),
        Need::Identity | Need::Permission(_) => {
            let none: [&str; 0] = [];
            operation = operation
                .security(SecurityRequirement::new(BEARER, none))
                .security(SecurityRequirement::new(SESSION, none));
        }
    }
    if let Some(body) = body(id, schemas) {
        let body = RequestBodyBuilder::new()
            .content("application/json", Content::new(Some(body)))
            .required(Some(Required::True))
            .build();
        operation = operation.request_body(Some(body));
    }
    for (status, response) in answers(id, schemas) {
        operation = operation.response(status, response);
    }
    let problem = Content::new(Some(schemas.of::<Problem>()));
    for (status, describes) in problems(id) {
        let response = ResponseBuilder::new()
            .description(*describes)
            .content(PROBLEM_JSON, problem.clone());
        operation = operation.response(*status, response.build());
    }
    operation.build()
}

/// Groups of routes.
fn tag(path: &str) -> &'static str {
    if path.contains("/auth/") {
        "auth"
    } else if path.contains("/pairing/") {
        "pairing"
    } else if path.contains("/invocations") {
        "invocations"
    } else if path.contains("/inventory") || path.contains("/instances") || path.contains("/events")
    {
        "inventory"
    } else if path.contains("/devices/") {
        "devices"
    } else {
        "meta"
    }
}

fn object_id(schemas: &mut Schemas) -> Parameter {
    ParameterBuilder::new()
        .name("id")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("NAMESPACE.NAME"))
        .schema(Some(schemas.of::<console_api::ObjectId>()))
        .build()
}

fn in_query(param: &Param) -> Parameter {
    ParameterBuilder::new()
        .name(param.name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(param.describes))
        .schema(Some(schema_of(param.kind)))
        .build()
}

fn in_header(name: &str, pattern: &str, describes: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(describes))
        .schema(Some(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some(pattern)),
        ))
        .build()
}

fn schema_of(kind: Kind) -> RefOr<Schema> {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    match kind {
        Kind::Namespace => text()
            .max_length(Some(63))
            .pattern(Some("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")),
        Kind::Name => text().max_length(Some(253)).pattern(Some(
            r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        )),
        Kind::Text(most) => text().min_length(Some(1)).max_length(Some(most)),
        Kind::Number(least, most) => ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(least))
            .maximum(Some(most)),
        Kind::OneOf(values) => text().enum_values(Some(values.iter().copied())),
    }
    .into()
}

/// Headers that a route reads: name, pattern, and what it is.
fn headers(id: RouteId) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut headers = Vec::new();
    let route = id.route();
    if route.changes() && route.need != Need::Token {
        headers.push((CSRF_HEADER, ".*", "With a session: its csrfToken."));
    }
    match id {
        RouteId::CodeCreate | RouteId::InvocationCreate => headers.push((
            "idempotency-key",
            "^[!-~]{1,128}$",
            "1 to 128 printable ASCII characters. A request that is sent again makes no second object.",
        )),
        RouteId::DeviceSuspend
        | RouteId::DeviceResume
        | RouteId::DeviceRevoke
        | RouteId::DeviceRename
        | RouteId::DeviceGrant
        | RouteId::DeviceDelete => headers.push((
            "if-match",
            r#"^("[1-9][0-9]{0,18}"|[1-9][0-9]{0,18})$"#,
            "The resourceVersion that was seen: another one is not changed.",
        )),
        RouteId::Events => headers.push((
            "last-event-id",
            "^[ -~]{1,256}$",
            "The id of the last event that was seen: the stream goes on after it.",
        )),
        RouteId::InvocationArtefact => headers.push((
            "range",
            "^bytes=[0-9]{0,19}-[0-9]{0,19}$",
            "One range of bytes.",
        )),
        RouteId::Healthz
        | RouteId::OpenApi
        | RouteId::Login
        | RouteId::Logout
        | RouteId::Session
        | RouteId::Access
        | RouteId::Inventory
        | RouteId::DeviceDetail
        | RouteId::Instances
        | RouteId::CodeList
        | RouteId::CodeGet
        | RouteId::CodeRevoke
        | RouteId::CodeMaterial
        | RouteId::RequestList
        | RouteId::RequestGet
        | RouteId::RequestApprove
        | RouteId::RequestDeny
        | RouteId::InvocationList
        | RouteId::InvocationGet
        | RouteId::InvocationCancel => {}
    }
    headers
}

fn body(id: RouteId, schemas: &mut Schemas) -> Option<RefOr<Schema>> {
    Some(match id {
        RouteId::Login => schemas.of::<Login>(),
        RouteId::CodeCreate => schemas.of::<NewCode>(),
        RouteId::RequestApprove => schemas.of::<Approve>(),
        RouteId::RequestDeny => schemas.of::<Deny>(),
        RouteId::DeviceRename => schemas.of::<Rename>(),
        RouteId::DeviceGrant => schemas.of::<Grant>(),
        RouteId::InvocationCreate => schemas.of::<NewInvocation>(),
        RouteId::Healthz
        | RouteId::OpenApi
        | RouteId::Logout
        | RouteId::Session
        | RouteId::Access
        | RouteId::Inventory
        | RouteId::DeviceDetail
        | RouteId::Instances
        | RouteId::Events
        | RouteId::CodeList
        | RouteId::CodeGet
        | RouteId::CodeRevoke
        | RouteId::CodeMaterial
        | RouteId::RequestList
        | RouteId::RequestGet
        | RouteId::DeviceSuspend
        | RouteId::DeviceResume
        | RouteId::DeviceRevoke
        | RouteId::DeviceDelete
        | RouteId::InvocationList
        | RouteId::InvocationGet
        | RouteId::InvocationCancel
        | RouteId::InvocationArtefact => return None,
    })
}

fn answers(id: RouteId, schemas: &mut Schemas) -> Vec<(&'static str, Response)> {
    let text = |media_type: &str| {
        let schema = ObjectBuilder::new().schema_type(Type::String);
        said("As it is", media_type, schema.into())
    };
    let json = |schema| said("As it is", "application/json", schema);
    match id {
        RouteId::Healthz => vec![("200", text("text/plain"))],
        RouteId::OpenApi => vec![(
            "200",
            json(ObjectBuilder::new().schema_type(Type::Object).into()),
        )],
        RouteId::Login => {
            let session = json(schemas.of::<Session>());
            vec![("200", with_header(session, "set-cookie", "The session."))]
        }
        RouteId::Logout | RouteId::CodeRevoke | RouteId::DeviceDelete => {
            vec![("204", ResponseBuilder::new().description("Done").build())]
        }
        RouteId::Session => vec![("200", json(schemas.of::<Session>()))],
        RouteId::Access => vec![("200", json(schemas.of::<Access>()))],
        RouteId::Inventory => vec![("200", json(schemas.of::<Inventory>()))],
        RouteId::DeviceDetail => vec![("200", json(schemas.of::<DeviceDetail>()))],
        RouteId::Instances => {
            let items = ArrayBuilder::new().items(schemas.of::<Instance>());
            vec![("200", json(items.into()))]
        }
        RouteId::Events => vec![("200", text("text/event-stream"))],
        RouteId::CodeCreate => made(schemas.of::<CodeRecord>()),
        RouteId::CodeList => vec![("200", json(schemas.of::<CodePage>()))],
        RouteId::CodeGet => vec![("200", json(schemas.of::<CodeRecord>()))],
        RouteId::CodeMaterial => vec![("200", json(schemas.of::<CodeMaterial>()))],
        RouteId::RequestList => vec![("200", json(schemas.of::<RequestPage>()))],
        RouteId::RequestGet | RouteId::RequestApprove | RouteId::RequestDeny => {
            vec![("200", json(schemas.of::<RequestDetail>()))]
        }
        RouteId::DeviceSuspend
        | RouteId::DeviceResume
        | RouteId::DeviceRevoke
        | RouteId::DeviceRename
        | RouteId::DeviceGrant => vec![("200", json(schemas.of::<DeviceRecord>()))],
        RouteId::InvocationCreate => made(schemas.of::<Invocation>()),
        RouteId::InvocationList => vec![("200", json(schemas.of::<InvocationPage>()))],
        RouteId::InvocationGet | RouteId::InvocationCancel => {
            vec![("200", json(schemas.of::<Invocation>()))]
        }
        RouteId::InvocationArtefact => {
            // Any bytes. A part of JSON is none.
            let bytes = |describes: &str| {
                ResponseBuilder::new()
                    .description(describes)
                    .content("*/*", Content::default())
                    .build()
            };
            let (whole, part) = (bytes("The whole"), bytes("The range"));
            vec![
                (
                    "200",
                    with_header(whole, "repr-digest", "SHA-256 of the whole (RFC 9530)."),
                ),
                (
                    "206",
                    with_header(part, "content-range", "Where it is in the whole."),
                ),
                (
                    "304",
                    ResponseBuilder::new()
                        .description("It is the one of If-None-Match")
                        .build(),
                ),
            ]
        }
    }
}

fn made(schema: RefOr<Schema>) -> Vec<(&'static str, Response)> {
    let made = said("Made", "application/json", schema.clone());
    vec![
        ("201", with_header(made, "location", "Where it is.")),
        (
            "200",
            said(
                "Made before, with the same Idempotency-Key",
                "application/json",
                schema,
            ),
        ),
    ]
}

fn said(describes: &str, media_type: &str, schema: RefOr<Schema>) -> Response {
    ResponseBuilder::new()
        .description(describes)
        .content(media_type, Content::new(Some(schema)))
        .build()
}

fn with_header(mut response: Response, name: &str, describes: &str) -> Response {
    let mut header = Header::new(ObjectBuilder::new().schema_type(Type::String));
    header.description = Some(describes.to_owned());
    response.headers.insert(name.to_owned(), header.into());
    response
}

/// What can go wrong, by status.
fn problems(id: RouteId) -> Vec<&'static (&'static str, &'static str)> {
    const INVALID: (&str, &str) = ("400", "The request cannot be read");
    const UNKNOWN: (&str, &str) = ("401", "Nobody, or the session is over");
    const DENIED: (&str, &str) = (
        "403",
        "The caller may not, or a policy refuses it, or another web site asked",
    );
    const MISSING: (&str, &str) = ("404", "There is no such object");
    const CONFLICT: (&str, &str) = ("409", "It has changed, is there already, or has ended");
    const PRECONDITION: (&str, &str) = ("412", "It is not as the caller saw it");
    const LARGE: (&str, &str) = ("413", "Too large");
    const MEDIA_TYPE: (&str, &str) = ("415", "Not JSON");
    const RANGE: (&str, &str) = ("416", "No such range");
    const REFUSED: (&str, &str) = ("422", "The API server does not take the object");
    const OFTEN: (&str, &str) = ("429", "Too often: see Retry-After");
    const FAULT: (&str, &str) = ("500", "A fault of the console");
    const AWAY: (&str, &str) = ("503", "Not now: see Retry-After");
    const LATE: (&str, &str) = ("504", "It took too long");
    let route = id.route();
    let mut problems = vec![&INVALID, &LARGE, &OFTEN, &FAULT, &AWAY];
    let asks = matches!(route.need, Need::Identity | Need::Permission(_));
    if asks || route.need == Need::Token {
        problems.push(&UNKNOWN);
    }
    if route.permission().is_some() || route.changes() {
        problems.push(&DENIED);
    }
    if route.scope == Scope::Path || route.scope == Scope::Body {
        problems.push(&MISSING);
    }
    if route.takes_body {
        problems.push(&MEDIA_TYPE);
    }
    if route.permission().is_some()
        && (route.changes() || route.bound == Bound::Short || route.scope == Scope::Path)
    {
        problems.push(&REFUSED);
        problems.push(&LATE);
    }
    if route.changes() && route.permission().is_some() {
        problems.push(&CONFLICT);
        problems.push(&PRECONDITION);
    }
    if id == RouteId::InvocationArtefact {
        problems.push(&RANGE);
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_every_route_of_the_table_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(&text()).unwrap();
        let mut documented = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                documented.insert((method.to_uppercase(), path.clone()));
            }
        }
        let table: BTreeSet<_> = RouteId::ALL
            .map(|id| {
                (
                    id.route().method.as_str().to_owned(),
                    id.route().path.to_owned(),
                )
            })
            .into();
        assert_eq!(documented, table);
    }

    #[test]
    fn a_body_is_documented_where_one_is_taken() {
        for id in RouteId::ALL {
            assert_eq!(
                body(id, &mut Schemas::default()).is_some(),
                id.route().takes_body,
                "{id:?}"
            );
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document: serde_json::Value = serde_json::from_str(&text()).unwrap();
        let known = document["components"]["schemas"].as_object().unwrap();
        let text = text();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(known.contains_key(name), "{name}");
        }
    }
}
