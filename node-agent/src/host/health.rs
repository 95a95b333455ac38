//! How the machine is. Reads files and may take a while: never call this in the async loop.

use serde::Serialize;
use sysinfo::{Disks, MemoryRefreshKind, RefreshKind, System};

/// Disks that are told of at most; a container host mounts hundreds.
const MAX_DISKS: usize = 32;

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    pub load: Option<Load>,
    pub memory: Option<Memory>,
    pub disks: Vec<Disk>,
    pub uptime_seconds: Option<u64>,
    pub versions: Versions,
}

/// Over the last 1, 5 and 15 minutes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    pub one: f64,
    pub five: f64,
    pub fifteen: f64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    pub total_bytes: u64,
    pub available_bytes: u64,
    pub swap_total_bytes: u64,
    pub swap_used_bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    pub mount: String,
    pub total_bytes: u64,
    pub available_bytes: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    pub agent: &'static str,
    pub kernel: Option<String>,
    pub os: Option<String>,
}

/// What cannot be read is left out; a half of the truth is better than none.
pub fn read() -> Health {
    Health {
        load: System::load_average().ok().map(|load| Load {
            one: load.one,
            five: load.five,
            fifteen: load.fifteen,
        }),
        memory: memory(),
        disks: disks(),
        uptime_seconds: System::uptime().ok(),
        versions: Versions {
            agent: env!("CARGO_PKG_VERSION"),
            kernel: System::kernel_version().ok(),
            os: System::long_os_version().ok(),
        },
    }
}

fn memory() -> Option<Memory> {
    let only_memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
    let system = System::new_with_specifics(only_memory).ok()?;
    Some(Memory {
        total_bytes: system.total_memory(),
        available_bytes: system.available_memory(),
        swap_total_bytes: system.total_swap(),
        swap_used_bytes: system.used_swap(),
    })
}

fn disks() -> Vec<Disk> {
    let Ok(disks) = Disks::new_with_refreshed_list() else {
        return Vec::new();
    };
    let mut disks: Vec<Disk> = disks
        .iter()
        .map(|disk| Disk {
            mount: disk.mount_point().to_string_lossy().into_owned(),
            total_bytes: disk.total_space(),
            available_bytes: disk.available_space(),
        })
        .collect();
    disks.sort_by(|a, b| a.mount.cmp(&b.mount));
    disks.truncate(MAX_DISKS);
    disks
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn everything_is_read_and_is_of_this_machine() {
        let Health {
            load,
            memory,
            disks,
            uptime_seconds,
            versions,
        } = read();
        let Load { one, five, fifteen } = load.unwrap();
        let told = fs::read_to_string("/proc/loadavg").unwrap();
        let last: f64 = told.split(' ').nth(2).unwrap().parse().unwrap();
        assert!((fifteen - last).abs() < 1.0, "{fifteen} and {last}");
        assert!(one >= 0.0 && five >= 0.0);

        let memory = memory.unwrap();
        let told = fs::read_to_string("/proc/meminfo").unwrap();
        let total = told.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = total.unwrap().trim_end_matches("kB").trim();
        assert_eq!(memory.total_bytes, kib.parse::<u64>().unwrap() * 1024);
        assert!((1..=memory.total_bytes).contains(&memory.available_bytes));
        assert!(memory.swap_used_bytes <= memory.swap_total_bytes);

        assert!(uptime_seconds.unwrap() > 0);
        let kernel = rustix::system::uname();
        let kernel = kernel.release().to_string_lossy();
        assert_eq!(versions.kernel.as_deref(), Some(&*kernel));
        assert_eq!(versions.agent, env!("CARGO_PKG_VERSION"));
        assert!(versions.os.is_some_and(|os| !os.is_empty()));

        // Where nothing is mounted from a device, as in a container, there may be none to tell of.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let has_disk = mounts.lines().any(|line| line.starts_with("/dev/"));
        assert!(!has_disk || !disks.is_empty(), "{mounts}");
        assert!(disks.len() <= MAX_DISKS && disks.is_sorted_by_key(|disk| &disk.mount));
        for Disk {
            mount,
            total_bytes,
            available_bytes,
        } in &disks
        {
            assert!(available_bytes <= total_bytes, "{mount}");
            assert!(mounts.contains(&format!(" {mount} ")), "{mount}");
        }
        assert!(!has_disk || disks.iter().any(|disk| disk.total_bytes > 0));
    }
}
