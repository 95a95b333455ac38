//! Refusals that say when to try again.

use std::time::Duration;

use proto::RETRY_AFTER;
use tonic::{Code, Status, metadata::MetadataValue};

/// RESOURCE_EXHAUSTED with a trailer that says when to try again: after `retry_after` and up to half as much more, so
/// that those who were refused together do not come back together.
pub fn full(message: &'static str, retry_after: Duration) -> Status {
    later(Code::ResourceExhausted, message, retry_after)
}

/// Any refusal that passes.
pub fn later(code: Code, message: &'static str, retry_after: Duration) -> Status {
    let wait = retry_after.mul_f64(rand::random_range(1.0..1.5));
    let mut status = Status::new(code, message);
    let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    status
        .metadata_mut()
        .insert(RETRY_AFTER, MetadataValue::from(wait));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gateway_says_when_to_come_back() {
        let status = full("full", Duration::from_secs(2));
        assert_eq!(status.code(), Code::ResourceExhausted);
        let wait: u64 = status
            .metadata()
            .get(RETRY_AFTER)
            .unwrap()
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((2000..3000).contains(&wait), "{wait}");
    }
}
