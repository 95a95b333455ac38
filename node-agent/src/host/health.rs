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
    use super::*;

    #[test]
    fn the_machine_has_memory_and_runs() {
        let health = read();
        assert!(health.memory.unwrap().total_bytes > 0);
        assert!(health.uptime_seconds.unwrap() > 0);
        assert!(health.disks.len() <= MAX_DISKS);
    }
}
