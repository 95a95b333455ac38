//! The parameters in the query of every route: one table, by which requests are read and the document is written.

use axum::extract::Query as Pairs;
use console_api::{id, inventory::MAX_PAGE, invocation::MAX_WAIT_SECONDS, problem::ProblemCode};
use http::Uri;

use crate::{
    guard::bounds::MAX_QUERY,
    problem::{Answer, Fault},
    registry::RouteId,
};

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    pub name: &'static str,
    pub kind: Kind,
    pub describes: &'static str,
}

/// What a parameter takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Namespace,
    Name,
    /// Up to so many characters.
    Text(usize),
    Number(u32, u32),
    OneOf(&'static [&'static str]),
}

const NAMESPACE: Param = Param {
    name: "namespace",
    kind: Kind::Namespace,
    describes: "Only of this namespace. Who may see one namespace alone must name it.",
};
const LIMIT: Param = Param {
    name: "limit",
    kind: Kind::Number(1, MAX_PAGE),
    describes: "Most entries of the page; 50 where nobody says.",
};
const CURSOR: Param = Param {
    name: "cursor",
    kind: Kind::Text(2048),
    describes: "nextCursor of the page before. The other parameters stay the same from page to page.",
};

const INVENTORY: &[Param] = &[
    NAMESPACE,
    Param {
        name: "trust",
        kind: Kind::OneOf(&["Trusted", "Untrusted", "Revoked"]),
        describes: "Only devices that are trusted so.",
    },
    Param {
        name: "presence",
        kind: Kind::OneOf(&["Degraded", "Stale", "Offline", "Online"]),
        describes: "Only devices that are as present.",
    },
    Param {
        name: "kind",
        kind: Kind::OneOf(&["Node", "Desktop", "Cli"]),
        describes: "Only devices on which such a program runs.",
    },
    Param {
        name: "labels",
        kind: Kind::Text(1024),
        describes: "A Kubernetes label selector: site=paris,tier!=lab,room in (a,b),!retired.",
    },
    Param {
        name: "text",
        kind: Kind::Text(100),
        describes: "Only devices with this in their id, display name or host name, in whatever case.",
    },
    LIMIT,
    CURSOR,
];
const CODES: &[Param] = &[
    NAMESPACE,
    Param {
        name: "phase",
        kind: Kind::OneOf(&["Active", "Used", "Expired", "Locked"]),
        describes: "Only codes in this phase.",
    },
    LIMIT,
    CURSOR,
];
const REQUESTS: &[Param] = &[
    NAMESPACE,
    Param {
        name: "phase",
        kind: Kind::OneOf(&[
            "Pending", "Approved", "Denied", "Issued", "Expired", "Failed",
        ]),
        describes: "Only requests in this phase.",
    },
    LIMIT,
    CURSOR,
];
const INVOCATIONS: &[Param] = &[
    NAMESPACE,
    Param {
        name: "device",
        kind: Kind::Name,
        describes: "Only those of devices of this name; with namespace, of that device.",
    },
    Param {
        name: "capability",
        kind: Kind::Text(63),
        describes: "Only those of this capability.",
    },
    Param {
        name: "phase",
        kind: Kind::OneOf(&[
            "Queued",
            "Dispatched",
            "AwaitingMediation",
            "Succeeded",
            "Failed",
            "Refused",
            "TimedOut",
            "Cancelled",
            "Unknown",
        ]),
        describes: "Only those in this phase.",
    },
    LIMIT,
    CURSOR,
];
const WAIT: &[Param] = &[Param {
    name: "wait",
    kind: Kind::Number(0, MAX_WAIT_SECONDS),
    describes: "Answer once it has ended, or after so many seconds.",
}];

/// What the query of a route may have.
pub fn params(id: RouteId) -> &'static [Param] {
    match id {
        RouteId::Inventory => INVENTORY,
        RouteId::CodeList => CODES,
        RouteId::RequestList => REQUESTS,
        RouteId::InvocationList => INVOCATIONS,
        RouteId::InvocationGet => WAIT,
        RouteId::Access | RouteId::Instances | RouteId::Events => &[NAMESPACE],
        RouteId::Healthz
        | RouteId::OpenApi
        | RouteId::Login
        | RouteId::Logout
        | RouteId::Session
        | RouteId::DeviceDetail
        | RouteId::CodeCreate
        | RouteId::CodeGet
        | RouteId::CodeRevoke
        | RouteId::CodeMaterial
        | RouteId::RequestGet
        | RouteId::RequestApprove
        | RouteId::RequestDeny
        | RouteId::DeviceSuspend
        | RouteId::DeviceResume
        | RouteId::DeviceRevoke
        | RouteId::DeviceRename
        | RouteId::DeviceGrant
        | RouteId::DeviceDelete
        | RouteId::InvocationCreate
        | RouteId::InvocationCancel
        | RouteId::InvocationArtefact => &[],
    }
}

