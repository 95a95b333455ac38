//! Paired devices that do what no device should: they lose their own stream, and nobody else notices.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use crds::Device;
use e2e::hang_up::overhear;
use e2e::stack::Stack;
use e2e::stranger::{DeviceStream, Shown, Stranger, channel, narrow_channel, register, success};
use e2e::wait::until;
use kube::Api;
use libtest_mimic::Trial;
use proto::MAX_DEVICE_MESSAGE_BYTES;
use proto::node::Heartbeat;
use proto::node::device_event::Event as Said;
use serde_json::json;
use tonic::{Code, Status};

use crate::commands::device;
use crate::door::pair;
use crate::fixture::{Fixture, Scene};
use crate::invocation::answered;

const SOON: Duration = Duration::from_secs(30);
/// Long before anybody would miss a heartbeat.
const AT_ONCE: Duration = Duration::from_secs(5);
/// What a device that does not read takes all the same: a Welcome goes through it, piece by piece.
const NARROW_BYTES: u32 = 64;

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial(
            "misbehaviour::a_device_that_never_reads_is_cut_and_holds_up_nobody",
            never_reads,
        ),
        fixture.trial(
            "misbehaviour::a_giant_message_ends_its_connection_with_a_clear_status_and_no_other",
            giant,
        ),
        fixture.trial(
            "misbehaviour::a_registration_is_worth_nothing_to_another_device",
            stolen_registration,
        ),
    ]
}

/// How often streams ended for that reason at the first gateway.
async fn ends(scene: &Scene, reason: &str) -> anyhow::Result<u64> {
    let mut stack = scene.stack().await?;
    let gateways = stack.as_mut().map(Stack::gateways).unwrap_or_default();
    let gateway = gateways.first_mut().context("there is no gateway")?;
    let text = gateway.service().metrics().await?;
    let label = format!("fairlead_gateway_stream_ends_total{{reason=\"{reason}\"}} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&label));
    count.map_or(Ok(0), |count| Ok(count.parse()?))
}

async fn session_ended(scene: &Scene, device: &str) -> anyhow::Result<()> {
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    until("the session is ended", SOON, async || {
        let status = devices.get(device).await?.status.unwrap_or_default();
        Ok(status.session.and_then(|session| session.ended_at))
    })
    .await
    .map(drop)
}

fn status(error: anyhow::Error) -> anyhow::Result<Status> {
    error
        .downcast::<Status>()
        .context("it was not the gateway that refused")
}

async fn never_reads(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let (_, bystander, mut reads) = device(&scene, "bystander", &["echo"]).await?;
    let before = ends(&scene, "NeverReads").await?;

    let stranger = Stranger::new()?;
    let (chain, deaf) = pair(&scene, &stranger, "deaf").await?;
    let connection = stranger.connect(&gateways[0], Shown::Issued(chain)).await?;
    let channel = narrow_channel(connection, NARROW_BYTES).await?;
    let registration = register(channel.clone(), &["echo"]).await?;
    let mut stream = DeviceStream::begin(channel, registration).await?;
    // Each wants an answer, and none is read.
    for _ in 0..100 {
        stream.say(Said::Heartbeat(Heartbeat {})).await?;
    }
    answered(&scene, &bystander, &mut reads, "meanwhile").await?;
    session_ended(&scene, &deaf).await?;
    ensure!(ends(&scene, "NeverReads").await? > before);
    let cut = stream.next().await.err().context("the stream goes on")?;
    ensure!(
        cut.code() == Code::ResourceExhausted && cut.message().contains("does not read"),
        "{cut}"
    );
    answered(&scene, &bystander, &mut reads, "afterwards").await
}

async fn giant(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let (_, bystander, mut quiet) = device(&scene, "bystander", &["echo"]).await?;
    let stranger = Stranger::new()?;
    let (chain, loud) = pair(&scene, &stranger, "loud").await?;
    let connect = async || -> anyhow::Result<DeviceStream> {
        let shown = Shown::Issued(chain.clone());
        let connection = stranger.connect(&gateways[0], shown).await?;
        DeviceStream::open(connection, &["echo"]).await
    };
    let shown = Shown::Issued(chain.clone());
    let (connection, mut hang_up) = overhear(stranger.connect(&gateways[0], shown).await?);
    let channel = channel(connection).await?;
    let registration = register(channel.clone(), &["echo"]).await?;
    let mut stream = DeviceStream::begin(channel, registration).await?;
    let output = json!("x".repeat(MAX_DEVICE_MESSAGE_BYTES));
    stream
        .say(success("not-asked-for", "giant", &output))
        .await?;
    let cut = tokio::time::timeout(AT_ONCE, stream.next())
        .await
        .context("the stream is not cut")?
        .err()
        .context("the stream goes on")?;
    ensure!(
        cut.code() == Code::InvalidArgument && cut.message().contains("too large"),
        "{cut}"
    );
    hang_up.within(AT_ONCE).await?;
    session_ended(&scene, &loud).await?;
    answered(&scene, &bystander, &mut quiet, "afterwards").await?;
    // It may come back, and behave.
    let mut stream = connect().await?;
    answered(&scene, &loud, &mut stream, "reformed").await
}

async fn stolen_registration(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let connect = async |name: &str| {
        let stranger = Stranger::new()?;
        let (chain, device) = pair(&scene, &stranger, name).await?;
        let connection = stranger.connect(&gateways[0], Shown::Issued(chain)).await?;
        anyhow::Ok((device, channel(connection).await?))
    };
    let (robbed, of_robbed) = connect("robbed").await?;
    let (_, of_thief) = connect("thief").await?;
    let registration = register(of_robbed.clone(), &["echo"]).await?;
    // It has one of its own, too.
    register(of_thief.clone(), &["echo"]).await?;
    let Err(refused) = DeviceStream::begin(of_thief, registration.clone()).await else {
        bail!("the thief was welcomed")
    };
    let refused = status(refused)?;
    ensure!(
        refused.code() == Code::FailedPrecondition && refused.message().contains("register first"),
        "{refused}"
    );
    // And it is not used up.
    let mut stream = DeviceStream::begin(of_robbed, registration).await?;
    answered(&scene, &robbed, &mut stream, "mine").await
}
