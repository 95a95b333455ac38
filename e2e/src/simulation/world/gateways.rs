//! Gateways and the operator: how they begin and end, what their watches bring, and when they have a turn.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crds::names::{ADVERTISE_ANNOTATION, GATEWAY_LEASE_SECONDS};
use futures::{FutureExt as _, Stream as _};
use gateway::domain::device::{DeviceKey, KnownDevice};
use gateway::domain::invocation::OpenInvocation;
use gateway::index::Changed;
use gateway::index::invocations::Listed;
use gateway::node::Settings;
use gateway::node::played::{CHOICES, Gateway, Turned};
use proto::node::GatewayEvent;
use serde_json::{Value, json};

use super::{Happening, Host, Running, World, device_name, gateway_name};
use crate::simulation::api::{Change, Kind, NAMESPACE, Object};
use crate::simulation::link::{Link, WINDOW};
use crate::simulation::operator::{Operator, Write};
use crate::simulation::script::GATEWAYS;

/// Turns of one gateway at one moment: past it, it turns in circles.
const MOST_TURNS: usize = 20_000;
/// How often a stream that only writes any more is looked at.
const SETTLING: u64 = 200;
const LEASE_EVERY: u64 = 5_000;
/// How long a gateway's own renewal is on its way to it.
const LEASE_NEWS: u64 = 20;

impl World {
    pub(super) fn start_gateway(&mut self, number: usize) {
        if self.hosts[number].running.is_some() {
            return;
        }
        if self.now < self.api_away_until {
            // It lists everything before it takes devices.
            let at = self.api_away_until + 200;
            return self.at(at, Happening::StartGateway(number));
        }
        let name = gateway_name(number);
        let settings = Settings::new(&name, "system", format!("{name}.example:7443"));
        gateway::clock::play(Some(self.skewed(number)));
        let gateway = Gateway::new(self.api.client(number), settings);
        let orphans = Box::pin(gateway.orphans());
        let host = &mut self.hosts[number];
        host.life += 1;
        let life = host.life;
        let running = Running {
            gateway,
            streams: BTreeMap::new(),
            orphans: Some(orphans),
            seen: 0,
            watch_is_due: false,
            asked: BTreeSet::new(),
            dirty: true,
        };
        host.running = Some(running);
        host.frozen_until = 0;
        tell!(self, "{name} starts");
        self.relist(number, life);
        self.at(self.now, Happening::Lease(number, life));
    }

