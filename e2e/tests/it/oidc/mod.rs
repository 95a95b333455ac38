//! People of an identity provider at the console: a real API server that is told of one by the very configuration that
//! docs/console.md shows, and a small provider.

mod issuer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use client::api::invocation::Invocation;
use client::api::problem::ProblemCode;
use client::api::session::{CSRF_HEADER, Session};
use e2e::cluster::Cluster;
use e2e::controlplane::{Binaries, ControlPlane};
use e2e::install::install;
use e2e::stack::Stack;
use e2e::wait::{now, until};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::PostParams;
use kube::{Api, Client};
use libtest_mimic::Trial;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::console::{problem, web};
use crate::fixture::{Fixture, Scene};
use issuer::{Issuer, Key};

const SOON: Duration = Duration::from_secs(30);
/// A control plane is booted, and a token waited for until it ends.
const WITHIN: Duration = Duration::from_mins(3);
const NAMESPACE: &str = "kitchen";
/// Of docs/console.md, as the provider knows them.
const COOKS: &str = "cooks";
const STEWARDS: &str = "stewards";

/// A control plane of their own, which is a lot beside others: alone, and last.
pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![fixture.trial_within(
        WITHIN,
        "oidc::people_of_an_identity_provider_are_who_it_says_and_may_what_roles_say_of_their_groups",
        people,
    )]
}

/// A console whose API server knows a provider.
struct Desk {
    http: reqwest::Client,
    url: String,
    issuer: Issuer,
    /// The configuration of the API server.
    configuration: Value,
}

async fn people(scene: Scene) -> anyhow::Result<()> {
    let issuer = Issuer::start().await?;
    let configuration = configuration(&issuer)?;
    let file = scene.folder.join("authentication.yaml");
    e2e::private::write(&file, serde_saphyr::to_string(&configuration)?.as_bytes())?;
    let flag = format!("--authentication-config={}", file.display());
    let binaries = Binaries::find()?;
    let plane = ControlPlane::start_with(&binaries, &scene.folder.join("own"), &[&flag]).await?;
    let client = plane.client();
    install(&client).await?;
    let programs = scene.fixture.programs();
    let mut stack = Stack::start(plane.cluster(), programs, &scene.folder.join("stack"), 1).await?;
    let trusted = stack.console_ca()?;
    let gateway = stack.gateways().first().context("there is no gateway")?;
    let desk = Desk {
        http: web(&trusted)?,
        url: format!("https://{}", gateway.console()),
        issuer,
        configuration,
    };

    roles(&desk, &client).await?;
    is_known(&desk).await?;
    may_what_roles_say(&desk).await?;
    changes_in_their_own_name(&desk, &client).await?;
    is_nobody(&desk).await?;
    accounts_go_on(&desk, plane.cluster(), &scene.folder).await?;
    ends_with_the_token(&desk).await?;
    let stopped = stack.stop().await;
    stopped.and(plane.stop().await)
}

/// The one of docs/console.md, with where this provider is.
fn configuration(issuer: &Issuer) -> anyhow::Result<Value> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/console.md");
    let page = std::fs::read_to_string(page).context("read docs/console.md")?;
    let shown = page
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .find(|block| block.contains("kind: AuthenticationConfiguration"))
        .context("docs/console.md shows no AuthenticationConfiguration any more")?;
    let mut configuration: Value = serde_saphyr::from_str(shown)?;
    let place = configuration
        .pointer_mut("/jwt/0/issuer")
        .context("the configuration names no issuer")?;
    for key in ["url", "certificateAuthority"] {
        ensure!(place[key].is_string(), "the issuer has no {key}");
    }
    place["url"] = issuer.url().into();
    place["certificateAuthority"] = issuer.authority().into();
    Ok(configuration)
}

impl Desk {
    fn configured(&self, pointer: &str) -> anyhow::Result<&str> {
        self.configuration
            .pointer(pointer)
            .and_then(Value::as_str)
            .with_context(|| format!("the configuration has no {pointer}"))
    }

