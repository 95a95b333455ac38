//! Trust bundles that gateways send.

#![no_main]

#[path = "../../node-agent/tests/it/fuzz/bundle.rs"]
mod bundle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| bundle::is_not_trusted(bytes));
