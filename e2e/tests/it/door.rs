//! Who does not get in, and what a code is worth: strangers at real gateways, with a real operator behind them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use crds::v1alpha1::pairing_code::CodePhase;
use crds::v1alpha1::pairing_request::RequestPhase;
use crds::{PairingCode, PairingRequest};
use e2e::authority::Authority;
use e2e::stranger::{Connection, Exchange, Shown, Stranger, Unproved, channel};
use e2e::wait::until;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use pairing::code::PairingCode as Code;
use proto::node::enroll_request::Step;
use proto::node::enroll_response::Step as Answer;
use proto::node::node_service_client::NodeServiceClient;
use proto::node::{Platform, RegisterRequest};
use rcgen::{CertificateParams, KeyPair};
use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::task::JoinSet;

use crate::fixture::{Fixture, Scene};

const SOON: Duration = Duration::from_secs(30);
/// Who says something that is no protocol of ours is cut off, and not only shown out: a handshake that does not go on
/// ends after five seconds, and an enrollee that does nothing after thirty.
const AT_ONCE: Duration = Duration::from_secs(4);
/// A gateway gives who was refused five seconds to read why.
const AFTER_A_REFUSAL: Duration = Duration::from_secs(15);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial(
            "door::a_wrong_code_is_counted_and_the_sixth_try_refused_though_right",
            six_tries,
        ),
        fixture.trial("door::ten_devices_at_once_fit_a_code_of_ten", ten_at_once),
        fixture.trial("door::a_used_code_is_refused", used),
        fixture.trial("door::an_expired_code_is_refused", expired),
        fixture.trial("door::an_unknown_code_looks_like_a_wrong_one", unknown),
        fixture.trial("door::a_relay_in_the_middle_gets_nothing", relay),
        fixture.trial("door::a_request_for_another_key_is_refused", another_key),
        fixture.trial(
            "door::no_certificate_and_a_foreign_one_are_refused",
            foreign,
        ),
        fixture.trial("door::an_enrollee_cannot_register", enrollee_registers),
        fixture.trial(
            "door::a_device_cannot_enrol_on_its_certificate",
            device_enrols,
        ),
        fixture.trial(
            "door::a_device_under_another_devices_name_is_refused",
            another_name,
        ),
        fixture.trial("door::plain_http_and_tls_1_2_are_refused", not_tls_13),
        fixture.trial(
            "door::a_proof_that_lost_its_connection_comes_back_to_any_gateway",
            comes_back,
        ),
        fixture.trial(
            "door::an_oversized_or_malformed_message_harms_nobody_else",
            malformed,
        ),
    ]
}

/// A code as an administrator makes it, and as a person reads it.
pub async fn make_code(scene: &Scene, name: &str, spec: serde_json::Value) -> anyhow::Result<Code> {
    // Somebody has to draw it.
    drop(scene.stack().await?);
    let codes: Api<PairingCode> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let object = serde_json::from_value(json!({
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "PairingCode",
        "metadata": { "name": name },
        "spec": spec,
    }))?;
    codes
        .create(&PostParams::default(), &object)
        .await
        .context("make a code")?;
    let secrets: Api<Secret> = Api::namespaced(scene.client.clone(), &scene.namespace);
    until("the code is drawn", SOON, async || {
        let drawn = codes
            .get(name)
            .await?
            .status
            .is_some_and(|status| status.phase == Some(CodePhase::Active));
        let secret = secrets.get_opt(&crds::names::code_secret(name)).await?;
        let pin = secret.and_then(|secret| secret.data?.remove("pin"));
        match pin {
            Some(pin) if drawn => Ok(Some(Code::parse(&String::from_utf8(pin.0)?)?)),
            _ => Ok(None),
        }
    })
    .await
}

/// What a code says of itself.
pub async fn status_of(
    scene: &Scene,
    code: &str,
) -> anyhow::Result<crds::v1alpha1::PairingCodeStatus> {
    let codes: Api<PairingCode> = Api::namespaced(scene.client.clone(), &scene.namespace);
    codes
        .get(code)
        .await?
        .status
        .context("the code has no status")
}

/// Another secret with the same id.
fn wrong(code: &Code) -> anyhow::Result<Code> {
    let exposed = code.expose();
    let (id, secret) = exposed.split_once('-').context("a code has a dash")?;
    let last = if secret.ends_with('0') { "1" } else { "0" };
    Ok(Code::parse(&format!(
        "{id}-{}{last}",
        &secret[..secret.len() - 1]
    ))?)
}

