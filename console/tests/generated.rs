//! `openapi.json` and `docs/access-registry.md` are what the code says. `UPDATE_GENERATED=1 cargo test -p console` rewrites
//! them.

use std::{fmt::Write as _, fs, path::Path};

use console::{
    openapi,
    registry::{Need, Permission, Review, RouteId, Scope, Target},
};

fn check(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, text).expect("the file can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "{file} is stale: run `UPDATE_GENERATED=1 cargo test -p console` and commit what it wrote"
    );
}

#[test]
fn the_committed_document_is_that_of_the_code() {
    check("openapi.json", &openapi::text());
}

#[test]
fn the_page_on_access_is_that_of_the_table() {
    check("../docs/access-registry.md", &page());
}

fn page() -> String {
    let mut page = String::from(
        "<!-- Generated from the table in console/src/registry: UPDATE_GENERATED=1 cargo test -p console -->\n\
         # Who may do what in the console\n\n\
         Every route of the console takes a permission, and every permission is made of questions to the API server's own\n\
         authorizer about the caller. All of them must be answered with yes. There is nothing else: the console has no roles\n\
         and lends no rights. `GET /console/v1/access` answers with the same table, and whether the caller has each.\n\n\
         ## Permissions\n\
         Where a request is about one object, it is asked about that object, so a rule with `resourceNames` is enough; where\n\
         it is about a namespace, a RoleBinding there is enough; where it names none, it takes a ClusterRoleBinding.\n\n\
         | Permission | Lets one | Kubernetes is asked for |\n|---|---|---|\n",
    );
    for permission in Permission::ALL {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} |",
            permission.as_str(),
            permission.describes(),
            questions(permission)
        );
    }
    page.push_str(
        "\n## Routes\n\
         | Route | Does | Takes | About | Shows more with |\n|---|---|---|---|---|\n",
    );
    for id in RouteId::ALL {
        let route = id.route();
        let takes = match route.need {
            Need::Nobody => "nothing".to_owned(),
            Need::Token => "a token, in the body".to_owned(),
            Need::Identity => "a token or a session".to_owned(),
            Need::Permission(permission) => format!("`{}`", permission.as_str()),
        };
        let about = match route.scope {
            Scope::Nothing => "",
            Scope::Query => "`?namespace=`, or all",
            Scope::Path => "the object in the path",
            Scope::Body => "what the body names",
        };
        let more: Vec<_> = route
            .shows_more
            .iter()
            .map(|permission| format!("`{}`", permission.as_str()))
            .collect();
        let _ = writeln!(
            page,
            "| `{} {}` | {} | {takes} | {about} | {} |",
            route.method.as_str(),
            route.path,
            route.summary,
            more.join(", ")
        );
    }
    page
}

fn questions(permission: Permission) -> String {
    let target = |name: Option<&str>| Target {
        namespace: Some("n".to_owned()),
        name: name.map(str::to_owned),
        capability: None,
    };
    let said = |reviews: Vec<Review>| {
        let said: Vec<_> = reviews.iter().map(one).collect();
        said.join(" and ")
    };
    let (all, named) = (
        said(permission.reviews(&target(None))),
        said(permission.reviews(&target(Some("NAME")))),
    );
    if all == named {
        all
    } else {
        format!("{all}; for one object {named}")
    }
}

fn one(review: &Review) -> String {
    let resource = match review.group {
        "" => review.resource_path(),
        group => format!("{}.{group}", review.resource_path()),
    };
    format!("`{} {resource}`", review.verb)
}