    /// A user of the provider, as the cluster calls them.
    fn user(&self, name: &str) -> anyhow::Result<String> {
        Ok(self
            .configured("/jwt/0/claimMappings/username/prefix")?
            .to_owned()
            + name)
    }

    /// A group of the provider, as the cluster calls it.
    fn group(&self, name: &str) -> anyhow::Result<String> {
        Ok(self
            .configured("/jwt/0/claimMappings/groups/prefix")?
            .to_owned()
            + name)
    }

    /// What the provider says of somebody, good for as long.
    fn claims(&self, person: &str, groups: &[&str], life: SignedDuration) -> anyhow::Result<Value> {
        let now = now();
        let mut claims = json!({
            "iss": self.issuer.url(),
            "aud": self.configured("/jwt/0/issuer/audiences/0")?,
            "iat": (now - SignedDuration::from_mins(10)).as_second(),
            "exp": (now + life).as_second(),
        });
        claims[self.configured("/jwt/0/claimMappings/username/claim")?] = person.into();
        claims[self.configured("/jwt/0/claimMappings/groups/claim")?] = groups.into();
        Ok(claims)
    }

    /// A good token of a person.
    fn token(&self, person: &str, groups: &[&str]) -> anyhow::Result<String> {
        let claims = self.claims(person, groups, SignedDuration::from_mins(30))?;
        self.issuer.key().sign(&claims)
    }

    async fn log_in(&self, token: &str) -> anyhow::Result<Response> {
        let login = self
            .http
            .post(format!("{}/console/v1/auth/login", self.url));
        Ok(login.json(&json!({ "token": token })).send().await?)
    }

    /// With the token itself.
    async fn get(&self, token: &str, path: &str) -> anyhow::Result<Response> {
        let get = self.http.get(format!("{}/console/v1/{path}", self.url));
        Ok(get.bearer_auth(token).send().await?)
    }

    /// With a session's cookie.
    async fn get_in(&self, cookie: &str, path: &str) -> anyhow::Result<Response> {
        let get = self.http.get(format!("{}/console/v1/{path}", self.url));
        Ok(get.header("cookie", cookie).send().await?)
    }
}

fn cookie(login: &Response) -> anyhow::Result<String> {
    let set = login
        .headers()
        .get("set-cookie")
        .context("no cookie came")?;
    let pair = set.to_str()?.split(';').next().unwrap_or_default();
    Ok(pair.to_owned())
}

/// As docs/console.md binds them.
async fn roles(desk: &Desk, client: &Client) -> anyhow::Result<()> {
    let namespace: Namespace =
        serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), NAMESPACE);
    for (group, role) in [
        (COOKS, "fairlead-viewer"),
        (STEWARDS, "fairlead-device-administrator"),
        (STEWARDS, "fairlead-invoker"),
    ] {
        let binding = serde_json::from_value(json!({
            "metadata": { "name": format!("{group}-{role}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": desk.group(group)? }],
        }))?;
        bindings.create(&PostParams::default(), &binding).await?;
    }
    Ok(())
}

/// A session, and the token itself, are of whom the provider names.
async fn is_known(desk: &Desk) -> anyhow::Result<()> {
    let person = "ada@example.test";
    let claims = desk.claims(person, &[COOKS], SignedDuration::from_mins(30))?;
    // The API server asks the provider for its keys a moment after it serves, and the gateway has its own in a moment, too.
    // A token that was refused is remembered for some seconds; one that is signed anew is another.
    let (login, token) = until("somebody of the provider logs in", SOON, async || {
        let token = desk.issuer.key().sign(&claims)?;
        let login = desk.log_in(&token).await?;
        if !login.status().is_success() {
            anyhow::bail!("{:?}", problem(login).await?);
        }
        Ok(Some((login, token)))
    })
    .await?;
    let cookie = cookie(&login)?;
    let session: Session = login.json().await?;
    ensure!(session.csrf_token.is_some(), "{session:?}");
    ensure!(
        session.expires_at.map(Timestamp::as_second) == claims["exp"].as_i64(),
        "it does not end with its token: {:?}",
        session.expires_at
    );
    let in_session: Session = desk.get_in(&cookie, "auth/session").await?.json().await?;
    let with_token: Session = desk.get(&token, "auth/session").await?.json().await?;
    for session in [session, in_session, with_token] {
        ensure!(session.user == desk.user(person)?, "{}", session.user);
        let mut groups = session.groups;
        groups.sort_unstable();
        let mut expected = vec![desk.group(COOKS)?, "system:authenticated".to_owned()];
        expected.sort_unstable();
        ensure!(groups == expected, "{groups:?}");
    }
    Ok(())
}