/// The query of a request: only parameters of its route, each once, each such as it takes.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    /// # Errors
    /// For what the route does not take.
    pub fn read(id: RouteId, uri: &Uri) -> Answer<Self> {
        if uri.query().is_some_and(|query| query.len() > MAX_QUERY) {
            return Err(Fault::new(
                ProblemCode::TooLarge,
                format!("the query is {MAX_QUERY} bytes long at most"),
            ));
        }
        let pairs = Pairs::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| Fault::field("query", "it cannot be read: give NAME=VALUE&NAME=VALUE"))?;
        let known = params(id);
        let mut read: Vec<(&'static str, String)> = Vec::new();
        for (name, value) in pairs.0 {
            let Some(param) = known.iter().find(|param| param.name == name) else {
                return Err(unknown(&name, known));
            };
            let field = || format!("query.{}", param.name);
            if read.iter().any(|(name, _)| *name == param.name) {
                return Err(Fault::field(field(), "give it once"));
            }
            param
                .kind
                .check(&value)
                .map_err(|message| Fault::field(field(), message))?;
            read.push((param.name, value));
        }
        Ok(Self(read))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn number(&self, name: &str) -> Option<u32> {
        self.text(name)?.parse().ok()
    }

    /// A value of an enum: it was checked to be one.
    pub fn value<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }
}

fn unknown(name: &str, known: &[Param]) -> Fault {
    let known: Vec<_> = known.iter().map(|param| param.name).collect();
    let name: String = name.chars().take(64).collect();
    let message = if known.is_empty() {
        "this route takes no parameters".to_owned()
    } else {
        format!("this route takes {}", known.join(", "))
    };
    Fault::field(format!("query.{name}"), message)
}

impl Kind {
    fn check(self, value: &str) -> Result<(), String> {
        let fits = match self {
            Self::Namespace => id::is_namespace(value),
            Self::Name => id::is_name(value),
            Self::Text(most) => {
                !value.is_empty()
                    && value.chars().count() <= most
                    && !value.contains(char::is_control)
            }
            Self::Number(least, most) => {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                digits
                    && value
                        .parse()
                        .is_ok_and(|number: u32| (least..=most).contains(&number))
            }
            Self::OneOf(values) => values.contains(&value),
        };
        if fits { Ok(()) } else { Err(self.takes()) }
    }

