//! What is scanned or typed to pair.

#![no_main]

#[path = "../../node-agent/tests/it/fuzz/uri.rs"]
mod uri;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = str::from_utf8(bytes) {
        uri::scans(text);
    }
});
