//! Connections: how they come to be, what travels on them, and how each side learns that one is no more.
//!
//! Within one connection messages keep their order, as TCP has it. Between two of them nothing does: the last words of
//! an old one may arrive after the first of a new one, at another gateway.

use std::collections::VecDeque;

use gateway::domain::register;
use gateway::node::played::Caller;
use jiff::Timestamp;
use proto::node::{self, DeviceEvent, GatewayEvent, device_event, gateway_event};

use super::{Happening, World, device_name, gateway_name, gateways::device_key, key_of};
use crate::simulation::agent::CAPABILITY;
use crate::simulation::link::{Link, WINDOW};
use crate::simulation::script::GATEWAYS;

const HEARTBEAT: u64 = 15_000;
const MAX_UNANSWERED: u32 = 3;
/// How long an agent waits for a welcome.
const WELCOME: u64 = 10_000;
/// How much later a message may come once more.
const REPEATED_WITHIN: u64 = 3_000;

impl World {
    pub(super) fn dial(&mut self, number: usize, life: u32) {
        let device = &self.devices[number];
        let is_alive = device
            .life
            .as_ref()
            .is_some_and(|alive| alive.number == life);
        if !is_alive || device.link.is_some() {
            return;
        }
        let gateway = self.chance.index(GATEWAYS);
        if self.hosts[gateway].running.is_none() {
            return self.after_ms(100, 3_000, Happening::Dial(number, life));
        }
        let slowest = if self.script.is_calm {
            (5, 60)
        } else {
            (100, 900)
        };
        let delay = self.chance.pick(&[(1, 5), (1, 5), (5, 60), slowest]);
        self.count += 1;
        let of = self.count;
        let link = Link {
            agent: number,
            agent_life: life,
            gateway,
            gateway_life: self.hosts[gateway].life,
            up: VecDeque::new(),
            down: VecDeque::new(),
            up_at: self.now,
            down_at: self.now,
            heard: VecDeque::new(),
            outgoing: None,
            delay,
            stalled_until: 0,
            dead: false,
            welcomed: false,
            unanswered: 0,
        };
        self.links.insert(of, link);
        self.devices[number].link = Some(of);
        self.after_ms(delay.0, 3 * delay.1, Happening::Arrive(of));
        self.at(self.now + WELCOME, Happening::GiveUp(of));
    }

    /// Register and Hello are there.
    pub(super) fn arrive(&mut self, of: u64) {
        let Some(link) = self.links.get(&of).filter(|link| !link.dead) else {
            return;
        };
        let (agent, number, life) = (link.agent, link.gateway, link.gateway_life);
        gateway::clock::play(Some(self.skewed(number)));
        let host = &mut self.hosts[number];
        let running = host.running.as_mut().filter(|_| host.life == life);
        let mut request = node::RegisterRequest::default();
        request.capabilities.push(node::Capability {
            name: CAPABILITY.to_owned(),
            ..node::Capability::default()
        });
        let opened = running.and_then(|running| {
            let caller = Caller {
                key: device_key(agent),
                fingerprint: key_of(agent),
                not_after: Timestamp::MAX,
                hang_up: gateway::hang_up::HangUp::default(),
            };
            let declared = register::read(request).ok()?;
            running.dirty = true;
            let (carried, outgoing) = running.gateway.open(caller, declared).ok()?;
            running.streams.insert(of, carried);
            Some(outgoing)
        });
        tell!(
            self,
            "{} is {} at {} (link {of})",
            device_name(agent),
            if opened.is_some() {
                "let in"
            } else {
                "turned away"
            },
            gateway_name(number)
        );
        let is_open = opened.is_some();
        if let Some(link) = self.links.get_mut(&of) {
            link.outgoing = opened;
        }
        if !is_open {
            self.after_ms(1, 100, Happening::BrokenAtAgent(of));
        }
    }

    pub(super) fn give_up(&mut self, of: u64) {
        if self.links.get(&of).is_some_and(|link| !link.welcomed) {
            self.close_at_agent(of);
        }
    }

    /// The agent says something.
    pub(super) fn send_up(&mut self, of: u64, event: device_event::Event) {
        let Some(link) = self.links.get_mut(&of).filter(|link| !link.dead) else {
            return;
        };
        let event = DeviceEvent { event: Some(event) };
        link.up.push_back(event.clone());
        let took = self.chance.between(link.delay.0, link.delay.1);
        link.up_at = link.up_at.max(self.now + took);
        let at = link.up_at;
        self.at(at, Happening::Up(of));
        let carries_life = matches!(
            event.event,
            Some(
                device_event::Event::Accepted(_)
                    | device_event::Event::AwaitingMediation(_)
                    | device_event::Event::Result(_)
            )
        );
        if carries_life && self.repeats() {
            let later = at + self.chance.between(0, REPEATED_WITHIN);
            self.at(later, Happening::UpAgain(of, Box::new(event)));
        }
    }

