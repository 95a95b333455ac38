//! What is done to the programs, and when, from a seed. Pure: the same seed gives the same schedule.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::proxy::Way;

/// One thing that is done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Creates the invocation of that number in the schedule.
    Invoke(Invocation),
    /// Cancels the invocation of that number in the schedule.
    Cancel(usize),
    /// SIGKILL.
    Kill(Victim),
    /// Starts what was killed.
    Start(Victim),
    /// SIGSTOP.
    Freeze(Victim),
    /// SIGCONT.
    Thaw(Victim),
    /// Resets all connections of a gateway.
    Cut(usize),
    /// Lets nothing through to or from a gateway.
    Stall(usize),
    /// Lets it through again.
    Clear(usize),
    /// Ends one way between a gateway and its devices.
    HalfClose(Way, usize),
    /// SIGKILL for the API server, and starts it again.
    RestartApiServer,
    /// Starts a second agent on the same state folder, which must refuse.
    Second(usize),
    /// Fills the disk that the agent's state is on.
    FillDisk(usize),
    /// Makes room on it again.
    FreeDisk(usize),
}

/// A program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Victim {
    Operator,
    Gateway(usize),
    Agent(usize),
}

/// What is asked of a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invocation {
    pub number: usize,
    pub device: usize,
    pub hold_ms: u64,
    pub fails: bool,
    pub timeout_seconds: i64,
    /// `whenOffline: Queue` with so long a wait.
    pub queue_seconds: Option<i64>,
    /// Whether it has the schedule's idempotency key. All that do ask the same of the same device.
    pub keyed: bool,
}

/// What there is to play with.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    pub gateways: usize,
    pub devices: usize,
}

/// Actions in the order of their moments, which count from the schedule's begin.
pub type Schedule = Vec<(Duration, Action)>;

/// The length within which everything is begun. What is frozen or killed comes back
/// within as much again, or a few seconds.
const LENGTH_MS: u64 = 1500;
/// One schedule in so many restarts the API server, which takes seconds. Not left to chance, so that a short set has it.
const API_SERVER_EVERY: u64 = 12;

/// Draws a schedule.
pub fn draw(seed: u64, stage: Stage) -> Schedule {
    let mut random = StdRng::seed_from_u64(seed);
    let mut schedule = Schedule::new();
    let moment = |random: &mut StdRng| Duration::from_millis(random.random_range(0..LENGTH_MS));
    for number in 0..random.random_range(2..=6) {
        let at = moment(&mut random);
        let keyed = random.random_ratio(1, 4);
        let invocation = Invocation {
            number,
            device: if keyed {
                0
            } else {
                random.random_range(0..stage.devices)
            },
            hold_ms: if keyed {
                200
            } else {
                *pick(&mut random, &[0, 0, 20, 150, 600, 2500])
            },
            fails: !keyed && random.random_ratio(1, 8),
            timeout_seconds: *pick(&mut random, &[1, 2, 5, 15]),
            queue_seconds: random.random_ratio(1, 2).then_some(10),
            keyed,
        };
        if random.random_ratio(1, 6) {
            let after = Duration::from_millis(random.random_range(0..400));
            schedule.push((at + after, Action::Cancel(number)));
        }
        schedule.push((at, Action::Invoke(invocation)));
    }
    for _ in 0..random.random_range(1..=3) {
        let at = moment(&mut random);
        let until = at + Duration::from_millis(random.random_range(10..LENGTH_MS));
        let gateway = random.random_range(0..stage.gateways);
        let victim = match random.random_range(0..8) {
            0 => Victim::Operator,
            1..=4 => Victim::Gateway(gateway),
            _ => Victim::Agent(random.random_range(0..stage.devices)),
        };
        // Now and then for longer than most invocations have.
        let until = if random.random_ratio(1, 5) {
            at + Duration::from_millis(random.random_range(2_500..6_000))
        } else {
            until
        };
        let device = random.random_range(0..stage.devices);
        let (begin, end) = match random.random_range(0..13) {
            0..=3 => (Action::Kill(victim), Some(Action::Start(victim))),
            4 | 5 => (Action::Freeze(victim), Some(Action::Thaw(victim))),
            6 | 7 => (Action::Cut(gateway), None),
            8 => (Action::Stall(gateway), Some(Action::Clear(gateway))),
            9 => {
                let way = *pick(&mut random, &[Way::ToDevices, Way::ToGateway]);
                (Action::HalfClose(way, gateway), None)
            }
            10 => (Action::Second(device), None),
            _ => (Action::FillDisk(device), Some(Action::FreeDisk(device))),
        };
        // One thing at a time for each program: what is frozen cannot be started.
        let taken = schedule
            .iter()
            .any(|(_, other)| *other == begin || of(other) == of(&begin) && of(other).is_some());
        if !taken {
            schedule.push((at, begin));
            schedule.extend(end.map(|end| (until, end)));
        }
    }
    if seed.is_multiple_of(API_SERVER_EVERY) {
        schedule.push((moment(&mut random), Action::RestartApiServer));
    }
    // Stable: a cancel at the same moment stays behind the creation only if that is pushed first, so creations go first.
    schedule.sort_by_key(|(at, action)| (*at, !matches!(action, Action::Invoke(_))));
    schedule
}

