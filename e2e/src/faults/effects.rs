//! What capabilities did to the world, kept outside of everything that is tested: a file that only grows.
//!
//! The capability is this crate's program `effect`. It writes `began ID` and syncs before anything else, and `done ID`
//! or `failed ID` at its end; killed in between, it leaves the first line alone.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// Longest input that the program reads.
const MAX_INPUT: u64 = 4096;
const LONGEST_HOLD: Duration = Duration::from_mins(1);

/// What the program is given on its standard input.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Input {
    id: String,
    /// How long it takes.
    hold_ms: u64,
    /// Whether it ends with an error.
    #[serde(default)]
    fail: Option<String>,
}

/// Has an effect. Gives what is printed.
///
/// SIGTERM ends it before `done`, or not at all: between that line and the answer nothing but SIGKILL could make what is
/// said untrue.
///
/// # Errors
/// When the input is none, or it was told to fail or to stop.
pub async fn have(log: &Path) -> anyhow::Result<Value> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut text = String::new();
    std::io::stdin().take(MAX_INPUT).read_to_string(&mut text)?;
    let input: Input = serde_json::from_str(&text).context("read the input")?;
    ensure!(
        !input.id.is_empty() && input.id.bytes().all(|byte| byte.is_ascii_graphic()),
        "an id is one word"
    );
    // One write for each line: with O_APPEND the lines of two programs do not mix.
    let mut file = OpenOptions::new().create(true).append(true).open(log)?;
    let mut say = |what: &str| -> anyhow::Result<()> {
        file.write_all(format!("{what} {}\n", input.id).as_bytes())?;
        Ok(file.sync_data()?)
    };
    say("began")?;
    let hold = Duration::from_millis(input.hold_ms).min(LONGEST_HOLD);
    tokio::select! {
        biased;
        _ = terminated.recv() => bail!("stopped"),
        () = tokio::time::sleep(hold) => {}
    }
    if let Some(why) = input.fail {
        say("failed")?;
        bail!(why);
    }
    say("done")?;
    Ok(json!({ "id": input.id }))
}

/// How often each thing happened to one id.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Effect {
    pub began: usize,
    pub done: usize,
    pub failed: usize,
}

/// Everything that happened, by id. A file that is not there is empty.
///
/// # Errors
/// When a line is not ours.
pub fn read(log: &Path) -> anyhow::Result<HashMap<String, Effect>> {
    let mut text = String::new();
    match File::open(log) {
        Ok(mut file) => file.read_to_string(&mut text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error.into()),
    };
    parse(&text)
}

fn parse(text: &str) -> anyhow::Result<HashMap<String, Effect>> {
    let mut effects: HashMap<String, Effect> = HashMap::new();
    for line in text.lines() {
        let (what, id) = line.split_once(' ').context("a line without an id")?;
        let effect = effects.entry(id.to_owned()).or_default();
        match what {
            "began" => effect.began += 1,
            "done" => effect.done += 1,
            "failed" => effect.failed += 1,
            other => bail!("a line says {other}"),
        }
    }
    Ok(effects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_counted_for_its_id() {
        let effects = parse("began a\nbegan b\ndone a\nfailed b\nbegan a\n").unwrap();
        assert_eq!(
            effects["a"],
            Effect {
                began: 2,
                done: 1,
                failed: 0
            }
        );
        assert_eq!(
            effects["b"],
            Effect {
                began: 1,
                done: 0,
                failed: 1
            }
        );
        assert!(parse("nonsense").is_err() && parse("slept a").is_err());
    }
}
