use std::collections::BTreeSet;

use super::*;

fn target(namespace: Option<&str>, name: Option<&str>) -> Target {
    Target {
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        capability: None,
    }
}

#[test]
fn every_route_is_listed_once() {
    let listed: Vec<_> = RouteId::ALL
        .map(|id| (id.route().method.as_str(), id.route().path))
        .into();
    let unique: BTreeSet<_> = listed.iter().collect();
    assert_eq!(unique.len(), listed.len());
    let ids: std::collections::HashSet<_> = RouteId::ALL.into_iter().collect();
    assert_eq!(ids.len(), RouteId::ALL.len());
}

#[test]
fn every_permission_is_used_by_a_route_and_has_a_name_of_its_own() {
    let used: BTreeSet<Permission> = RouteId::ALL
        .into_iter()
        .flat_map(|id| {
            let route = id.route();
            route
                .permission()
                .into_iter()
                .chain(route.shows_more.iter().copied())
        })
        .collect();
    assert_eq!(used, Permission::ALL.into_iter().collect());
    let names: BTreeSet<_> = Permission::ALL.map(Permission::as_str).into();
    assert_eq!(names.len(), Permission::ALL.len());
}

#[test]
fn only_what_tells_nothing_is_open_to_anybody() {
    let open: Vec<_> = RouteId::ALL
        .into_iter()
        .filter(|id| id.route().need == Need::Nobody)
        .collect();
    assert_eq!(open, [RouteId::Healthz, RouteId::OpenApi]);
}

#[test]
fn every_change_but_that_of_a_session_takes_a_permission() {
    for id in RouteId::ALL {
        let route = id.route();
        let of_session = matches!(id, RouteId::Login | RouteId::Logout);
        assert!(
            !route.changes() || of_session || route.permission().is_some(),
            "{id:?}"
        );
    }
}

#[test]
fn the_path_says_what_a_request_is_about_where_it_has_an_id() {
    for id in RouteId::ALL {
        let route = id.route();
        assert_eq!(
            route.path.contains("{id}"),
            route.scope == Scope::Path,
            "{id:?}"
        );
    }
}

#[test]
fn an_object_that_is_named_is_asked_for_by_name() {
    let one = Permission::ObservabilityRead.reviews(&target(Some("kitchen"), Some("lamp")));
    assert_eq!(one[0].verb, "get");
    assert_eq!(one[0].name.as_deref(), Some("lamp"));
    let all = Permission::ObservabilityRead.reviews(&target(None, None));
    assert_eq!(
        (all[0].verb, &all[0].name, &all[0].namespace),
        ("list", &None, &None)
    );
}

#[test]
fn to_invoke_takes_the_device_and_the_capability() {
    let target = Target {
        namespace: Some("kitchen".to_owned()),
        name: Some("lamp".to_owned()),
        capability: Some("system.health".to_owned()),
    };
    let asked: Vec<_> = Permission::CapabilityInvoke
        .reviews(&target)
        .into_iter()
        .map(|review| (review.verb, review.resource, review.name))
        .collect();
    assert_eq!(
        asked,
        [
            ("create", "capabilityinvocations", None),
            ("invoke", "devices", Some("lamp".to_owned())),
            ("invoke", "capabilities", Some("system.health".to_owned())),
        ]
    );
}

#[test]
fn a_code_is_revealed_to_who_may_read_its_secret() {
    let reviews = Permission::PairingReveal.reviews(&target(Some("kitchen"), Some("door")));
    assert_eq!(reviews[0].resource, "secrets");
    assert_eq!(reviews[0].name.as_deref(), Some("door-code"));
}

#[test]
fn a_rule_says_what_a_role_would_need() {
    let reviews = Permission::PairingDecide.reviews(&target(Some("kitchen"), Some("preq-1")));
    let rule = reviews[2].rule();
    assert_eq!(rule.resources, ["pairingrequests/status"]);
    assert_eq!(rule.verbs, ["patch"]);
    assert_eq!(rule.resource_names, ["preq-1"]);
    assert_eq!(rule.namespace.as_deref(), Some("kitchen"));
}