/// Roles that are bound to a group decide, and nothing else does.
async fn may_what_roles_say(desk: &Desk) -> anyhow::Result<()> {
    let inventory = format!("inventory?namespace={NAMESPACE}");
    let ada = desk.token("ada@example.test", &["others", COOKS])?;
    let cookie = cookie(&desk.log_in(&ada).await?)?;
    until("the gateway knows all devices", SOON, async || {
        let shown = desk.get(&ada, &inventory).await?;
        Ok((shown.status() != StatusCode::SERVICE_UNAVAILABLE).then_some(()))
    })
    .await?;
    for allowed in [
        desk.get(&ada, &inventory).await?,
        desk.get_in(&cookie, &inventory).await?,
    ] {
        ensure!(
            allowed.status().is_success(),
            "{:?}",
            problem(allowed).await?
        );
    }
    let make = desk
        .http
        .post(format!("{}/console/v1/pairing/codes", desk.url))
        .bearer_auth(&ada)
        .json(&json!({ "namespace": NAMESPACE }));
    is_denied(
        make.send().await?,
        "pairing.issue",
        "create",
        "pairingcodes",
    )
    .await?;

    // A group of the same name that the provider does not tell of, and one that is great in the cluster alone.
    for (person, groups) in [
        ("bob@example.test", &[][..]),
        ("mallory@example.test", &["system:masters", "oidc:cooks"]),
    ] {
        let token = desk.token(person, groups)?;
        let refused = desk.get(&token, &inventory).await?;
        is_denied(refused, "observability.read", "list", "devices")
            .await
            .context(person)?;
    }
    Ok(())
}

async fn is_denied(
    answer: Response,
    permission: &str,
    verb: &str,
    resource: &str,
) -> anyhow::Result<()> {
    ensure!(
        answer.status() == StatusCode::FORBIDDEN,
        "{}",
        answer.status()
    );
    let refused = problem(answer).await?;
    ensure!(
        refused.code == ProblemCode::Forbidden && refused.permission.as_deref() == Some(permission),
        "{refused:?}"
    );
    let rule = refused.rule.context("no rule is named")?;
    ensure!(
        rule.api_groups == ["fairlead.dev"]
            && rule.resources == [resource]
            && rule.verbs == [verb]
            && rule.namespace.as_deref() == Some(NAMESPACE),
        "{rule:?}"
    );
    Ok(())
}

/// What changes something goes out with the person's own token, so policies see who it is.
async fn changes_in_their_own_name(desk: &Desk, client: &Client) -> anyhow::Result<()> {
    let login = desk
        .log_in(&desk.token("grace@example.test", &[STEWARDS])?)
        .await?;
    let cookie = cookie(&login)?;
    let session: Session = login.json().await?;
    let csrf = session.csrf_token.context("no CSRF token came")?;
    let post = |path: &str, body: Value| {
        let post = desk.http.post(format!("{}/console/v1/{path}", desk.url));
        let post = post.header("cookie", &cookie).header(CSRF_HEADER, &csrf);
        post.json(&body).send()
    };
    let made = post(
        "pairing/codes",
        json!({ "namespace": NAMESPACE, "name": "of-grace" }),
    )
    .await?;
    ensure!(
        made.status() == StatusCode::CREATED,
        "{}",
        made.text().await?
    );
    let codes: Api<crds::PairingCode> = Api::namespaced(client.clone(), NAMESPACE);
    codes.get("of-grace").await.context("find the code")?;

    let device = format!("{NAMESPACE}.lamp");
    let made = post(
        "invocations",
        json!({ "device": device, "capability": "echo" }),
    )
    .await?;
    ensure!(
        made.status() == StatusCode::CREATED,
        "{}",
        made.text().await?
    );
    let made: Invocation = made.json().await?;
    let by = made.summary.requested_by.unwrap_or_default();
    ensure!(by == desk.user("grace@example.test")?, "made by {by}");
    Ok(())
}

