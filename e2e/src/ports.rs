//! Loopback ports for servers that have to know theirs before they start.
//!
//! A port found free here can be taken before its server binds it; callers that can, try again with another.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Below the ranges from which systems take the source ports of outgoing connections (Linux: 32768 and up). A server
/// that is stopped for a while would otherwise find its port taken by some client – or by the very client that keeps
/// dialling it, as a TCP socket on loopback can connect to itself.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// Given out in this process. A port is often given out long before it is bound.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port on 127.0.0.1 that nobody listens on at this moment. Never the same one twice in a process.
///
/// # Errors
/// When a few hundred tries found none.
pub fn free() -> anyhow::Result<u16> {
    // A random start, not a counter: several runs of the harness share the machine.
    let start = u16::try_from(RandomState::new().build_hasher().finish() % u64::from(COUNT))?;
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let port = (0..COUNT)
        .step_by(31)
        .map(|step| FIRST + (start + step) % COUNT)
        .find(|port| {
            !given.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
        })
        .ok_or_else(|| {
            anyhow::anyhow!(
                "no free port on 127.0.0.1 between {FIRST} and {}",
                FIRST + COUNT
            )
        })?;
    given.insert(port);
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_bound_and_lies_below_the_ports_of_clients() {
        let port = free().unwrap();
        assert!((FIRST..FIRST + COUNT).contains(&port));
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    }
}
