//! What a capability prints.

#![no_main]

#[path = "../../gateway/tests/it/fuzz/output.rs"]
mod output;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| output::prints(bytes.to_vec()));
