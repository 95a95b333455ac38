//! The connection to a gateway: one at a time, found again whatever dies.
//!
//! - [`dial`]: which way to it, by which address;
//! - [`connect`]: one TLS connection;
//! - [`session`]: from Register to the end of the stream, heartbeats among it;
//! - [`gateways`]: which gateway is next;
//! - [`backoff`] says when;
//! - [`said`]: which failures were logged already;
//! - [`attempts`] says what an end means for the next attempt.
//!
//! Passes on what gateways say and decides nothing about it.

pub mod attempts;
pub mod backoff;
pub mod connect;
pub mod dial;
pub mod gateways;
pub mod said;
pub mod session;

use std::{sync::Arc, time::Duration};

use proto::node::{self, DeviceEvent, gateway_event};
use tokio::{sync::mpsc, time::sleep};

use self::{
    attempts::{Attempts, End},
    dial::Dialer,
    gateways::Rotation,
    said::Said,
    session::Opened,
};
use crate::{
    capability::live::Live,
    host::clock::{self, Moment, wall},
    renewal::{Renewal, Renewing, moment::Origin},
    state::{
        DeviceKey, Folder, Identity,
        identity::LifeState,
        session::{Session as Shown, State},
    },
    terminal::printable,
};

/// What the agent hears.
#[derive(Debug)]
pub enum Word {
    /// There is a stream: here is where its events go.
    Opened {
        outbound: mpsc::Sender<DeviceEvent>,
        /// Largest output that the gateways store; 0 where they store none.
        max_artefact_bytes: u64,
    },
    /// It came at this moment. Time counts from then, however long the word waits for who hears it.
    Event(gateway_event::Event, Moment),
    /// There is none any more.
    Closed,
}

/// What it takes to connect.
#[derive(Debug)]
pub struct Upstream {
    pub folder: Arc<Folder>,
    pub dialer: Dialer,
    pub key: DeviceKey,
    pub identity: Identity,
    pub platform: node::Platform,
    /// What is declared, and declared anew when it changes.
    pub capabilities: Live,
    /// Invocations that it takes at once.
    pub concurrency: u32,
    /// Closed by the agent when it wants no more.
    pub words: mpsc::Sender<Word>,
}

impl Upstream {
    /// Connects, and connects again, until the agent goes.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut rotation = Rotation::new(self.identity.addresses(), backoff::seed());
        let mut attempts = Attempts::default();
        let (mut shown, mut said) = (Shown::default(), Said::default());
        let mut renewal = Renewal::of(&self.key, &self.identity, Origin::Kept)?;
        loop {
            let Some(address) = rotation.take() else {
                anyhow::bail!("no gateway is known: run `fairlead-agent unpair` and pair again");
            };
            let words = self.words.clone();
            let (end, session) = tokio::select! {
                ended = self.connect(&address, &mut rotation, &mut shown, &mut renewal) => ended,
                () = words.closed() => (End::Stopped, None),
            };
            let pause = attempts.after(&end, session, rotation.len(), backoff::random());
            let Some(pause) = pause else {
                self.show(&mut shown, State::Stopped, None);
                return Ok(());
            };
            if session.is_some() {
                said.forget();
            }
            self.report(&address, &end, pause, &mut shown, &mut said);
            tokio::select! {
                () = sleep(pause) => {}
                () = words.closed() => {}
            }
        }
    }

    /// One connection, from its beginning to its end; and how long the session on it lasted, where there was one.
    async fn connect(
        &mut self,
        address: &str,
        rotation: &mut Rotation,
        shown: &mut Shown,
        renewal: &mut Renewal,
    ) -> (End, Option<Duration>) {
        let opened = match session::open(self, address).await {
            Ok(opened) => opened,
            Err(end) => {
                self.dialer.begin_elsewhere(address);
                return (end, None);
            }
        };
        let welcomed = clock::now();
        self.welcome(address, &opened, rotation, shown);
        if self
            .words
            .send(Word::Opened {
                outbound: opened.outbound(),
                max_artefact_bytes: opened.max_artefact_bytes,
            })
            .await
            .is_err()
        {
            return (End::Stopped, None);
        }
        let renewing = Renewing::new(renewal, &self.key, &self.identity, &self.folder);
        let end = opened.serve(&self.words, &renewing).await;
        let lasted = clock::now().since(welcomed);
        if let Some((identity, next)) = renewing.renewed() {
            self.identity = identity;
            *renewal = next;
        }
        if end == End::Renewed {
            rotation.stay(address);
        }
        // Fails when the agent goes; then nobody needs to know.
        let _ = self.words.send(Word::Closed).await;
        (end, Some(lasted))
    }

    fn welcome(
        &mut self,
        address: &str,
        opened: &Opened,
        rotation: &mut Rotation,
        shown: &mut Shown,
    ) {
        let gateway = printable(&opened.gateway);
        tracing::info!(gateway, address, epoch = opened.epoch, "Connected");
        shown.gateway = Some(address.to_owned());
        shown.gateway_name = Some(gateway);
        self.show(shown, State::Connected, None);
        // This one proved with its certificate that it is a gateway. Those that it tells of did not: they are tried as long
        // as this process runs, and a later one does not hear of them.
        let remembered = gateways::remembered(&self.identity.gateways, address);
        if remembered != self.identity.gateways {
            self.identity.gateways = remembered;
            if let Err(error) = self.folder.save_identity(&self.identity) {
                tracing::warn!(
                    error = connect::chain(&error),
                    "Keeping the gateway's address failed"
                );
            }
        }
        let told = match gateways::acceptable(opened.gateways.clone()) {
            told if told.is_empty() => rotation.addresses().to_vec(),
            told => told,
        };
        let known = gateways::joined(told, self.identity.addresses());
        rotation.replace(known, address, backoff::seed());
    }

    fn report(
        &self,
        address: &str,
        end: &End,
        pause: Duration,
        shown: &mut Shown,
        said: &mut Said,
    ) {
        if *end == End::Renewed {
            tracing::info!(address, "Connecting with the new certificate");
            self.show(shown, State::Connecting, None);
            return;
        }
        let mut reason = end.to_string();
        if let Ok(life) = self.identity.life() {
            match life.at(wall().as_second()) {
                LifeState::Valid => {}
                LifeState::Expired => reason.push_str(
                    "; this device's certificate has expired by its clock: unless the clock is wrong, pair it again",
                ),
                LifeState::NotYetValid => reason.push_str(
                    "; this device's certificate is not valid yet by its clock: set the clock",
                ),
            }
        }
        let state = if matches!(end, End::Refused { .. }) {
            State::Refused
        } else {
            State::Connecting
        };
        if said.is_new(address, &reason) {
            tracing::warn!(address, reason, ?pause, "Not connected");
        } else {
            tracing::debug!(address, reason, ?pause, "Still not connected");
        }
        self.show(shown, state, Some(reason));
    }

    fn show(&self, shown: &mut Shown, state: State, last_error: Option<String>) {
        if shown.state == state && shown.last_error == last_error && !shown.since.is_empty() {
            return;
        }
        shown.state = state;
        shown.last_error = last_error;
        shown.since = rfc3339(wall());
        if let Err(error) = self.folder.save_session(shown) {
            tracing::warn!(
                error = connect::chain(&error),
                "Writing session.json failed"
            );
        }
    }
}

/// Whole seconds, as people and scripts read them.
pub fn rfc3339(timestamp: jiff::Timestamp) -> String {
    format!("{timestamp:.0}")
}
