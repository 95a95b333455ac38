//! What is in the files of whoever installs an agent: every input is tried as a configuration and as declared capabilities.

#![no_main]

#[path = "../../node-agent/tests/it/fuzz/settings.rs"]
mod settings;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use settings::Settings;

static SETTINGS: LazyLock<Settings> = LazyLock::new(Settings::new);

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = str::from_utf8(bytes) {
        SETTINGS.are(text);
        settings::declares(text.to_owned());
    }
});
