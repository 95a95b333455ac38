//! File descriptors of the process: each connection takes one, and accepting fails when there are none left.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything but the device port: files, the API server, the store and the console.
const OTHERS: usize = 1024;

/// Raises the soft limit to the hard one and returns it. `usize::MAX` where there is no limit.
///
/// # Errors
/// When the kernel refuses.
pub fn raise() -> io::Result<usize> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )?;
    }
    Ok(maximum.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    }))
}

/// Silent connections that may be kept, of `wanted`, where other connections may take `connections` descriptors of
/// `limit`. At least a quarter of what is left for connections, so that a small limit does not make the port deaf.
pub fn silent(wanted: usize, connections: usize, limit: usize) -> usize {
    let ours = limit.saturating_sub(OTHERS.min(limit / 2));
    let left = ours.saturating_sub(connections).max(ours / 4).max(1);
    wanted.min(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_connections_fit_the_limit() {
        let rows = [
            ((4096, 27_000, usize::MAX), 4096),
            ((4096, 27_000, 1_048_576), 4096),
            ((4096, 27_000, 30_000), 4096),
            ((4096, 7_000, 10_000), 2244),
            ((4096, 27_000, 1024), 128),
            ((4096, 0, 0), 1),
        ];
        for ((wanted, connections, limit), expected) in rows {
            assert_eq!(silent(wanted, connections, limit), expected, "{limit}");
        }
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let limit = raise().unwrap();
        assert!(limit > 0);
        assert_eq!(raise().unwrap(), limit);
    }
}
