//! The one place that asks what time it is. What is decided by it is given it.

use jiff::Timestamp;

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: what is shown as an age counts from here"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}
