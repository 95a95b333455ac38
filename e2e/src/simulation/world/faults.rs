//! What goes wrong, and how it comes right again.

use super::{GATEWAYS, Happening, Kind, World, device_name, name_of};
use crate::simulation::script::Fault;
use serde_json::json;

impl World {
    /// Until when a program cannot take note of what happens, because it is frozen.
    pub(super) fn frozen_until(&self, happening: &Happening) -> Option<u64> {
        let of_link = |link: &u64| {
            let agent = self.links.get(link)?.agent;
            Some(self.devices[agent].frozen_until)
        };
        let at_gateway = |link: &u64| {
            let link = self.links.get(link)?;
            Some(self.hosts[link.gateway].frozen_until)
        };
        let until = match happening {
            Happening::SeeGateway(number, _)
            | Happening::Relist(number, _)
            | Happening::Lease(number, _)
            | Happening::SeeLease(number, ..) => Some(self.hosts[*number].frozen_until),
            Happening::Arrive(link) | Happening::BrokenAtGateway(link) => at_gateway(link),
            Happening::Turn(number, _) | Happening::Dial(number, _) => {
                Some(self.devices[*number].frozen_until)
            }
            Happening::Down(link)
            | Happening::Beat(link)
            | Happening::GiveUp(link)
            | Happening::BrokenAtAgent(link) => of_link(link),
            Happening::SeeOperator(_) | Happening::OperatorLists(_) | Happening::Renewed(..) => {
                Some(self.operator_frozen_until)
            }
            // What is on its way, what runs on a device, and what people and the API server do.
            Happening::Deed(_)
            | Happening::Fault(_)
            | Happening::StartGateway(_)
            | Happening::StartOperator
            | Happening::StartAgent(_)
            | Happening::Perform(..)
            | Happening::Answer(..)
            | Happening::End(..)
            | Happening::Up(_)
            | Happening::UpAgain(..)
            | Happening::DownAgain(..)
            | Happening::Ends(..)
            | Happening::DiskIsFree(_)
            | Happening::ApiIsBack
            | Happening::Trust(_)
            | Happening::Reconnect
            | Happening::Wake => None,
        };
        until.filter(|until| *until > self.now)
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        tell!(self, "{fault:?}");
        match fault {
            Fault::KillGateway(number, millis) => self.kill_gateway(number, millis),
            Fault::KillOperator(millis) => {
                if self.operator.take().is_some() {
                    self.at(self.now + millis, Happening::StartOperator);
                }
            }
            Fault::KillAgent(number, millis) => self.kill_agent(number, millis),
            Fault::StopAgent(number) => {
                let end = self.time();
                self.devices[number].ends.push(end);
                let now = self.moment_of(number);
                if let Some(life) = &mut self.devices[number].life {
                    life.stop(now);
                    let life = life.number;
                    self.at(self.now, Happening::Turn(number, life));
                }
            }
            Fault::Cut(number) => self.cut(number),
            Fault::Stall(number, millis) => {
                let until = self.now + millis;
                let link = self.devices[number].link;
                if let Some(link) = link.and_then(|link| self.links.get_mut(&link)) {
                    link.stalled_until = until;
                    let gateway = link.gateway;
                    self.at(until, Happening::Wake);
                    self.soil(gateway);
                }
            }
            Fault::ApiAway(millis, silent) => {
                self.api_away_until = self.now + millis;
                self.api_is_silent = silent;
                if let Some(operator) = &mut self.operator {
                    operator.sight(None);
                }
                self.at(self.api_away_until, Happening::ApiIsBack);
            }
            Fault::SlowWatch(number, millis) => self.hosts[number].slow_until = self.now + millis,
            Fault::Gap(number, millis) => {
                let until = self.now + millis;
                self.hosts[number].gap_until = until;
                let life = self.hosts[number].life;
                self.at(until, Happening::Relist(number, life));
            }
            Fault::SlowOperator(millis) => self.operator_slow_until = self.now + millis,
            Fault::OperatorGap(millis) => {
                let until = self.now + millis;
                self.operator_slow_until = until;
                let life = self.operators;
                self.at(until, Happening::OperatorLists(life));
            }
            Fault::FreezeGateway(number, millis) => {
                let until = self.now + millis;
                self.hosts[number].frozen_until = until;
                self.soil(number);
                self.at(until, Happening::Wake);
            }
            Fault::FreezeOperator(millis) => {
                self.operator_frozen_until = self.now + millis;
            }
            Fault::FreezeAgent(number, millis) => {
                self.devices[number].frozen_until = self.now + millis;
            }
            Fault::Suspend(number, millis) => {
                self.trust(number, "Suspended");
                self.at(self.now + millis, Happening::Trust(number));
            }
            Fault::FullDisk(number, millis) => {
                self.devices[number].disk_is_full = true;
                self.at(self.now + millis, Happening::DiskIsFree(number));
            }
            Fault::Touch(number) => {
                let mut keys = vec![(Kind::Device, device_name(number))];
                keys.extend(
                    (0..self.script.invocations.len()).map(|n| (Kind::Invocation, name_of(n))),
                );
                for key in keys {
                    if let Some(mut object) = self.api.get(&key) {
                        let by = self.now.to_string();
                        object["metadata"]["annotations"] = json!({ "touched": by });
                        self.api.put(&key, object);
                    }
                }
            }
        }
    }

    pub(super) fn api_is_back(&mut self) {
        if self.now < self.api_away_until {
            return;
        }
        let now = self.skewed(GATEWAYS);
        if let Some(operator) = &mut self.operator {
            operator.sight(Some(now));
        }
    }

    /// Somebody decides about a device.
    pub(super) fn trust(&mut self, number: usize, trust: &str) {
        let key = (Kind::Device, device_name(number));
        if let Some(mut object) = self.api.get(&key) {
            tell!(self, "somebody makes {} {trust}", key.1);
            object["spec"]["trust"] = json!(trust);
            self.api.put(&key, object);
        }
    }
}
