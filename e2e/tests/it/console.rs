//! The console on real gateways, with the real authorizer of the API server: who is let in, and what people do there.
//!
//! The table of routes drives the refusals, so a new route is covered by being in it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use client::api::ObjectId;
use client::api::event::ConsoleEvent;
use client::api::inventory::Presence;
use client::api::invocation::{NewInvocation, Phase};
use client::api::pairing::{Approve, NewCode, RequestPhase};
use client::api::problem::{Problem, ProblemCode};
use client::api::query::{InventoryQuery, RequestsQuery, ScopeQuery};
use client::api::session::CSRF_HEADER;
use client::{Authentication, ControlPlaneClient, Credentials, Roots, Waited};
use console::caller::Token;
use console::registry::{Need, RouteId, Scope};
use console::session::logouts::Logouts;
use console::session::{SessionId, life};
use crds::names::CONSOLE_LOGOUTS;
use e2e::cluster::service_account_token;
use e2e::install::SYSTEM_NAMESPACE;
use e2e::stack::{Agent, Stack};
use e2e::wait::{now, until};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Api;
use kube::api::PostParams;
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::{Fixture, Scene};

const SOON: Duration = Duration::from_secs(30);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial(
            "console::a_person_without_kubectl_pairs_sees_and_commands_a_device",
            whole_way,
        ),
        fixture.trial(
            "console::every_route_refuses_whoever_lacks_its_permission",
            refusals,
        ),
        fixture.trial(
            "console::a_session_holds_at_every_gateway_and_so_does_its_end",
            sessions,
        ),
        fixture.trial(
            "console::ten_thousand_logouts_of_one_user_do_not_make_the_logout_of_another_fail_or_grow",
            logouts,
        ),
    ]
}

/// The consoles of all gateways, and the certificate that they have.
pub async fn consoles(scene: &Scene) -> anyhow::Result<(Vec<String>, Vec<u8>)> {
    let mut stack = scene.stack().await?;
    let ca = stack.as_ref().context("there is no stack")?.console_ca()?;
    let gateways = stack.as_mut().map(Stack::gateways).unwrap_or_default();
    let urls = gateways
        .iter()
        .map(|gateway| format!("https://{}", gateway.console()))
        .collect();
    Ok((urls, ca))
}

/// A token of a new account of the trial's namespace, with these roles there.
pub async fn token(scene: &Scene, account: &str, roles: &[&str]) -> anyhow::Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let made = serde_json::from_value(json!({ "metadata": { "name": account } }))?;
    accounts.create(&PostParams::default(), &made).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(scene.client.clone(), &scene.namespace);
    for role in roles {
        let binding = serde_json::from_value(json!({
            "metadata": { "name": format!("{account}-{role}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": scene.namespace }],
        }))?;
        bindings.create(&PostParams::default(), &binding).await?;
    }
    service_account_token(&scene.client, &scene.namespace, account, 3600).await
}

/// Lets an account read the Secrets of the namespace: the codes are among them.
pub async fn may_reveal(scene: &Scene, account: &str) -> anyhow::Result<()> {
    let roles: Api<Role> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let role = serde_json::from_value(json!({
        "metadata": { "name": "reveal" },
        "rules": [{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }],
    }))?;
    roles.create(&PostParams::default(), &role).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let binding = serde_json::from_value(json!({
        "metadata": { "name": "reveal" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reveal" },
        "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": scene.namespace }],
    }))?;
    bindings.create(&PostParams::default(), &binding).await?;
    Ok(())
}

fn a_client(
    url: &str,
    ca: &[u8],
    token: &str,
    authentication: Authentication,
) -> anyhow::Result<ControlPlaneClient> {
    Ok(ControlPlaneClient::builder(url)
        .roots(Roots::Only(ca.to_owned()))
        .credentials(Credentials::token(token)?)
        .authentication(authentication)
        .build()?)
}

/// Every right that a role of ours gives.
pub const EVERYTHING: [&str; 4] = [
    "fairlead-viewer",
    "fairlead-pairing-approver",
    "fairlead-invoker",
    "fairlead-device-administrator",
];

/// One person at two consoles.
struct Desk {
    scene: Scene,
    client: ControlPlaneClient,
    elsewhere: ControlPlaneClient,
}