/// Whether the code was turned down, in the one way in which codes are.
async fn turned_down(gateway: &str, code: &Code) -> anyhow::Result<bool> {
    let mut exchange = Stranger::new()?.enroll(gateway).await?;
    match exchange.prove(code).await {
        Err(Unproved::Challenge(_)) => Ok(true),
        Ok(()) => Ok(false),
        Err(other) => bail!("neither proved nor turned down: {other}"),
    }
}

async fn six_tries(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let code = make_code(&scene, "six", json!({})).await?;
    let guess = wrong(&code)?;
    for number in 1..=5 {
        ensure!(turned_down(&gateways[number % gateways.len()], &guess).await?);
        let attempts = status_of(&scene, "six").await?.attempts;
        ensure!(
            attempts == i64::try_from(number)?,
            "after {number} tries {attempts} are counted"
        );
    }
    ensure!(
        turned_down(&gateways[0], &code).await?,
        "the sixth try was taken"
    );
    until(
        "the code is locked and wiped",
        Duration::from_mins(1),
        async || {
            let status = status_of(&scene, "six").await?;
            Ok(
                (status.phase == Some(CodePhase::Locked) && status.password_file.is_none())
                    .then_some(()),
            )
        },
    )
    .await?;
    let secrets: Api<Secret> = Api::namespaced(scene.client.clone(), &scene.namespace);
    ensure!(
        secrets.get_opt("six-code").await?.is_none(),
        "the Secret of a locked code is still there"
    );
    ensure!(
        turned_down(&gateways[0], &code).await?,
        "a locked code was taken"
    );
    Ok(())
}

async fn ten_at_once(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let code = make_code(&scene, "ten", json!({ "maxUses": 10 })).await?;
    let strangers = (0..10)
        .map(|_| Stranger::new())
        .collect::<anyhow::Result<Vec<_>>>()?;
    let pending = strangers.iter().enumerate().map(|(number, stranger)| {
        let (gateway, code) = (&gateways[number % gateways.len()], &code);
        async move {
            let mut exchange = stranger
                .apply(gateway, code, &format!("one-of-ten-{number}"))
                .await?;
            let Answer::Pending(pending) = exchange.next().await? else {
                bail!("device {number} is not pending")
            };
            Ok(pending.request)
        }
    });
    let mut requests = try_join_all(pending).await?;
    requests.sort();
    requests.dedup();
    ensure!(requests.len() == 10, "{} requests of ten", requests.len());
    until("the code is used up", SOON, async || {
        let status = status_of(&scene, "ten").await?;
        ensure!(
            status.uses == 10 && status.attempts == 0,
            "uses {}, attempts {}",
            status.uses,
            status.attempts
        );
        Ok((status.phase == Some(CodePhase::Used) && status.password_file.is_none()).then_some(()))
    })
    .await
}

async fn used(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let code = make_code(&scene, "once", json!({})).await?;
    let first = Stranger::new()?;
    let mut exchange = first.apply(&gateways[0], &code, "first").await?;
    ensure!(matches!(exchange.next().await?, Answer::Pending(_)));
    ensure!(
        turned_down(&gateways[1], &code).await?,
        "a used code was taken"
    );
    Ok(())
}

async fn expired(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let code = make_code(&scene, "short", json!({ "ttlSeconds": 30 })).await?;
    until("the code expires", Duration::from_mins(1), async || {
        let status = status_of(&scene, "short").await?;
        Ok(
            (status.phase == Some(CodePhase::Expired) && status.password_file.is_none())
                .then_some(()),
        )
    })
    .await?;
    ensure!(
        turned_down(&gateways[0], &code).await?,
        "an expired code was taken"
    );
    Ok(())
}

async fn unknown(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    ensure!(
        turned_down(
            &gateways[0],
            &Code::draw(pairing::code::Alphabet::Alphanumeric)
        )
        .await?
    );
    Ok(())
}

async fn relay(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let code = make_code(&scene, "relayed", json!({})).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let middle = Stranger::new()?;
    let mut to_gateway = middle.connect(&gateways[0], Shown::SelfSigned).await?;
    let acceptor = relay_acceptor()?;
    let mut relaying = JoinSet::new();
    relaying.spawn(async move {
        let (tcp, _) = listener.accept().await?;
        let mut to_device = acceptor.accept(tcp).await?;
        copy_bidirectional(&mut to_device, &mut to_gateway).await
    });
    let mut exchange = Stranger::new()?.enroll(&address).await?;
    let outcome = exchange.prove(&code).await;
    ensure!(
        matches!(outcome, Err(Unproved::Challenge(_))),
        "the relay passed for the gateway: {outcome:?}"
    );
    // There was a challenge, and the gateway counted: so much went through, both ways.
    ensure!(status_of(&scene, "relayed").await?.attempts == 1);
    // How its connections end is a race between the two ends.
    relaying.shutdown().await;
    let mut honest = Stranger::new()?
        .apply(&gateways[0], &code, "honest")
        .await?;
    ensure!(
        matches!(honest.next().await?, Answer::Pending(_)),
        "the code is of no more use"
    );
    Ok(())
}

