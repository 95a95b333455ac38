//! A search for the schemas and inputs that cost most.
//!
//! ```sh
//! cargo run --release -p surface --example worst -- 600            # seconds
//! cargo run --release -p surface --example worst -- 600 7 FOLDER   # another seed; the worst texts as files
//! ```
//!
//! Begins with what costs most by design, changes it at random, and keeps what takes longest. Prints for each kind the worst
//! time, the steps that were counted, and the time as a multiple of a yardstick from the same run: SHA-256 of 1 MiB. Exits
//! with 1 where a worst time is above [`BOUND`].

mod grow;
mod seeds;

use std::{
    hint::black_box,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use grow::Chance;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use surface::{
    MAX_CHECK_STEPS, MAX_DEVICE_PATTERN_BYTES, MAX_SCHEMA_BYTES, Schema, compare, most_steps,
};

/// What one call may take in a release build.
const BOUND: Duration = Duration::from_millis(5);
/// Longest input of an invocation.
const MAX_INPUT: usize = 32 * 1024;
/// Bytes of all schemas that one device may declare.
const MAX_SCHEMAS: usize = 64 * 1024;
/// Capabilities that one device may declare.
const MAX_CAPABILITIES: usize = 128;
/// Most steps to compare as many schemas as one device may declare.
const MAX_DEVICE_STEPS: u32 = 128 * 3072 + 10 * 64 * 1024;
/// What is kept of each kind.
const KEPT: usize = 24;

/// How long it took, of how many steps.
#[derive(Clone, Copy, Default)]
struct Cost {
    time: Duration,
    steps: u32,
}

#[derive(Clone)]
struct Found {
    texts: Vec<String>,
    cost: Cost,
}

/// A kind of work: `None` where the texts are no such work.
type Measure = fn(&[String]) -> Option<Cost>;

struct Search {
    name: &'static str,
    measure: Measure,
    fresh: fn(&mut Chance) -> Vec<String>,
    /// Of each text: what a change puts in.
    parts: &'static [fn(&mut Chance, usize) -> Value],
    kept: Vec<Found>,
    tried: u64,
}

#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = black_box(run());
    (result, start.elapsed())
}

fn of_pair(texts: &[String]) -> Option<Cost> {
    let [new, old] = texts else { return None };
    let new = Schema::parse(new.as_bytes()).ok()?;
    let old = Schema::parse(old.as_bytes()).ok()?;
    let (compared, time) = timed(|| compare(Some(&new), Some(&old)));
    let steps = compared.steps;
    Some(Cost { time, steps })
}

fn of_check(texts: &[String]) -> Option<Cost> {
    let [schema, input] = texts else { return None };
    if input.len() > MAX_INPUT {
        return None;
    }
    let schema = Schema::parse(schema.as_bytes()).ok()?;
    let input: Value = serde_json::from_str(input).ok()?;
    let ((_, steps), time) = timed(|| schema.check_counting(&input, MAX_CHECK_STEPS));
    Some(Cost { time, steps })
}

/// Of a schema without patterns.
fn of_read(texts: &[String]) -> Option<Cost> {
    let [text] = texts else { return None };
    let (read, time) = timed(|| Schema::parse(text.as_bytes()));
    (read.ok()?.pattern_bytes() == 0).then_some(Cost { time, steps: 0 })
}

fn of_patterns(texts: &[String]) -> Option<Cost> {
    let [text] = texts else { return None };
    let (read, time) = timed(|| Schema::parse(text.as_bytes()));
    (read.ok()?.pattern_bytes() > 0).then_some(Cost { time, steps: 0 })
}

fn of_refusal(texts: &[String]) -> Option<Cost> {
    let [text] = texts else { return None };
    if text.len() > MAX_SCHEMA_BYTES {
        return None;
    }
    let (read, time) = timed(|| Schema::parse(text.as_bytes()));
    read.is_err().then_some(Cost { time, steps: 0 })
}

/// As many of these as one device may declare, the worst first.
fn of_one_device(kept: &[Found], bytes: fn(&[String]) -> usize, most: usize) -> Vec<&[String]> {
    let mut left = most;
    let texts = kept.iter().map(|found| found.texts.as_slice()).cycle();
    let fitting = texts.take_while(|texts| {
        left = left.saturating_sub(bytes(texts));
        left > 0
    });
    fitting.take(MAX_CAPABILITIES).collect()
}