async fn whole_way(scene: Scene) -> anyhow::Result<()> {
    let (urls, ca) = consoles(&scene).await?;
    let token = token(&scene, "ada", &EVERYTHING).await?;
    may_reveal(&scene, "ada").await?;
    let [one, other] = urls.as_slice() else {
        bail!("not two gateways: {urls:?}")
    };
    let desk = Desk {
        client: a_client(one, &ca, &token, Authentication::Session)?,
        elsewhere: a_client(other, &ca, &token, Authentication::Token)?,
        scene,
    };
    // The keys of sessions come a moment after the gateway.
    until("logins are taken", SOON, async || {
        desk.client.whoami().await?;
        Ok(Some(()))
    })
    .await?;
    let mut agent = desk.scene.agent("kiosk").await?;
    pairs(&desk, &agent).await?;
    agent.run()?;
    let device = is_there(&desk).await?;
    is_commanded(&desk, &device).await
}

/// A code is made and shown; the device asks; the approver sees what it says and decides on just that.
async fn pairs(desk: &Desk, agent: &Agent) -> anyhow::Result<()> {
    let Desk {
        scene,
        client,
        elsewhere,
    } = desk;
    let code = client
        .create_code(&NewCode {
            namespace: scene.namespace.clone(),
            ..NewCode::default()
        })
        .await?;
    let material = client.wait_for_code(&code.id, SOON).await?;
    let mut pairing = agent.pair(&material.uri, None)?;
    let requests = RequestsQuery {
        namespace: Some(scene.namespace.clone()),
        ..RequestsQuery::default()
    };
    let request = until("the request is seen", SOON, async || {
        let page = elsewhere.requests(&requests).await?;
        Ok(page.requests.into_iter().next())
    })
    .await?;
    let detail = elsewhere.request(&request.id).await?;
    ensure!(detail.request.phase == RequestPhase::Pending, "{detail:?}");
    ensure!(detail.key_words.len() >= 6, "{detail:?}");
    let approve = |spec_digest: String| Approve {
        spec_digest,
        device_name: None,
        grants: None,
        reason: None,
    };
    let refused = client
        .approve(&request.id, &approve("0".repeat(64)))
        .await
        .err()
        .context("an approval of something else is taken")?;
    ensure!(
        refused.code() == Some(ProblemCode::PreconditionFailed),
        "{refused:?}"
    );
    client
        .approve(&request.id, &approve(detail.spec_digest))
        .await?;
    pairing.paired(SOON).await
}

/// It is in the inventory of either gateway.
async fn is_there(desk: &Desk) -> anyhow::Result<ObjectId> {
    let Desk {
        scene,
        client,
        elsewhere,
    } = desk;
    let query = InventoryQuery {
        namespace: Some(scene.namespace.clone()),
        ..InventoryQuery::default()
    };
    until("the device is online at both consoles", SOON, async || {
        let (first, second) = (
            client.inventory(&query).await?,
            elsewhere.inventory(&query).await?,
        );
        let online = |inventory: &client::api::inventory::Inventory| {
            inventory
                .devices
                .iter()
                .find(|device| device.presence == Some(Presence::Online))
                .map(|device| device.id.clone())
        };
        Ok(online(&first).filter(|id| online(&second).as_ref() == Some(id)))
    })
    .await
}