    fn takes(self) -> String {
        match self {
            Self::Namespace => "give the name of a namespace".to_owned(),
            Self::Name => "give the name of an object".to_owned(),
            Self::Text(most) => format!("give 1 to {most} characters"),
            Self::Number(least, most) => format!("give a number from {least} to {most}"),
            Self::OneOf(values) => format!("give one of {}", values.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use console_api::{
        inventory::{ClientKind, Presence, Trust},
        invocation::Phase,
        pairing::{CodePhase, RequestPhase},
        query::{
            CodesQuery, InventoryQuery, InvocationsQuery, RequestsQuery, ScopeQuery, WaitQuery,
        },
    };

    use super::*;
    use crate::registry::Scope;

    #[expect(clippy::unwrap_in_result, reason = "what is tried is a URI")]
    fn read(id: RouteId, uri: &str) -> Answer<Query> {
        Query::read(id, &uri.parse().unwrap())
    }

    #[test]
    fn what_a_route_takes_is_read() {
        let query = read(
            RouteId::Inventory,
            "/?namespace=kitchen&presence=Offline&limit=7&text=a%20b",
        )
        .unwrap();
        assert_eq!(query.text("namespace"), Some("kitchen"));
        assert_eq!(query.value("presence"), Some(Presence::Offline));
        assert_eq!(query.number("limit"), Some(7));
        assert_eq!(query.text("text"), Some("a b"));
        assert_eq!(query.text("cursor"), None);
    }

    #[test]
    fn what_it_does_not_take_is_named() {
        for (uri, field) in [
            ("/?color=red", "query.color"),
            ("/?limit=0", "query.limit"),
            ("/?limit=201", "query.limit"),
            ("/?limit=+1", "query.limit"),
            ("/?limit=1&limit=1", "query.limit"),
            ("/?presence=Other", "query.presence"),
            ("/?namespace=A", "query.namespace"),
            ("/?text=", "query.text"),
            ("/?text=a%00", "query.text"),
        ] {
            let fault = read(RouteId::Inventory, uri).unwrap_err();
            assert_eq!(fault.0.errors[0].field, field, "{uri}");
            assert_eq!(fault.0.status, 400, "{uri}");
        }
        assert!(read(RouteId::Session, "/?x=1").is_err());
        assert_eq!(
            read(RouteId::Inventory, &format!("/?text={}", "a".repeat(5000)))
                .unwrap_err()
                .0
                .status,
            413
        );
    }

    /// Of a query with nothing left out.
    fn names(query: impl serde::Serialize) -> Vec<String> {
        let Ok(serde_json::Value::Object(written)) = serde_json::to_value(query) else {
            unreachable!("a query is a struct")
        };
        written.keys().cloned().collect()
    }

    #[test]
    fn what_clients_write_is_what_the_routes_take() {
        let text = || Some("a".to_owned());
        let inventory = InventoryQuery {
            namespace: text(),
            trust: Some(Trust::Trusted),
            presence: Some(Presence::Online),
            client_kind: Some(ClientKind::Node),
            labels: text(),
            text: text(),
            limit: Some(1),
            cursor: text(),
        };
        let codes = CodesQuery {
            namespace: text(),
            phase: Some(CodePhase::Active),
            limit: Some(1),
            cursor: text(),
        };
        let requests = RequestsQuery {
            namespace: text(),
            phase: Some(RequestPhase::Pending),
            limit: Some(1),
            cursor: text(),
        };
        let invocations = InvocationsQuery {
            namespace: text(),
            device: text(),
            capability: text(),
            phase: Some(Phase::Queued),
            limit: Some(1),
            cursor: text(),
        };
        let scope = || names(ScopeQuery { namespace: text() });
        for (id, mut written) in [
            (RouteId::Inventory, names(inventory)),
            (RouteId::CodeList, names(codes)),
            (RouteId::RequestList, names(requests)),
            (RouteId::InvocationList, names(invocations)),
            (RouteId::InvocationGet, names(WaitQuery { wait: Some(1) })),
            (RouteId::Events, scope()),
            (RouteId::Instances, scope()),
            (RouteId::Access, scope()),
        ] {
            let mut taken: Vec<_> = params(id).iter().map(|param| param.name).collect();
            taken.sort_unstable();
            written.sort_unstable();
            assert_eq!(written, taken, "{id:?}");
        }
    }

    #[test]
    fn the_words_of_a_parameter_are_those_of_the_api() {
        fn all<T: Copy>(values: &[T], text: fn(T) -> &'static str) -> Vec<&'static str> {
            values.iter().map(|value| text(*value)).collect()
        }
        let words = |id: RouteId, name: &str| {
            let param = params(id).iter().find(|param| param.name == name).unwrap();
            let Kind::OneOf(values) = param.kind else {
                panic!("{name} is no word")
            };
            values.to_vec()
        };
        assert_eq!(
            words(RouteId::Inventory, "trust"),
            all(Trust::ALL, Trust::as_str)
        );
        assert_eq!(
            words(RouteId::Inventory, "presence"),
            all(Presence::ALL, Presence::as_str)
        );
        assert_eq!(
            words(RouteId::Inventory, "kind"),
            all(ClientKind::ALL, ClientKind::as_str)
        );
        assert_eq!(
            words(RouteId::CodeList, "phase"),
            all(CodePhase::ALL, CodePhase::as_str)
        );
        assert_eq!(
            words(RouteId::RequestList, "phase"),
            all(RequestPhase::ALL, RequestPhase::as_str)
        );
        assert_eq!(
            words(RouteId::InvocationList, "phase"),
            all(Phase::ALL, Phase::as_str)
        );
    }

    #[test]
    fn a_route_that_is_about_a_namespace_takes_it() {
        for id in RouteId::ALL {
            let takes = params(id).iter().any(|param| param.name == "namespace");
            assert_eq!(takes, id.route().scope == Scope::Query, "{id:?}");
        }
    }
}