    /// Whether a message comes twice. No connection does that by itself; who speaks may, and who hears must bear it.
    fn repeats(&mut self) -> bool {
        let repeats = self.script.repeats;
        self.is_storm() && repeats > 0 && self.chance.one_in(repeats)
    }

    pub(super) fn up_again(&mut self, of: u64, event: DeviceEvent) {
        let link = self.links.get_mut(&of).filter(|link| !link.dead);
        if let Some(link) = link.filter(|link| link.up.len() < WINDOW) {
            link.up.push_back(event);
            let at = link.up_at.max(self.now);
            self.at(at, Happening::Up(of));
        }
    }

    pub(super) fn down_again(&mut self, of: u64, event: GatewayEvent) {
        let link = self.links.get_mut(&of).filter(|link| !link.dead);
        if let Some(link) = link.filter(|link| link.down.len() < WINDOW) {
            link.down.push_back(event);
            let at = link.down_at.max(self.now);
            self.at(at, Happening::Down(of));
        }
    }

    /// The gateway says something.
    pub(super) fn send_down(&mut self, of: u64, event: GatewayEvent) {
        let Some(link) = self.links.get_mut(&of).filter(|link| !link.dead) else {
            return;
        };
        link.down.push_back(event.clone());
        let took = self.chance.between(link.delay.0, link.delay.1);
        link.down_at = link.down_at.max(self.now + took);
        let at = link.down_at;
        self.at(at, Happening::Down(of));
        let carries_life = matches!(
            event.event,
            Some(
                gateway_event::Event::Dispatch(_)
                    | gateway_event::Event::Cancel(_)
                    | gateway_event::Event::ResultAck(_)
            )
        );
        if carries_life && self.repeats() {
            let later = at + self.chance.between(0, REPEATED_WITHIN);
            self.at(later, Happening::DownAgain(of, Box::new(event)));
        }
    }