/// At one gateway, and who follows at the other hears of it.
async fn is_commanded(desk: &Desk, device: &ObjectId) -> anyhow::Result<()> {
    let Desk {
        scene,
        client,
        elsewhere,
    } = desk;
    let here = ScopeQuery {
        namespace: Some(scene.namespace.clone()),
    };
    let mut events = elsewhere.events(&here);
    let first = tokio::time::timeout(SOON, events.next())
        .await
        .context("no stream of events begins")?
        .context("the events end")??;
    ensure!(first.event == ConsoleEvent::Hello, "{first:?}");
    let made = client
        .invoke(&NewInvocation {
            device: device.clone(),
            capability: "echo".to_owned(),
            input: Some(json!({ "a": null })),
            timeout_seconds: Some(20),
            when_offline: None,
            queue_seconds: None,
            idempotency_key: None,
            max_output_bytes: None,
            ttl_seconds_after_finished: None,
        })
        .await?;
    let Waited::Ended(ended) = elsewhere.wait(&made.summary.id, SOON).await? else {
        bail!("it does not end")
    };
    ensure!(ended.summary.phase == Phase::Succeeded, "{ended:?}");
    ensure!(ended.output == Some(json!({ "a": null })), "{ended:?}");
    let by = ended.summary.requested_by.clone().unwrap_or_default();
    ensure!(
        by == format!("system:serviceaccount:{}:ada", scene.namespace),
        "done in the name of {by}"
    );
    let told = async {
        while let Some(received) = events.next().await {
            if let ConsoleEvent::InvocationChanged(changed) = received?.event
                && changed.id == made.summary.id
                && changed.phase == Phase::Succeeded
            {
                return anyhow::Ok(());
            }
        }
        bail!("the events ended")
    };
    tokio::time::timeout(SOON, told)
        .await
        .context("nobody tells of the end")??;

    // What can be done with it, and its past, are with it.
    let detail = client.device(device).await?;
    ensure!(
        detail
            .recent_invocations
            .iter()
            .any(|invocation| invocation.id == made.summary.id),
        "{detail:?}"
    );
    ensure!(
        detail
            .actions
            .iter()
            .any(|action| action.action == "suspend" && action.allowed),
        "{:?}",
        detail.actions
    );
    let suspended = client.suspend(device, None).await?;
    ensure!(suspended.id == *device, "{suspended:?}");
    Ok(())
}

/// A request to a route about something of that namespace, as the table says.
fn request(
    http: &reqwest::Client,
    url: &str,
    id: RouteId,
    namespace: &str,
) -> reqwest::RequestBuilder {
    let route = id.route();
    let path = route.path.replace("{id}", &format!("{namespace}.thing"));
    let query = match route.scope {
        Scope::Query => format!("?namespace={namespace}"),
        Scope::Nothing | Scope::Path | Scope::Body => String::new(),
    };
    let request = http.request(route.method.method(), format!("{url}{path}{query}"));
    if route.takes_body {
        request.json(&body(id, namespace))
    } else {
        request
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a route that takes another body is refused for it, and the trial says which"
)]
fn body(id: RouteId, namespace: &str) -> serde_json::Value {
    match id {
        RouteId::CodeCreate => json!({ "namespace": namespace }),
        RouteId::RequestApprove => json!({ "specDigest": "0".repeat(64) }),
        RouteId::RequestDeny => json!({ "reason": "no" }),
        RouteId::DeviceRename => json!({ "displayName": "Lamp" }),
        RouteId::DeviceGrant => json!({ "capabilities": ["echo"] }),
        RouteId::InvocationCreate => {
            json!({ "device": format!("{namespace}.thing"), "capability": "echo" })
        }
        _ => json!({ "token": "nobody's" }),
    }
}

/// HTTP with what is trusted, and nothing that the client would do by itself.
pub fn web(ca: &[u8]) -> anyhow::Result<reqwest::Client> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(ca) {
        roots.add(certificate?)?;
    }
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .build()?)
}

fn certificates(
    pem: &[u8],
) -> impl Iterator<
    Item = Result<rustls::pki_types::CertificateDer<'static>, rustls::pki_types::pem::Error>,
> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::pem_slice_iter(pem)
}

/// The envelope of an answer that says no.
pub async fn problem(response: reqwest::Response) -> anyhow::Result<Problem> {
    let status = response.status();
    let text = response.text().await?;
    serde_json::from_str(&text).with_context(|| format!("{status}: {text}"))
}

