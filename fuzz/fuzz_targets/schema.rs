//! Schemas, and what is given to them.

#![no_main]

#[path = "../../surface/tests/judged/mod.rs"]
mod judged;

use std::{fs, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// The kept ones, for every schema.
static INPUTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../surface/tests/corpus/input");
    let files = fs::read_dir(folder).expect("the kept inputs can be read");
    let contents = files.map(|file| fs::read(file.expect("a file").path()).expect("a file"));
    contents
        .map(|bytes| serde_json::from_slice(&bytes).expect("a kept input is JSON"))
        .collect()
});

fuzz_target!(|bytes: &[u8]| judged::try_parts("the input", bytes, &INPUTS));
