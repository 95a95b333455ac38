//! Memory of a process, as the kernel counts it.

use anyhow::Context as _;

/// What is in use, in KiB.
pub fn resident_kib(pid: i32) -> anyhow::Result<u64> {
    read(pid, "VmRSS:")
}

/// The most that was ever in use, in KiB.
pub fn peak_kib(pid: i32) -> anyhow::Result<u64> {
    read(pid, "VmHWM:")
}

fn read(pid: i32, line: &str) -> anyhow::Result<u64> {
    std::fs::read_to_string(format!("/proc/{pid}/status"))?
        .lines()
        .find_map(|said| {
            said.strip_prefix(line)?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .with_context(|| format!("the kernel tells no {line} of process {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_some_memory_and_had_no_less_at_its_peak() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let resident = resident_kib(pid).unwrap();
        assert!(resident > 100 && peak_kib(pid).unwrap() >= resident);
        assert!(read(pid, "VmNothing:").is_err());
    }
}