/// Reads all schemas that a device declares: as many patterns as it may, and the worst of the rest.
fn read_all(patterns: &Found, plain: &[Found]) -> Cost {
    let of_patterns = patterns.texts[0].as_str();
    let pattern_bytes =
        Schema::parse(of_patterns.as_bytes()).map_or(0, |schema| schema.pattern_bytes());
    let count = (MAX_DEVICE_PATTERN_BYTES / pattern_bytes.max(1))
        .min(MAX_SCHEMAS / of_patterns.len())
        .min(MAX_CAPABILITIES);
    let left = MAX_SCHEMAS - count * of_patterns.len();
    let others = of_one_device(plain, |texts| texts[0].len(), left);
    let others = others.into_iter().map(|texts| texts[0].as_str());
    let all: Vec<&str> = std::iter::repeat_n(of_patterns, count)
        .chain(others)
        .collect();
    let ((), time) = timed(|| {
        for text in all {
            black_box(Schema::parse(text.as_bytes()).is_ok());
        }
    });
    Cost { time, steps: 0 }
}

/// Compares all schemas that a device declares with what was granted, and reads both again for that.
fn compare_all(kept: &[Found]) -> Cost {
    let bytes = |texts: &[String]| texts[0].len() + texts[1].len();
    let all = of_one_device(kept, bytes, 2 * MAX_SCHEMAS);
    let mut reading = Duration::ZERO;
    let (steps, time) = timed(|| {
        let mut steps = 0;
        for texts in all {
            let (schemas, time) = timed(|| {
                let read = |text: &String| Schema::parse(text.as_bytes()).ok();
                (read(&texts[0]), read(&texts[1]))
            });
            reading += time;
            if let (Some(new), Some(old)) = schemas {
                steps += compare(Some(&new), Some(&old)).steps;
            }
        }
        steps
    });
    Cost {
        time: time.saturating_sub(reading),
        steps,
    }
}

impl Search {
    fn new(
        name: &'static str,
        measure: Measure,
        fresh: fn(&mut Chance) -> Vec<String>,
        parts: &'static [fn(&mut Chance, usize) -> Value],
    ) -> Self {
        Self {
            name,
            measure,
            fresh,
            parts,
            kept: Vec::new(),
            tried: 0,
        }
    }

    /// The least time of some: whatever else the machine does only adds to it.
    fn measure(&self, texts: &[String], times: u32) -> Option<Cost> {
        (0..times)
            .map(|_| (self.measure)(texts))
            .min_by_key(|cost| cost.map(|cost| cost.time))?
    }

    fn offer(&mut self, texts: Vec<String>) {
        self.tried += 1;
        let least = self
            .kept
            .last()
            .map_or(Duration::ZERO, |found| found.cost.time);
        let is_full = self.kept.len() >= KEPT;
        let Some(once) = self.measure(&texts, 1) else {
            return;
        };
        if is_full && once.time <= least {
            return;
        }
        let Some(cost) = self.measure(&texts, 4) else {
            return;
        };
        if is_full && cost.time <= least || self.kept.iter().any(|found| found.texts == texts) {
            return;
        }
        self.kept.push(Found { texts, cost });
        self.kept
            .sort_by_key(|found| std::cmp::Reverse(found.cost.time));
        self.kept.truncate(KEPT);
    }

    /// Tries one more.
    fn step(&mut self, chance: &mut Chance) {
        if self.kept.is_empty() || chance.below(40) == 0 {
            let texts = (self.fresh)(chance);
            return self.offer(texts);
        }
        // The worst ones more often.
        let place = chance
            .below(self.kept.len())
            .min(chance.below(self.kept.len()));
        let mut texts = self.kept[place].texts.clone();
        let other = chance.one_of(&self.kept).texts.clone();
        let which = chance.below(texts.len());
        let Ok(mut value) = serde_json::from_str::<Value>(&texts[which]) else {
            let texts = (self.fresh)(chance);
            return self.offer(texts);
        };
        let lends = chance.one_of(&other);
        let lends = serde_json::from_str(lends).unwrap_or(Value::Null);
        for _ in 0..=chance.below(3) {
            grow::change(chance, &mut value, &lends, self.parts[which]);
        }
        texts[which] = value.to_string();
        self.offer(texts);
    }
}