async fn refusals(scene: Scene) -> anyhow::Result<()> {
    let (urls, ca) = consoles(&scene).await?;
    let url = urls.first().context("there is no gateway")?;
    let http = web(&ca)?;
    let nobody = token(&scene, "nobody", &[]).await?;
    let somebody = token(&scene, "somebody", &EVERYTHING).await?;
    for id in RouteId::ALL {
        let Need::Permission(permission) = id.route().need else {
            continue;
        };
        let ask = || request(&http, url, id, &scene.namespace);
        let refused = problem(ask().send().await?).await?;
        ensure!(
            refused.code == ProblemCode::Unauthenticated,
            "{id:?} without credentials: {refused:?}"
        );
        let refused = problem(ask().bearer_auth("made-up").send().await?).await?;
        ensure!(
            refused.code == ProblemCode::Unauthenticated,
            "{id:?} with a token that is none: {refused:?}"
        );
        // What everybody has cannot be lacked.
        if permission.as_str() != "access.read" {
            let refused = problem(ask().bearer_auth(&nobody).send().await?).await?;
            ensure!(
                refused.code == ProblemCode::Forbidden && refused.rule.is_some(),
                "{id:?} without the right: {refused:?}"
            );
            ensure!(
                refused.permission.as_deref() == Some(permission.as_str()),
                "{id:?} without the right: {refused:?}"
            );
            // Rights are those of one namespace.
            let elsewhere = request(&http, url, id, "kube-public").bearer_auth(&somebody);
            let refused = problem(elsewhere.send().await?).await?;
            ensure!(
                refused.code == ProblemCode::Forbidden,
                "{id:?} in another namespace: {refused:?}"
            );
        }
        // With the right it is done, or there is no such thing; the one Secret is not anybody's with these roles.
        let response = ask().bearer_auth(&somebody).send().await?;
        if permission.as_str() != "pairing.reveal" && !response.status().is_success() {
            let other = problem(response).await?;
            ensure!(
                other.code == ProblemCode::NotFound || other.code == ProblemCode::Invalid,
                "{id:?} with the right: {other:?}"
            );
        }
    }
    Ok(())
}

/// Logs in at a gateway. The keys that seal sessions come a moment after the gateway.
async fn logged_in(
    http: &reqwest::Client,
    gateway: &str,
    token: &str,
) -> anyhow::Result<reqwest::Response> {
    until("logins are taken", SOON, async || {
        let answer = http
            .post(format!("{gateway}/console/v1/auth/login"))
            .json(&json!({ "token": token }))
            .send()
            .await?;
        Ok(answer.status().is_success().then_some(answer))
    })
    .await
}

async fn sessions(scene: Scene) -> anyhow::Result<()> {
    let (urls, ca) = consoles(&scene).await?;
    let [one, other] = urls.as_slice() else {
        bail!("not two gateways: {urls:?}")
    };
    let http = web(&ca)?;
    let token = token(&scene, "eve", &["fairlead-viewer"]).await?;
    let login = logged_in(&http, one, &token).await?;
    let cookie = login
        .headers()
        .get("set-cookie")
        .and_then(|value| value.to_str().ok())
        .context("no cookie came")?
        .to_owned();
    for attribute in ["__Host-", "HttpOnly", "Secure", "SameSite=Strict", "Path=/"] {
        ensure!(cookie.contains(attribute), "the cookie lacks {attribute}");
    }
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    let session: serde_json::Value = login.json().await?;
    let csrf = session["csrfToken"]
        .as_str()
        .context("no CSRF token came")?;
    let who = |url: &str| {
        http.get(format!("{url}/console/v1/auth/session"))
            .header("cookie", &cookie)
            .send()
    };
    for url in [one, other] {
        let answer = who(url).await?;
        ensure!(answer.status().is_success(), "{url}: {}", answer.status());
    }
    // What changes something takes the token that another site cannot know.
    let logout = |csrf: Option<&str>| {
        let request = http
            .post(format!("{one}/console/v1/auth/logout"))
            .header("cookie", &cookie);
        match csrf {
            Some(csrf) => request.header(CSRF_HEADER, csrf),
            None => request,
        }
        .send()
    };
    let refused = problem(logout(None).await?).await?;
    ensure!(refused.code == ProblemCode::InvalidCsrf, "{refused:?}");
    let refused = problem(logout(Some("guessed")).await?).await?;
    ensure!(refused.code == ProblemCode::InvalidCsrf, "{refused:?}");
    let guarded = || {
        RouteId::ALL
            .into_iter()
            .filter(|id| matches!(id.route().need, Need::Permission(_)))
    };
    for id in guarded().filter(|id| id.route().method.method() != http::Method::GET) {
        let ask = request(&http, one, id, &scene.namespace)
            .header("cookie", &cookie)
            .header(CSRF_HEADER, "guessed");
        let refused = problem(ask.send().await?).await?;
        ensure!(
            refused.code == ProblemCode::InvalidCsrf,
            "{id:?} with a wrong token: {refused:?}"
        );
    }
    let ended = logout(Some(csrf)).await?;
    ensure!(ended.status().is_success(), "{}", ended.status());
    // A copy of the cookie is dead, here and there.
    for url in [one, other] {
        until("the session is over everywhere", SOON, async || {
            let answer = who(url).await?;
            Ok((answer.status() == reqwest::StatusCode::UNAUTHORIZED).then_some(()))
        })
        .await?;
        for id in guarded() {
            let ask = request(&http, url, id, &scene.namespace)
                .header("cookie", &cookie)
                .header(CSRF_HEADER, csrf);
            let refused = problem(ask.send().await?).await?;
            ensure!(
                refused.code == ProblemCode::SessionExpired,
                "{id:?} with a session that is over: {refused:?}"
            );
        }
    }
    Ok(())
}

