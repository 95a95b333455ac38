//! No request may keep an object from being looked at again: what is asked of an API server that hangs has an end.

use std::time::Duration;

use super::Error;

/// How long one pass over one object may take, its requests and its events together.
pub const PASS: Duration = Duration::from_secs(30);

/// Does the work, or gives it up when its time is over. What it held is free then.
pub async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or(Err(Error::TimedOut(limit)))
}