    pub(super) fn up(&mut self, of: u64) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&of) else {
            return;
        };
        if link.stalled_until > now {
            let at = link.stalled_until;
            return self.at(at, Happening::Up(of));
        }
        if link.heard.len() >= WINDOW {
            return self.at(now + 50, Happening::Up(of));
        }
        let (agent, life, gateway) = (link.agent, link.agent_life, link.gateway);
        let Some(event) = link.up.pop_front() else {
            return;
        };
        if let Some(device_event::Event::Result(result)) = &event.event {
            tell!(
                self,
                "{} hears of {}: {:?} {:?} (link {of})",
                gateway_name(gateway),
                result.name,
                result.outcome(),
                result.failure.as_ref().map(node::Failure::code)
            );
        }
        if let Some(link) = self.links.get_mut(&of) {
            link.heard.push_back(event);
        }
        self.soil(gateway);
        let alive = self.devices[agent].life.as_ref();
        if alive.is_some_and(|alive| alive.number == life && alive.wants_room()) {
            self.at(now, Happening::Turn(agent, life));
        }
    }

    pub(super) fn down(&mut self, of: u64) {
        let Some(link) = self.links.get_mut(&of) else {
            return;
        };
        if link.stalled_until > self.now {
            let at = link.stalled_until;
            return self.at(at, Happening::Down(of));
        }
        let (agent, life, gateway) = (link.agent, link.agent_life, link.gateway);
        let Some(event) = link.down.pop_front().and_then(|event| event.event) else {
            return;
        };
        if matches!(event, gateway_event::Event::HeartbeatAck(_)) {
            link.unanswered = 0;
        }
        let is_welcome = matches!(event, gateway_event::Event::Welcome(_));
        link.welcomed |= is_welcome;
        self.soil(gateway);
        let now = self.moment_of(agent);
        let device = &mut self.devices[agent];
        let is_current = device.link == Some(of);
        let alive = device.life.as_mut().filter(|alive| alive.number == life);
        let Some(alive) = alive.filter(|_| is_current) else {
            return;
        };
        let told = match &event {
            gateway_event::Event::Dispatch(dispatch) => Some(format!(
                "is to run {} within {} ms",
                dispatch.name, dispatch.remaining_ms
            )),
            gateway_event::Event::Cancel(cancel) => Some(format!("is to stop {}", cancel.name)),
            gateway_event::Event::ResultAck(ack) => Some(format!("has an ack for {}", ack.uid)),
            gateway_event::Event::Welcome(_)
            | gateway_event::Event::Drain(_)
            | gateway_event::Event::HeartbeatAck(_)
            | gateway_event::Event::Renewed(_)
            | gateway_event::Event::ArtefactWanted(_)
            | gateway_event::Event::ArtefactStored(_)
            | gateway_event::Event::ArtefactRefused(_) => None,
        };
        if is_welcome {
            alive.opened(of);
        } else {
            alive.heard(event, now);
        }
        if let Some(told) = told {
            tell!(self, "{} {told} (link {of})", device_name(agent));
        }
        if is_welcome {
            self.at(self.now + HEARTBEAT, Happening::Beat(of));
        }
        self.after_ms(0, 3, Happening::Turn(agent, life));
    }

    pub(super) fn beat(&mut self, of: u64) {
        let Some(link) = self.links.get_mut(&of) else {
            return;
        };
        let (agent, life) = (link.agent, link.agent_life);
        let alive = self.devices[agent].life.as_ref();
        let is_alive = alive.is_some_and(|alive| alive.number == life && alive.link() == Some(of));
        if !is_alive {
            return;
        }
        if link.unanswered >= MAX_UNANSWERED {
            return self.close_at_agent(of);
        }
        link.unanswered += 1;
        self.send_up(of, device_event::Event::Heartbeat(node::Heartbeat {}));
        self.at(self.now + HEARTBEAT, Happening::Beat(of));
    }

    /// The connection that a device has breaks. Each side learns of it in its own time, or not at all.
    pub(super) fn cut(&mut self, number: usize) {
        let Some(of) = self.devices[number].link else {
            return;
        };
        let (up, down) = (self.chance.index(WINDOW), self.chance.index(WINDOW));
        let Some(link) = self.links.get_mut(&of) else {
            return;
        };
        link.cut(up, down);
        let (up_at, down_at) = (link.up_at.max(self.now), link.down_at.max(self.now));
        if !self.chance.one_in(4) {
            let after = self.chance.pick(&[1, 100, 3_000, 12_000]);
            self.at(down_at + after, Happening::BrokenAtAgent(of));
        }
        if !self.chance.one_in(4) {
            let after = self.chance.pick(&[1, 100, 3_000, 12_000]);
            self.at(up_at + after, Happening::BrokenAtGateway(of));
        }
    }

    /// The gateway ends it, or dies: the agent hears what was sent, and then that it is over.
    pub(super) fn end_at_gateway(&mut self, of: u64) {
        let Some(link) = self.links.get_mut(&of) else {
            return;
        };
        link.outgoing = None;
        if link.dead {
            return;
        }
        link.dead = true;
        let at = link.down_at.max(link.stalled_until).max(self.now);
        // A machine that is gone says nothing.
        if !self.chance.one_in(6) {
            let after = self.chance.pick(&[1, 50]);
            self.at(at + after, Happening::BrokenAtAgent(of));
        }
    }

    /// The agent ends it, or dies: the gateway hears what was sent, and then that it is over.
    pub(super) fn close_at_agent(&mut self, of: u64) {
        let Some(link) = self.links.get_mut(&of) else {
            return;
        };
        let was_dead = std::mem::replace(&mut link.dead, true);
        link.down.clear();
        let at = link.up_at.max(link.stalled_until).max(self.now);
        if !was_dead && !self.chance.one_in(6) {
            let after = self.chance.pick(&[1, 50, 2_000]);
            self.at(at + after, Happening::BrokenAtGateway(of));
        }
        self.broken_at_agent(of);
    }

    pub(super) fn broken_at_agent(&mut self, of: u64) {
        let Some(link) = self.links.get_mut(&of) else {
            return;
        };
        let (agent, life, welcomed) = (link.agent, link.agent_life, link.welcomed);
        let device = &mut self.devices[agent];
        if device.link != Some(of) {
            return;
        }
        device.link = None;
        tell!(self, "{} has lost link {of}", device_name(agent));
        let device = &mut self.devices[agent];
        if let Some(alive) = device.life.as_mut().filter(|alive| alive.number == life) {
            alive.closed(of);
            self.at(self.now, Happening::Turn(agent, life));
            let most = if welcomed { 1_000 } else { 4_000 };
            self.after_ms(10, most, Happening::Dial(agent, life));
        }
    }

    pub(super) fn broken_at_gateway(&mut self, of: u64) {
        let Some(link) = self.links.get(&of) else {
            return;
        };
        let (number, life) = (link.gateway, link.gateway_life);
        let host = &mut self.hosts[number];
        if host.life == life
            && let Some(running) = &mut host.running
            && let Some(stream) = running.streams.get_mut(&of)
        {
            stream.broke();
            running.dirty = true;
            tell!(self, "{} has lost link {of}", gateway_name(number));
        }
    }
}