/// Size of what is recorded of logouts.
#[derive(Debug)]
struct Recorded {
    /// In all ConfigMaps.
    marks: usize,
    /// Of the largest ConfigMap.
    metadata_bytes: usize,
}

async fn recorded(scene: &Scene) -> anyhow::Result<Recorded> {
    let maps: Api<ConfigMap> = Api::namespaced(scene.client.clone(), SYSTEM_NAMESPACE);
    let mut recorded = Recorded {
        marks: 0,
        metadata_bytes: 0,
    };
    for name in CONSOLE_LOGOUTS {
        let map = maps.get(name).await?;
        let bytes = serde_json::to_vec(&map.metadata)?.len();
        recorded.metadata_bytes = recorded.metadata_bytes.max(bytes);
        recorded.marks += map.data.map_or(0, |data| data.len());
    }
    Ok(recorded)
}

/// Logs out at the API server itself, as a gateway does, and then over HTTP.
async fn logouts(scene: Scene) -> anyhow::Result<()> {
    const LOGOUTS: i64 = 10_001;
    let (urls, ca) = consoles(&scene).await?;
    let [one, other] = urls.as_slice() else {
        bail!("not two gateways: {urls:?}")
    };
    let http = web(&ca)?;
    let token = token(&scene, "ada", &["fairlead-viewer"]).await?;
    let login = logged_in(&http, one, &token).await?;
    let cookie = login
        .headers()
        .get("set-cookie")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .context("no cookie came")?
        .to_owned();
    let session: serde_json::Value = login.json().await?;
    let csrf = session["csrfToken"]
        .as_str()
        .context("no CSRF token came")?;

    // Users of one namespace have their marks in one ConfigMap.
    let flood = format!("system:serviceaccount:{}:flood", scene.namespace);
    let logouts = Logouts::new(&scene.client, SYSTEM_NAMESPACE);
    let begun = now();
    let end = async |number: i64| {
        let token = Token::new("not-used")?;
        let mut session =
            life::begin(SessionId::random(), token, begun, None).context("begin a session")?;
        session.issued_at = begun + SignedDuration::from_millis(61_000 + number);
        logouts.end(&flood, &session, begun).await?;
        anyhow::Ok(())
    };
    end(0).await?;
    let before = recorded(&scene).await?;
    futures::stream::iter(1..LOGOUTS)
        .map(end)
        .buffer_unordered(32)
        .try_collect::<()>()
        .await?;
    let after = recorded(&scene).await?;
    // Other trials log out, too, a few times each.
    ensure!(after.marks < before.marks + 50, "{before:?} {after:?}");
    // This, and no more, is in the answer to a write.
    ensure!(after.metadata_bytes < 2048, "{before:?} {after:?}");

    let ended = http
        .post(format!("{one}/console/v1/auth/logout"))
        .header("cookie", &cookie)
        .header(CSRF_HEADER, csrf)
        .send()
        .await?;
    ensure!(ended.status().is_success(), "{}", ended.status());
    for url in [one, other] {
        until("the session is over everywhere", SOON, async || {
            let answer = http
                .get(format!("{url}/console/v1/auth/session"))
                .header("cookie", &cookie)
                .send()
                .await?;
            Ok((answer.status() == reqwest::StatusCode::UNAUTHORIZED).then_some(()))
        })
        .await?;
    }
    Ok(())
}
