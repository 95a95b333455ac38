//! What a seed stands for: how the programs are made, what people ask for, and what goes wrong when.

use std::time::Duration;

use node_agent::agent::plan::Limits;
use node_agent::journal::Bounds;

use super::agent::Make;
use super::chance::Chance;

/// How long things go wrong, in milliseconds.
pub const STORM: u64 = 40_000;
/// How long everything may take after that.
pub const CALM: u64 = 150_000;
pub const GATEWAYS: usize = 2;
/// In one script of so many nothing goes wrong.
const CALM_EVERY: u64 = 8;

/// What is asked of a device.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub device: usize,
    pub hold_ms: u64,
    pub fails: bool,
    pub timeout_seconds: i64,
    /// `whenOffline: Queue` with so long a wait.
    pub queue_seconds: Option<i64>,
    pub key: Option<u64>,
}

/// What people do.
#[derive(Clone, Debug)]
pub enum Deed {
    Create(usize),
    Cancel(usize),
}

/// What is broken on purpose, so that it can be seen that it is noticed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sabotage {
    #[default]
    None,
    /// Agents have effects before their journal knows.
    EffectFirst,
    /// Whatever a gateway hears of an end, it writes Unknown.
    EndsUnknown,
}

/// What goes wrong. Durations are in milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    KillGateway(usize, u64),
    KillOperator(u64),
    KillAgent(usize, u64),
    /// Told to stop, and started again after it has.
    StopAgent(usize),
    /// The stream at hand breaks.
    Cut(usize),
    /// Nothing comes through on the stream at hand.
    Stall(usize, u64),
    /// The API server does not do what it is asked. Silent: it does not even say so.
    ApiAway(u64, bool),
    /// A gateway sees changes so much later.
    SlowWatch(usize, u64),
    /// A gateway misses what happens meanwhile, and lists anew then.
    Gap(usize, u64),
    /// The same for the operator.
    SlowOperator(u64),
    OperatorGap(u64),
    /// A program does nothing, and does not know it afterwards.
    FreezeGateway(usize, u64),
    FreezeOperator(u64),
    FreezeAgent(usize, u64),
    /// Somebody takes the trust in a device away, and gives it back.
    Suspend(usize, u64),
    FullDisk(usize, u64),
    /// Somebody else writes to the Device, or to an invocation.
    Touch(usize),
}

/// All of it.
pub struct Script {
    pub makes: Vec<Make>,
    /// Of each gateway's clock, and of the operator's, in milliseconds.
    pub skews: [i64; GATEWAYS + 1],
    /// How fast each device's clock goes, in thousandths.
    pub rates: Vec<u64>,
    /// One step of a program in so many is its last; nought: none is.
    pub deaths: u64,
    /// One answer of the API server in so many is lost, after it was done.
    pub lost_answers: u64,
    /// One message in so many of those that carry an invocation's life arrives again, later and on the same connection;
    /// nought: none does.
    pub repeats: u64,
    pub invocations: Vec<Invocation>,
    pub deeds: Vec<(u64, Deed)>,
    pub faults: Vec<(u64, Fault)>,
    /// Nothing goes wrong: everything must be known.
    pub is_calm: bool,
    pub sabotage: Sabotage,
}

impl Script {
    pub fn draw(seed: u64, sabotage: Sabotage) -> Self {
        let mut chance = Chance::of(seed);
        let devices = 1 + chance.index(2);
        let makes = (0..devices)
            .map(|_| make(&mut chance, sabotage == Sabotage::EffectFirst))
            .collect();
        let mut skew = || {
            let most = chance.pick(&[0, 0, 500, 3_000]);
            i64::try_from(chance.between(0, 2 * most)).unwrap_or_default()
                - i64::try_from(most).unwrap_or_default()
        };
        let skews = std::array::from_fn(|_| skew());
        let rates = (0..devices).map(|_| chance.between(970, 1_030)).collect();
        let mut script = Self {
            makes,
            skews,
            rates,
            deaths: chance.pick(&[0, 400, 150, 60]),
            lost_answers: chance.pick(&[0, 30, 8]),
            repeats: chance.pick(&[0, 0, 20, 4]),
            invocations: Vec::new(),
            deeds: Vec::new(),
            faults: Vec::new(),
            is_calm: false,
            sabotage,
        };
        script.ask(&mut chance, devices);
        if chance.one_in(CALM_EVERY) {
            return Self {
                deaths: 0,
                lost_answers: 0,
                repeats: 0,
                is_calm: true,
                ..script
            };
        }
        for _ in 0..chance.between(2, 12) {
            let fault = fault(&mut chance, devices);
            script.faults.push((chance.between(500, STORM), fault));
        }
        script
    }

    fn ask(&mut self, chance: &mut Chance, devices: usize) {
        for number in 0..chance.index(9) + 4 {
            // Those with a key ask the same of the same device, or it would be another call.
            let key = chance.one_in(3).then(|| chance.below(2));
            let device = key.map_or_else(|| chance.index(devices), |_| 0);
            self.invocations.push(Invocation {
                device,
                hold_ms: key
                    .map_or_else(|| chance.pick(&[0, 0, 20, 150, 600, 2_500, 8_000]), |_| 300),
                fails: key.is_none() && chance.one_in(8),
                timeout_seconds: chance.pick(&[1, 2, 5, 15]),
                queue_seconds: chance.one_in(2).then(|| chance.pick(&[3, 10, 20])),
                key,
            });
            let at = chance.between(100, STORM * 3 / 4);
            self.deeds.push((at, Deed::Create(number)));
            if chance.one_in(5) {
                let after = chance.pick(&[5, 90, 400, 3_000]);
                self.deeds
                    .push((at + chance.below(after), Deed::Cancel(number)));
            }
        }
    }
}

fn make(chance: &mut Chance, effect_first: bool) -> Make {
    Make {
        limits: Limits {
            running: chance.pick(&[1, 2, 4]),
            waiting: chance.pick(&[1, 3, 64]),
            asking: 32,
        },
        concurrency: chance.pick(&[1, 2, 4]),
        bounds: Bounds {
            acked: chance.pick(&[0, 1, 4096]),
            retention: chance.pick(&[Duration::from_secs(2), Duration::from_hours(1)]),
            ..Bounds::default()
        },
        effect_first,
    }
}

fn fault(chance: &mut Chance, devices: usize) -> Fault {
    let gateway = chance.index(GATEWAYS);
    let device = chance.index(devices);
    let short = chance.pick(&[50, 400, 2_000, 9_000]);
    let long = chance.pick(&[50, 1_000, 9_000, 22_000]);
    match chance.below(34) {
        0..=3 => Fault::KillGateway(gateway, long),
        4 => Fault::KillOperator(long),
        5..=7 => Fault::KillAgent(device, long),
        8 => Fault::StopAgent(device),
        9..=12 => Fault::Cut(device),
        13 | 14 => Fault::Stall(device, short),
        15 | 16 => Fault::ApiAway(short, false),
        17 => Fault::ApiAway(short, true),
        18 => Fault::SlowWatch(gateway, short),
        19 | 20 => Fault::Gap(gateway, short),
        21 => Fault::FullDisk(device, short),
        22 | 23 => Fault::FreezeGateway(gateway, long),
        24 => Fault::FreezeOperator(long),
        25 | 26 => Fault::FreezeAgent(device, long),
        27 => Fault::SlowOperator(short),
        28 | 29 => Fault::OperatorGap(short),
        30 | 31 => Fault::Suspend(device, long),
        _ => Fault::Touch(device),
    }
}