/// What differs from a good token in one thing is nobody's.
async fn is_nobody(desk: &Desk) -> anyhow::Result<()> {
    let good = desk.claims("eve@example.test", &[COOKS], SignedDuration::from_mins(5))?;
    let with = |claim: &str, value: Value| {
        let mut claims = good.clone();
        claims[claim] = value;
        desk.issuer.key().sign(&claims)
    };
    // Under the name of the provider's own, so that it is the signature that is wrong.
    let forged = Key::new("first")?.sign(&good)?;
    let ended = now() - SignedDuration::from_secs(5);
    let allowed = desk.log_in(&desk.issuer.key().sign(&good)?).await?;
    ensure!(
        allowed.status().is_success(),
        "{:?}",
        problem(allowed).await?
    );
    for (what, token) in [
        ("is expired", with("exp", ended.as_second().into())?),
        ("is for another", with("aud", "another".into())?),
        ("is signed by another key", forged),
        (
            "is of another provider",
            with("iss", "https://127.0.0.1".into())?,
        ),
        (
            "has an address that nobody verified",
            with("email_verified", false.into())?,
        ),
    ] {
        for answer in [
            desk.log_in(&token).await?,
            desk.get(&token, "auth/session").await?,
        ] {
            let status = answer.status();
            let refused = problem(answer)
                .await
                .with_context(|| format!("a token that {what} is taken"))?;
            ensure!(
                status == StatusCode::UNAUTHORIZED && refused.code == ProblemCode::Unauthenticated,
                "a token that {what}: {refused:?}"
            );
        }
    }
    Ok(())
}

/// A provider takes no other way in away: tokens of accounts log in, and the client of this trial has a certificate.
async fn accounts_go_on(desk: &Desk, cluster: &Cluster, folder: &Path) -> anyhow::Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), NAMESPACE);
    let account = serde_json::from_value(json!({ "metadata": { "name": "robot" } }))?;
    accounts.create(&PostParams::default(), &account).await?;
    let file = folder.join("robot.kubeconfig");
    cluster
        .service_account_kubeconfig(NAMESPACE, "robot", &file)
        .await?;
    let kubeconfig: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file)?)?;
    let token = kubeconfig
        .pointer("/users/0/user/token")
        .and_then(Value::as_str)
        .context("the kubeconfig has no token")?;
    let session: Session = desk.log_in(token).await?.json().await?;
    ensure!(
        session.user == format!("system:serviceaccount:{NAMESPACE}:robot"),
        "{}",
        session.user
    );
    Ok(())
}

/// No request of a session is answered from the second on in which its token ends.
async fn ends_with_the_token(desk: &Desk) -> anyhow::Result<()> {
    let claims = desk.claims("ada@example.test", &[COOKS], SignedDuration::from_secs(6))?;
    let end = Timestamp::from_second(claims["exp"].as_i64().context("no end")?)?;
    let token = desk.issuer.key().sign(&claims)?;
    let login = desk.log_in(&token).await?;
    ensure!(login.status().is_success(), "{:?}", problem(login).await?);
    let cookie = cookie(&login)?;
    let answer = until("the session is over", SOON, async || {
        let asked = now();
        let answer = desk.get_in(&cookie, "auth/session").await?;
        let goes_on = answer.status().is_success() && asked < end;
        Ok((!goes_on).then_some(answer))
    })
    .await?;
    ensure!(!answer.status().is_success(), "it outlives its token");
    let refused = problem(answer).await?;
    ensure!(refused.code == ProblemCode::SessionExpired, "{refused:?}");
    ensure!(now() >= end, "it is over before its token is");
    // The token itself is remembered for some seconds, here and by the API server.
    until("the token is over", SOON, async || {
        let answer = desk.get(&token, "auth/session").await?;
        Ok((answer.status() == StatusCode::UNAUTHORIZED).then_some(()))
    })
    .await
}
