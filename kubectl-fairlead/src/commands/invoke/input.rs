//! What the capability is given: out of an argument, a file or standard input.

use std::{io::Read as _, path::Path};

use anyhow::{Context as _, bail};
use crds::names::MAX_INPUT_BYTES;
use serde_json::Value;

/// Most bytes that are read: white space goes, and what is left must fit.
const MAX_FILE: u64 = 4 * MAX_INPUT_BYTES as u64;

/// Reads the input; `None` where none is given. `-` is standard input.
pub fn read(argument: Option<&str>, file: Option<&Path>) -> anyhow::Result<Option<Value>> {
    let text = match (argument, file) {
        (None, None) => return Ok(None),
        (Some("-"), _) => bounded(std::io::stdin().lock()).context("read standard input")?,
        (Some(text), _) => text.to_owned(),
        (None, Some(path)) if path.as_os_str() == "-" => {
            bounded(std::io::stdin().lock()).context("read standard input")?
        }
        (None, Some(path)) => {
            let file =
                std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
            bounded(file).with_context(|| format!("read {}", path.display()))?
        }
    };
    let value: Value = serde_json::from_str(&text).context("the input is not valid JSON")?;
    let bytes = serde_json::to_vec(&value)?.len();
    if bytes > MAX_INPUT_BYTES {
        bail!(
            "the input has {bytes} bytes, and {MAX_INPUT_BYTES} at most are taken: give less, or a reference"
        );
    }
    Ok(Some(value))
}

fn bounded(from: impl std::io::Read) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = from.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE {
        bail!("it is larger than {MAX_FILE} bytes: give less, or a reference");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_is_no_json_or_too_large_is_refused_before_anything_is_made() {
        assert!(read(Some("{"), None).is_err());
        let large = format!("\"{}\"", "x".repeat(MAX_INPUT_BYTES));
        let error = read(Some(&large), None).unwrap_err();
        assert!(error.to_string().contains("at most"), "{error}");
        let spaces = format!("{}1", " ".repeat(MAX_INPUT_BYTES));
        assert!(
            read(Some(&spaces), None).is_ok(),
            "white space does not count"
        );
    }
}
