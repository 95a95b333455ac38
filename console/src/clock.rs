//! What time it is. Decisions get it handed in.

use jiff::Timestamp;

/// Now, by this machine's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge, where the time is observed"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Now, on the runtime's own clock.
pub fn instant() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