    pub(super) fn kill_gateway(&mut self, number: usize, millis: u64) {
        let Some(running) = self.hosts[number].running.take() else {
            return;
        };
        // What it asked may be on its way.
        for request in running.asked {
            if self.chance.one_in(2) {
                self.api.forget(request);
            }
        }
        let life = self.hosts[number].life;
        let links: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.gateway == number && link.gateway_life == life)
            .map(|(link, _)| *link)
            .collect();
        for link in links {
            self.end_at_gateway(link);
        }
        self.at(self.now + millis, Happening::StartGateway(number));
    }

    pub(super) fn soil(&mut self, number: usize) {
        if let Some(running) = &mut self.hosts[number].running {
            running.dirty = true;
        }
    }

    /// When time alone gives a gateway something to do.
    pub(super) fn due(&self, host: &Host) -> Option<u64> {
        let running = host.running.as_ref()?;
        let of_streams = running.streams.values().map(|stream| match stream.due() {
            Some(due) => {
                let millis = due.saturating_duration_since(self.start).as_micros();
                u64::try_from(millis.div_ceil(1_000)).unwrap_or(u64::MAX)
            }
            None => (self.now / SETTLING + 1) * SETTLING,
        });
        let orphans = running
            .orphans
            .as_ref()
            .map(|_| (self.now / 1_000 + 1) * 1_000);
        let due = of_streams.chain(orphans).min();
        due.map(|due| due.max(host.frozen_until))
    }

    /// Gives a gateway its turns until nothing moves any more.
    pub(super) async fn pump(&mut self, number: usize) {
        gateway::clock::play(Some(self.skewed(number)));
        let mut still = 0;
        let mut turns = 0;
        while still < 3 {
            let Some(running) = &mut self.hosts[number].running else {
                return;
            };
            running.dirty = false;
            turns += 1;
            if turns > MOST_TURNS {
                self.wrong(format!("{} turns in circles", gateway_name(number)));
                return;
            }
            let moved = self.turn_streams(number);
            if moved && self.dies() {
                tell!(self, "{} dies between two steps", gateway_name(number));
                let after = self.chance.pick(&[50, 2_000, 20_000]);
                return self.kill_gateway(number, after);
            }
            // Requests pass through a task of the client's own.
            tokio::task::yield_now().await;
            still = if moved { 0 } else { still + 1 };
        }
        self.read_outgoing(number);
    }

    fn turn_streams(&mut self, number: usize) -> bool {
        let Some(running) = &mut self.hosts[number].running else {
            return false;
        };
        let mut moved = false;
        let mut over = Vec::new();
        if let Some(orphans) = &mut running.orphans
            && orphans.now_or_never().is_some()
        {
            running.orphans = None;
        }
        for (number, stream) in &mut running.streams {
            let Some(link) = self.links.get_mut(number) else {
                over.push(*number);
                continue;
            };
            match stream.turn(self.chance.index(CHOICES), &mut link.heard) {
                Turned::Moved => moved = true,
                Turned::Still => {}
                Turned::Over => over.push(*number),
            }
        }
        for link in over {
            running.streams.remove(&link);
        }
        moved
    }

    /// Takes what the streams want sent, as far as the connections take it.
    fn read_outgoing(&mut self, number: usize) {
        let life = self.hosts[number].life;
        let is_here = |link: &Link| link.gateway == number && link.gateway_life == life;
        let here = self.links.iter().filter(|(_, link)| is_here(link));
        let here: Vec<u64> = here.map(|(of, _)| *of).collect();
        for of in here {
            while let Poll::Ready(written) = self.next_outgoing(of) {
                if let Some(event) = written {
                    self.send_down(of, event);
                    self.soil(number);
                } else {
                    self.end_at_gateway(of);
                }
            }
        }
    }

    /// What is written next, or `None` for its end; pending where nothing is, or nothing can be taken.
    fn next_outgoing(&mut self, of: u64) -> Poll<Option<GatewayEvent>> {
        let Some(link) = self.links.get_mut(&of) else {
            return Poll::Pending;
        };
        let Some(outgoing) = link.outgoing.as_mut() else {
            return Poll::Pending;
        };
        if link.stalled_until > self.now || link.down.len() >= WINDOW {
            return Poll::Pending;
        }
        let mut context = Context::from_waker(Waker::noop());
        let written = pin!(outgoing).poll_next(&mut context);
        written.map(|written| written.and_then(Result::ok))
    }

    // What is seen.

    pub(super) fn see_gateway(&mut self, number: usize, life: u32) {
        let now = self.now;
        let away = now < self.api_away_until;
        let host = &mut self.hosts[number];
        if host.life != life {
            return;
        }
        let Some(running) = &mut host.running else {
            return;
        };
        running.watch_is_due = false;
        if now < host.gap_until || away {
            // Looked at again when that is over.
            running.watch_is_due = true;
            let at = host.gap_until.max(self.api_away_until) + 100;
            return self.at(at, Happening::SeeGateway(number, life));
        }
        gateway::clock::play(Some(self.skewed(number)));
        let Some(change) = self
            .api
            .change(self.hosts[number].running.as_ref().map_or(0, |r| r.seen))
        else {
            return;
        };
        if let Some(running) = &mut self.hosts[number].running {
            running.seen += 1;
            running.dirty = true;
            show(running, change);
        }
    }

    pub(super) fn relist(&mut self, number: usize, life: u32) {
        if self.hosts[number].life != life || self.now < self.hosts[number].gap_until {
            return;
        }
        if self.now < self.api_away_until {
            let at = self.api_away_until + 100;
            return self.at(at, Happening::Relist(number, life));
        }
        gateway::clock::play(Some(self.skewed(number)));
        let changes = self.api.changes();
        let list = self.api.list();
        let Some(running) = &mut self.hosts[number].running else {
            return;
        };
        let mut listed = Listed::default();
        let mut devices = Vec::new();
        let index = running.gateway.index();
        for change in list {
            match change.object {
                Object::Device(device) => {
                    let device = crds::Device::clone(&device);
                    devices.extend(KnownDevice::read(device));
                }
                Object::Invocation(invocation) => {
                    let invocation = crds::CapabilityInvocation::clone(&invocation);
                    let open = OpenInvocation::read(invocation)
                        .filter(|invocation| !invocation.phase().is_terminal());
                    if let Some(open) = open {
                        index.invocations.list(&mut listed, open);
                    }
                }
            }
        }
        index.devices.replace(devices);
        index.invocations.replace(listed);
        running.seen = changes;
        running.dirty = true;
        running.gateway.changed(Changed::Everything);
        tell!(self, "{} lists everything", gateway_name(number));
    }

    pub(super) fn lease(&mut self, number: usize, life: u32) {
        let host = &self.hosts[number];
        if host.life != life || host.running.is_none() {
            return;
        }
        if self.now >= self.api_away_until && self.operator.is_some() {
            let operator = self.operators;
            let at = self.operator_slow_until.max(self.now);
            self.at(at, Happening::Renewed(operator, number));
        }
        if self.now >= self.api_away_until {
            let name = gateway_name(number);
            let lease = json!({
                "metadata": {
                    "name": name, "resourceVersion": self.api.renew(),
                    "annotations": { ADVERTISE_ANNOTATION: format!("{name}.example:7443") },
                },
                "spec": {
                    "leaseDurationSeconds": GATEWAY_LEASE_SECONDS,
                    "renewTime": format!("{:.6}", self.skewed(number)),
                },
            });
            let at = self.hosts[number].slow_until.max(self.now + LEASE_NEWS);
            self.at(at, Happening::SeeLease(number, life, Box::new(lease)));
        }
        self.at(self.now + LEASE_EVERY, Happening::Lease(number, life));
    }

    /// The gateway sees its own renewal.
    pub(super) fn see_lease(&mut self, number: usize, life: u32, lease: Value) {
        let now = self.skewed(number);
        let host = &mut self.hosts[number];
        if host.life == life
            && let Some(running) = &mut host.running
        {
            if let Ok(lease) = serde_json::from_value(lease) {
                running.gateway.index().gateways.insert(lease, now);
            }
        }
    }

    // The operator.

    /// A renewal comes by a watch of its own.
    pub(super) fn renewed(&mut self, life: u32, number: usize) {
        let now = self.skewed(GATEWAYS);
        if let Some(operator) = self.operator.as_mut().filter(|one| one.life == life) {
            operator.renewed(&gateway_name(number), now);
        }
    }

    /// What it missed it finds in the list; what it concludes from silence counts from here.
    pub(super) fn operator_lists(&mut self, life: u32) {
        if self.now < self.api_away_until {
            let at = self.api_away_until + 100;
            return self.at(at, Happening::OperatorLists(life));
        }
        let (now, changes, list) = (self.skewed(GATEWAYS), self.api.changes(), self.api.list());
        if let Some(operator) = self.operator.as_mut().filter(|one| one.life == life) {
            for change in list {
                operator.see(change);
            }
            operator.seen = changes;
            operator.sight(Some(now));
            tell!(self, "the operator lists everything");
        }
    }

    pub(super) fn start_operator(&mut self) {
        if self.operator.is_some() {
            return;
        }
        if self.now < self.api_away_until {
            let at = self.api_away_until + 200;
            return self.at(at, Happening::StartOperator);
        }
        self.operators += 1;
        let now = self.skewed(GATEWAYS);
        let known = (0..GATEWAYS).filter(|number| self.hosts[*number].life > 0);
        let mut operator = Operator::begin(self.operators, now, known.map(gateway_name));
        for change in self.api.list() {
            operator.see(change);
        }
        operator.seen = self.api.changes();
        self.operator = Some(operator);
        self.operator_is_due = false;
        self.operator_frozen_until = 0;
    }

    pub(super) fn see_operator(&mut self, life: u32) {
        let now = self.skewed(GATEWAYS);
        let is_away = self.now < self.api_away_until;
        let Some(operator) = self
            .operator
            .as_mut()
            .filter(|operator| operator.life == life)
        else {
            return;
        };
        self.operator_is_due = false;
        if is_away {
            self.operator_is_due = true;
            let at = self.api_away_until + 50;
            return self.at(at, Happening::SeeOperator(life));
        }
        // A watch brings several at once, or one; or none yet, and time goes on.
        let is_slow = self.now < self.operator_slow_until;
        let most = if is_slow {
            0
        } else {
            self.chance.between(1, 4)
        };
        for _ in 0..most {
            let Some(change) = self.api.change(operator.seen) else {
                break;
            };
            operator.seen += 1;
            operator.see(change);
        }
        let writes = operator.work(now);
        if self.dies() {
            self.operator = None;
            tell!(self, "the operator dies between two steps");
            let after = self.chance.pick(&[50, 2_000, 20_000]);
            return self.at(self.now + after, Happening::StartOperator);
        }
        for write in writes {
            self.after_ms(1, 60, Happening::End(life, Box::new(write)));
        }
    }

    pub(super) fn end(&mut self, _: u32, write: Write) {
        if self.now < self.api_away_until {
            return;
        }
        let key = (Kind::Invocation, write.name);
        let status = serde_json::to_value(&write.status).unwrap_or_else(|_| json!({}));
        let code = self.api.write_status(&key, &write.version, &status);
        tell!(self, "the operator ends {}: {code}", key.1);
    }
}

/// As the gateway's watch does.
fn show(running: &mut Running, change: Change) {
    let index = running.gateway.index();
    let device = match change.object {
        Object::Device(device) => {
            let device = crds::Device::clone(&device);
            if let Some(known) = KnownDevice::read(device) {
                index.devices.insert(known);
            }
            DeviceKey::new(NAMESPACE, change.key.1)
        }
        Object::Invocation(invocation) => {
            let invocation = crds::CapabilityInvocation::clone(&invocation);
            let Some(invocation) = OpenInvocation::read(invocation) else {
                return;
            };
            let device = invocation.device.clone();
            if invocation.phase().is_terminal() {
                index.invocations.remove(&device, &invocation.name);
            } else {
                index.invocations.insert(invocation);
            }
            device
        }
    };
    running.gateway.changed(Changed::Device(&device));
}

/// As its certificate says.
pub(super) fn device_key(number: usize) -> DeviceKey {
    DeviceKey::new(NAMESPACE, device_name(number))
}
