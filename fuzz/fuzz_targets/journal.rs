//! What is on the disk where the journal was: the input itself, and a journal that the input damages.

#![no_main]

#[path = "../../node-agent/tests/it/fuzz/disk.rs"]
mod disk;

use std::sync::LazyLock;

use disk::Disk;
use libfuzzer_sys::fuzz_target;

static DISK: LazyLock<Disk> = LazyLock::new(Disk::new);

fuzz_target!(|bytes: &[u8]| {
    DISK.holds(bytes);
    if let Some((at, with, tail)) = DISK.damage(bytes) {
        DISK.is_damaged(at, with, &tail);
    }
});
