//! Agents: how they begin and end, their turns, and what their capabilities do to the world.

use std::sync::Arc;

use node_agent::agent::order::{Ending, Order, Why};
use node_agent::journal::Uid;
use proto::node::FailureCode;
use serde_json::{Value, json};

use super::{Device, Happening, Run, World, device_name};
use crate::simulation::agent::{Act, Around, Life, Turn};

impl World {
    pub(super) fn start_agent(&mut self, number: usize) {
        let (make, now) = (self.script.makes[number], self.moment_of(number));
        let device = &mut self.devices[number];
        if device.life.is_some() {
            return;
        }
        device.lives += 1;
        let life = device.lives;
        device.life = Some(Life::begin(life, make, &device.disk, now));
        device.frozen_until = 0;
        tell!(self, "{} starts", device_name(number));
        self.at(self.now, Happening::Turn(number, life));
        self.after_ms(1, 200, Happening::Dial(number, life));
    }

    pub(super) fn kill_agent(&mut self, number: usize, millis: u64) {
        let share = self.chance.below(1_025);
        let Some(life) = self.devices[number].life.take() else {
            return;
        };
        self.devices[number].disk = life.remains(share);
        self.gone(number, millis);
    }

    /// An agent is no more, however it ended.
    fn gone(&mut self, number: usize, millis: u64) {
        if let Some(link) = self.devices[number].link {
            self.close_at_agent(link);
            self.devices[number].link = None;
        }
        let now = self.time();
        self.devices[number].ends.push(now);
        // What it ran ends with it, most of the time.
        let runs: Vec<u64> = self.devices[number].runs.keys().copied().collect();
        for run in runs {
            if !self.chance.one_in(3) {
                self.devices[number].runs.remove(&run);
            }
        }
        self.at(self.now + millis, Happening::StartAgent(number));
    }

    /// Whether a program dies here.
    pub(super) fn dies(&mut self) -> bool {
        let deaths = self.script.deaths * 8;
        self.is_storm() && deaths > 0 && self.chance.one_in(deaths)
    }

    pub(super) fn turn(&mut self, number: usize, life: u32) {
        let now = self.moment_of(number);
        let is_storm = self.is_storm();
        let (batch, share) = (1 + self.chance.index(6), self.chance.below(1_025));
        let room = self.devices[number]
            .link
            .and_then(|link| self.links.get(&link))
            .map_or(0, |link| if link.dead { usize::MAX } else { link.room() });
        let device = &mut self.devices[number];
        let Some(alive) = device.life.as_mut().filter(|alive| alive.number == life) else {
            return;
        };
        let (deaths, chance) = (self.script.deaths, &mut self.chance);
        let mut dies = || is_storm && deaths > 0 && chance.one_in(deaths);
        let turn = alive.turn(Around {
            now,
            room,
            disk_is_full: device.disk_is_full,
            batch,
            dies: &mut dies,
            share,
        });
        let (link, more) = (alive.link(), alive.has_events());
        let Turn {
            acts,
            wake,
            died,
            over,
        } = turn;
        for act in acts {
            match act {
                Act::Start(order) => self.start_capability(number, life, order),
                Act::Stop(uid, why) => self.stop_capability(number, &uid, why),
                Act::Say(event) => {
                    if let Some(link) = link {
                        self.send_up(link, *event);
                    }
                }
            }
        }
        if died {
            tell!(self, "{} dies between two acts", device_name(number));
            let after = self.chance.pick(&[50, 2_000, 20_000]);
            return self.kill_agent(number, after);
        }
        if over {
            tell!(self, "{} stops in good order", device_name(number));
            let after = self.chance.pick(&[50, 2_000]);
            return self.kill_agent(number, after);
        }
        if more {
            self.at(self.now + 1, Happening::Turn(number, life));
        }
        if let Some(wake) = wake {
            let wait = u64::try_from(wake.since(now).as_millis()).unwrap_or(u64::MAX / 2_000);
            let wait = wait * 1_000 / self.script.rates[number] + 1;
            self.at(self.now + wait, Happening::Turn(number, life));
        }
    }

    fn start_capability(&mut self, number: usize, life: u32, order: Arc<Order>) {
        let input: Value = serde_json::from_slice(&order.input).unwrap_or_default();
        let id = input["id"].as_str().unwrap_or_default().to_owned();
        tell!(
            self,
            "{} begins {} for {id}",
            device_name(number),
            order.name
        );
        let own = self
            .effects
            .entry(order.uid.as_str().to_owned())
            .or_default();
        own.began += 1;
        let began = own.began;
        let shared = self.of_ids.entry(id.clone()).or_default();
        shared.began += 1;
        if began > 1 || shared.began > 1 {
            let name = order.name.clone();
            self.wrong(format!("{name} has its effect twice, for {id}"));
        }
        let hold = input["holdMs"].as_u64().unwrap_or_default();
        let ends_at = self.now + hold + self.chance.below(5);
        self.count += 1;
        let run = self.count;
        self.devices[number].runs.insert(
            run,
            Run {
                life,
                order,
                id,
                ends_at,
                fails: input["fails"] == json!(true),
                stopped: None,
            },
        );
        self.at(ends_at, Happening::Ends(number, run));
    }

    /// SIGTERM: it ends at once, or at its own time if that is soon, or is killed.
    fn stop_capability(&mut self, number: usize, uid: &Uid, why: Why) {
        let now = self.now;
        let deaf = self.chance.one_in(4);
        let grace = if deaf {
            2_000
        } else {
            self.chance.between(1, 300)
        };
        let found = self.devices[number]
            .runs
            .iter_mut()
            .find(|(_, run)| run.order.uid == *uid && run.stopped.is_none());
        if let Some((of, run)) = found
            && run.ends_at > now + grace
        {
            run.ends_at = now + grace;
            run.stopped = Some(why);
            let (of, at) = (*of, run.ends_at);
            self.at(at, Happening::Ends(number, of));
        }
    }

    pub(super) fn ends(&mut self, number: usize, of: u64) {
        let is_due = |run: &Run| run.ends_at <= self.now;
        let Device { runs, .. } = &self.devices[number];
        if !runs.get(&of).is_some_and(is_due) {
            return;
        }
        let Some(run) = self.devices[number].runs.remove(&of) else {
            return;
        };
        let uid = run.order.uid.as_str().to_owned();
        let own = self.effects.entry(uid).or_default();
        let shared = self.of_ids.entry(run.id.clone()).or_default();
        let ending = match (run.stopped, run.fails) {
            (Some(why), _) => Ending::Stopped(why),
            (None, true) => {
                own.failed += 1;
                shared.failed += 1;
                Ending::Failed(FailureCode::CapabilityFailed, "told to".to_owned())
            }
            (None, false) => {
                own.done += 1;
                shared.done += 1;
                Ending::Output(json!({ "id": run.id }).to_string().into_bytes())
            }
        };
        tell!(
            self,
            "{} ends {}: {ending:?}",
            device_name(number),
            run.order.name
        );
        let life = self.devices[number].life.as_mut();
        if let Some(life) = life.filter(|life| life.number == run.life) {
            life.completed(run.order.uid.clone(), ending);
            self.at(self.now, Happening::Turn(number, run.life));
        }
    }
}