fn relay_acceptor() -> anyhow::Result<tokio_rustls::TlsAcceptor> {
    let key = KeyPair::generate()?;
    let own = CertificateParams::default().self_signed(&key)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(pairing::crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(
            vec![own.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(tls).into())
}

async fn another_key(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let code = make_code(&scene, "two-keys", json!({})).await?;
    let (mine, other) = (Stranger::new()?, Stranger::new()?);
    let mut exchange = mine.enroll(&gateways[0]).await?;
    exchange.prove(&code).await?;
    exchange
        .send(Step::Application(other.application("impostor")?))
        .await?;
    let refused = exchange
        .next()
        .await
        .err()
        .context("a request for another key was taken")?;
    ensure!(refused.code() == tonic::Code::InvalidArgument, "{refused}");
    ensure!(refused.message().contains("key"), "{refused}");
    Ok(())
}

async fn foreign(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let stranger = Stranger::new()?;
    let forged = Authority::made_up()?.certify(&stranger, &scene.namespace, "forged")?;
    for (shown, expected) in [
        (Shown::Nothing, AlertDescription::CertificateRequired),
        (Shown::Issued(forged), AlertDescription::UnknownCA),
    ] {
        let connection = stranger.connect(&gateways[0], shown).await?;
        let end = ended(connection).await?.err().context("no alert")?;
        ensure!(alert(&end) == Some(expected), "{end}");
    }
    Ok(())
}

/// Waits until the gateway hangs up, at once: with an alert, or without a word.
async fn ended(mut connection: Connection) -> anyhow::Result<io::Result<usize>> {
    let mut rest = Vec::new();
    tokio::time::timeout(AT_ONCE, connection.read_to_end(&mut rest))
        .await
        .context("the connection stays open")
}

/// What the gateway said as it ended a handshake.
fn alert(error: &io::Error) -> Option<AlertDescription> {
    if let rustls::Error::AlertReceived(alert) = error.get_ref()?.downcast_ref()? {
        return Some(*alert);
    }
    None
}

async fn register(connection: Connection) -> anyhow::Result<Result<(), tonic::Status>> {
    let request = RegisterRequest {
        platform: Some(Platform::default()),
        ..RegisterRequest::default()
    };
    Ok(NodeServiceClient::new(channel(connection).await?)
        .register(request)
        .await
        .map(|_| ()))
}

async fn enrollee_registers(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let connection = Stranger::new()?
        .connect(&gateways[0], Shown::SelfSigned)
        .await?;
    let refused = register(connection)
        .await?
        .err()
        .context("an enrollee registered")?;
    ensure!(refused.code() == tonic::Code::PermissionDenied, "{refused}");
    Ok(())
}

/// Pairs a stranger: its certificate chain, and the name of its Device.
pub async fn pair(
    scene: &Scene,
    stranger: &Stranger,
    name: &str,
) -> anyhow::Result<(Vec<CertificateDer<'static>>, String)> {
    let gateways = scene.gateways().await?;
    let code = make_code(scene, name, json!({})).await?;
    let mut exchange: Exchange = stranger.apply(&gateways[0], &code, name).await?;
    let Answer::Pending(pending) = exchange.next().await? else {
        bail!("not pending")
    };
    approve(scene, &pending.request).await?;
    let issued = exchange.issued().await?;
    Ok((
        issued.chain.into_iter().map(CertificateDer::from).collect(),
        issued.device,
    ))
}

/// The approval, as a person would patch it.
pub async fn approve(scene: &Scene, request: &str) -> anyhow::Result<()> {
    let requests: Api<PairingRequest> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let approval = json!({ "status": { "approval": { "decision": "Approved" } } });
    requests
        .patch_status(request, &PatchParams::default(), &Patch::Merge(approval))
        .await?;
    Ok(())
}

async fn device_enrols(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let stranger = Stranger::new()?;
    let (chain, _) = pair(&scene, &stranger, "greedy").await?;
    let connection = stranger
        .connect(&gateways[1], Shown::Issued(chain.clone()))
        .await?;
    let refused = match Exchange::over(connection).await {
        Ok(mut exchange) => exchange.resume().await.err().context("a device enrolled")?,
        Err(error) => error.downcast::<tonic::Status>()?,
    };
    ensure!(refused.code() == tonic::Code::PermissionDenied, "{refused}");
    // The same certificate is good for what it is for.
    register(stranger.connect(&gateways[1], Shown::Issued(chain)).await?).await??;
    Ok(())
}

async fn another_name(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let (honest, thief) = (Stranger::new()?, Stranger::new()?);
    let (_, device) = pair(&scene, &honest, "robbed").await?;
    let authority = Authority::of_cluster(&scene.client).await?;
    let stolen = authority.certify(&thief, &scene.namespace, &device)?;
    let connection = thief.connect(&gateways[0], Shown::Issued(stolen)).await?;
    let refused = register(connection)
        .await?
        .err()
        .context("a key registered under another device's name")?;
    ensure!(refused.code() == tonic::Code::PermissionDenied, "{refused}");
    Ok(())
}

async fn not_tls_13(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let stranger = Stranger::new()?;
    let mut plain = stranger.dial(&gateways[0]).await?;
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _ = tokio::time::timeout(AT_ONCE, plain.read_to_end(&mut answer))
        .await
        .context("plain HTTP is kept open")?;
    ensure!(!answer.starts_with(b"HTTP/"), "plain HTTP was answered");
    let old = stranger
        .connect_with(&gateways[0], Shown::SelfSigned, &rustls::version::TLS12)
        .await;
    let refused = old.err().context("TLS 1.2 was spoken")?;
    ensure!(
        alert(&refused) == Some(AlertDescription::ProtocolVersion),
        "{refused}"
    );
    Ok(())
}

async fn comes_back(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let code = make_code(&scene, "broken", json!({})).await?;
    let stranger = Stranger::new()?;
    let mut exchange = stranger.enroll(&gateways[0]).await?;
    exchange.prove(&code).await?;
    until("the proof is counted", SOON, async || {
        Ok((status_of(&scene, "broken").await?.uses == 1).then_some(()))
    })
    .await?;
    drop(exchange);

    // Nobody else can have what it proved.
    let refused = Stranger::new()?.enroll(&gateways[1]).await?.resume().await;
    ensure!(refused.is_err_and(|status| status.code() == tonic::Code::NotFound));

    let mut again = stranger.enroll(&gateways[1]).await?;
    ensure!(matches!(again.resume().await?, Answer::Describe(_)));
    again
        .send(Step::Application(stranger.application("broken")?))
        .await?;
    let Answer::Pending(pending) = again.next().await? else {
        bail!("not pending")
    };
    drop(again);

    let mut third = stranger.enroll(&gateways[0]).await?;
    let Answer::Pending(same) = third.resume().await? else {
        bail!("not pending")
    };
    ensure!(
        same.request == pending.request,
        "{} is not {}",
        same.request,
        pending.request
    );
    approve(&scene, &pending.request).await?;
    third.issued().await?;
    Ok(())
}

async fn malformed(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let code = make_code(&scene, "noise", json!({ "maxUses": 2 })).await?;
    let mut bystander = Stranger::new()?
        .apply(&gateways[0], &code, "bystander")
        .await?;
    let Answer::Pending(pending) = bystander.next().await? else {
        bail!("not pending")
    };

    let garbage = Stranger::new()?;
    let mut connection = garbage.connect(&gateways[0], Shown::SelfSigned).await?;
    // The gateway may hang up before all of it is written.
    let _ = connection.write_all(&vec![0x5a; 64 * 1024]).await;
    let _ = ended(connection).await?;

    let mut giant = Stranger::new()?.enroll(&gateways[0]).await?;
    let begin = proto::node::Begin {
        code_id: "0".repeat(1 << 20),
        ke1: Vec::new(),
    };
    let _ = giant.send(Step::Begin(begin)).await;
    let refused = giant
        .next()
        .await
        .err()
        .context("a message of a megabyte was taken")?;
    let expected = [
        tonic::Code::OutOfRange,
        tonic::Code::ResourceExhausted,
        tonic::Code::InvalidArgument,
    ];
    ensure!(expected.contains(&refused.code()), "{refused}");
    giant.hung_up(AFTER_A_REFUSAL).await?;

    let mut nonsense = Stranger::new()?.enroll(&gateways[0]).await?;
    let begin = proto::node::Begin {
        code_id: code.id().to_owned(),
        ke1: b"nonsense".to_vec(),
    };
    let _ = nonsense.send(Step::Begin(begin)).await;
    let refused = nonsense
        .next()
        .await
        .err()
        .context("nonsense was answered")?;
    ensure!(refused.code() == tonic::Code::InvalidArgument, "{refused}");
    nonsense.hung_up(AFTER_A_REFUSAL).await?;

    approve(&scene, &pending.request).await?;
    bystander.issued().await?;
    let requests: Api<PairingRequest> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let phase = requests
        .get(&pending.request)
        .await?
        .status
        .map(|status| status.phase);
    ensure!(phase == Some(RequestPhase::Issued), "{phase:?}");
    Ok(())
}