fn schema_text(chance: &mut Chance) -> String {
    let schema = grow::schema(chance, 4);
    grow::with_definitions(chance, schema).to_string()
}

fn searches() -> [Search; 5] {
    let mut pair = Search::new(
        "pair",
        of_pair,
        |chance| vec![schema_text(chance), schema_text(chance)],
        &[grow::schema, grow::schema],
    );
    let mut check = Search::new(
        "check",
        of_check,
        |chance| vec![schema_text(chance), grow::value(chance, 5).to_string()],
        &[grow::schema, grow::value],
    );
    for texts in seeds::pairs() {
        pair.offer(texts.into());
    }
    for texts in seeds::checks() {
        check.offer(texts.into());
    }
    let read = |name, measure| {
        let mut search = Search::new(
            name,
            measure,
            |chance| vec![schema_text(chance)],
            &[grow::schema],
        );
        for text in seeds::reads() {
            search.offer(vec![text]);
        }
        search
    };
    [
        pair,
        check,
        read("read", of_read),
        read("read patterns", of_patterns),
        read("refuse", of_refusal),
    ]
}

fn yardstick() -> Duration {
    let mebibyte = vec![0x5a; 1 << 20];
    let once = || timed(|| Sha256::digest(&mebibyte)).1;
    (0..20).map(|_| once()).min().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "what it found is its output")]
fn report(name: &str, tried: u64, cost: Cost, bound: u32, yardstick: Duration) -> bool {
    let Cost { time, steps } = cost;
    let ratio = time.as_secs_f64() / yardstick.as_secs_f64();
    let holds = time < BOUND;
    let verdict = if holds { "within" } else { "ABOVE" };
    println!(
        "{name}: {time:?}, {verdict} {BOUND:?}; {ratio:.2} x SHA-256 of 1 MiB ({yardstick:?}); {steps} steps, {bound} at most; {tried} tried"
    );
    holds
}

fn keep(folder: &Path, search: &Search) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (place, found) in search.kept.iter().take(4).enumerate() {
        let file = folder.join(format!("{}-{place}", search.name));
        std::fs::write(file, found.texts.join("\0"))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10);
    let seed = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let folder = arguments.next();
    let mut chance = Chance::new(seed);
    let mut searches = searches();
    let mut spent = Duration::ZERO;
    while spent < Duration::from_secs(seconds) {
        spent += timed(|| {
            for search in &mut searches {
                for _ in 0..20 {
                    search.step(&mut chance);
                }
            }
        })
        .1;
    }
    let yardstick = yardstick();
    let mut holds = true;
    for search in &searches {
        let worst = &search.kept[0].texts;
        let cost = search.measure(worst, 30).unwrap_or_default();
        let bound = match search.name {
            "pair" => most_steps(Schema::parse(worst[0].as_bytes()).ok().as_ref()),
            "check" => MAX_CHECK_STEPS,
            _ => 0,
        };
        holds &= report(search.name, search.tried, cost, bound, yardstick);
        if let Some(folder) = &folder
            && let Err(error) = keep(Path::new(folder), search)
        {
            eprintln!("write {folder}: {error}");
            holds = false;
        }
    }
    let [pair, _, read, patterns, _] = &searches;
    let least = |measure: &dyn Fn() -> Cost| {
        let costs = (0..10).map(|_| measure());
        costs.min_by_key(|cost| cost.time).unwrap_or_default()
    };
    let name = "read all schemas of a device";
    let of_patterns = patterns
        .kept
        .iter()
        .map(|one| least(&|| read_all(one, &read.kept)));
    let worst = of_patterns.max_by_key(|cost| cost.time).unwrap_or_default();
    holds &= report(name, read.tried, worst, 0, yardstick);
    let name = "compare all schemas of a device";
    let bound = MAX_DEVICE_STEPS;
    let worst = least(&|| compare_all(&pair.kept));
    holds &= report(name, pair.tried, worst, bound, yardstick);
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