fn pick<'a, T>(random: &mut StdRng, of: &'a [T]) -> &'a T {
    &of[random.random_range(0..of.len())]
}

/// The program that an action is about.
fn of(action: &Action) -> Option<Victim> {
    match action {
        Action::Kill(victim)
        | Action::Start(victim)
        | Action::Freeze(victim)
        | Action::Thaw(victim) => Some(*victim),
        Action::Invoke(_)
        | Action::Cancel(_)
        | Action::Cut(_)
        | Action::Stall(_)
        | Action::Clear(_)
        | Action::HalfClose(..)
        | Action::RestartApiServer
        | Action::Second(_)
        | Action::FillDisk(_)
        | Action::FreeDisk(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const STAGE: Stage = Stage {
        gateways: 2,
        devices: 2,
    };

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(draw(7, STAGE), draw(7, STAGE));
        assert_ne!(draw(7, STAGE), draw(8, STAGE));
    }

    #[test]
    fn what_is_taken_away_comes_back_and_moments_do_not_go_back() {
        for seed in 0..2000 {
            let schedule = draw(seed, STAGE);
            assert!(schedule.is_sorted_by_key(|(at, _)| *at), "{seed}");
            let count = |wanted: fn(&Action) -> bool| {
                schedule.iter().filter(|(_, action)| wanted(action)).count()
            };
            assert_eq!(
                count(|action| matches!(action, Action::Kill(_))),
                count(|action| matches!(action, Action::Start(_))),
                "{seed}"
            );
            assert_eq!(
                count(|action| matches!(action, Action::Freeze(_))),
                count(|action| matches!(action, Action::Thaw(_))),
                "{seed}"
            );
            assert_eq!(
                count(|action| matches!(action, Action::Stall(_))),
                count(|action| matches!(action, Action::Clear(_))),
                "{seed}"
            );
            assert_eq!(
                count(|action| matches!(action, Action::FillDisk(_))),
                count(|action| matches!(action, Action::FreeDisk(_))),
                "{seed}"
            );
            let victims: Vec<_> = schedule
                .iter()
                .filter(|(_, action)| matches!(action, Action::Kill(_) | Action::Freeze(_)))
                .filter_map(|(_, action)| of(action))
                .collect();
            assert!(
                victims
                    .iter()
                    .enumerate()
                    .all(|(place, victim)| !victims[..place].contains(victim)),
                "{seed}"
            );
        }
    }

    /// What is as good as the same, whoever of its kind it is done to.
    fn kind(action: &Action) -> String {
        let said = format!("{action:?}");
        let end = said.find(|c: char| c.is_ascii_digit() || c == '{');
        said[..end.unwrap_or(said.len())].to_owned()
    }

    fn kinds(seeds: impl Iterator<Item = u64>) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for (_, action) in seeds.flat_map(|seed| draw(seed, STAGE)) {
            *kinds.entry(kind(&action)).or_default() += 1;
        }
        kinds
    }

    /// What is played on each change. A kind that those seeds do not draw is one that nobody ever tries.
    #[test]
    fn the_short_set_draws_every_kind_of_fault() {
        const SHORT: u64 = 30;
        let run = include_str!("../../../.ci/run");
        assert!(run.contains(&format!("cargo faults --schedules {SHORT} ")));
        let all = kinds(0..2000);
        let short = kinds(1..=SHORT);
        for kind in all.keys() {
            let times = short.get(kind).copied().unwrap_or_default();
            assert!(times >= 1, "{kind} is not in {short:#?}");
        }
        assert!(all.len() >= 20, "{all:#?}");
    }
}
