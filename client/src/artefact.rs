//! An output that is too large for a resource, to wherever the caller wants it.

use console_api::{ObjectId, invocation::ArtefactRecord, routes};
use http::{HeaderMap, header::CONTENT_RANGE, header::RANGE};
use reqwest::Response;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::{
    ControlPlaneClient,
    error::{Error, Result},
    retry,
    transport::{Ask, PARTIAL},
};

impl ControlPlaneClient {
    /// Writes the artefact of an invocation to `to`.
    ///
    /// Where the connection breaks, the rest is asked for and appended. Only `Ok` says that what was written is whole: its
    /// size and SHA-256 are those that the invocation names. **After an error, throw away what was written**; to write to
    /// another name first and rename it then is the way for files.
    ///
    /// # Errors
    /// [`Error::NoArtefact`] where the output is in the invocation itself; [`Error::Corrupt`] where what came is something
    /// else.
    pub async fn artefact<W>(&self, id: &ObjectId, to: &mut W) -> Result<ArtefactRecord>
    where
        W: AsyncWrite + Unpin + ?Sized,
    {
        let record = self
            .invocation(id)
            .await?
            .artefact
            .ok_or(Error::NoArtefact)?;
        if record.size_bytes > self.inner.limits.artefact_bytes {
            return Err(Error::TooLarge(
                usize::try_from(self.inner.limits.artefact_bytes).unwrap_or(usize::MAX),
            ));
        }
        let mut received = Written {
            bytes: 0,
            digest: Sha256::new(),
        };
        let mut failures = 0;
        while received.bytes < record.size_bytes {
            let before = received.bytes;
            let Err(error) = self.go_on(id, &record, &mut received, to).await else {
                continue;
            };
            // What came counts, so that a large one survives many breaks; the size bounds how often that can be.
            failures = if received.bytes > before {
                1
            } else {
                failures + 1
            };
            let retries = &self.inner.retries;
            if !error.retryable() || failures >= retries.attempts.max(1) {
                return Err(error);
            }
            let pause = retries.reconnect(failures, error.retry_after(), retry::random());
            tracing::debug!(%error, ?pause, written = received.bytes, "Asking for the rest of an artefact");
            tokio::time::sleep(pause).await;
        }
        to.flush().await.map_err(Error::Write)?;
        if hex::encode(received.digest.finalize()).eq_ignore_ascii_case(&record.sha256) {
            Ok(record)
        } else {
            Err(Error::Corrupt("its SHA-256 is another"))
        }
    }

    /// One connection: from what is written to the end, or as far as it goes.
    async fn go_on<W>(
        &self,
        id: &ObjectId,
        record: &ArtefactRecord,
        received: &mut Written,
        to: &mut W,
    ) -> Result<()>
    where
        W: AsyncWrite + Unpin + ?Sized,
    {
        let mut ask = Ask::get(routes::with_id(routes::INVOCATION_ARTEFACT, id));
        if received.bytes > 0 {
            ask = ask.header(RANGE, &format!("bytes={}-", received.bytes))?;
        }
        let mut response = self.inner.stream(&ask).await?;
        let mut skip = received.bytes - begins_at(&response, received.bytes)?;
        let silence = self.inner.timeouts.silence;
        loop {
            let chunk = tokio::time::timeout(silence, response.chunk())
                .await
                .map_err(|_| Error::Timeout(silence))?
                .map_err(|error| Error::of_transport(error, silence))?;
            let Some(mut chunk) = chunk else {
                break;
            };
            let skipped = chunk.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            skip -= skipped as u64;
            let chunk = chunk.split_off(skipped);
            if received.bytes + chunk.len() as u64 > record.size_bytes {
                return Err(Error::Corrupt("it is longer"));
            }
            to.write_all(&chunk).await.map_err(Error::Write)?;
            received.digest.update(&chunk);
            received.bytes += chunk.len() as u64;
        }
        if received.bytes < record.size_bytes {
            return Err(Error::Corrupt("it is shorter"));
        }
        Ok(())
    }
}

struct Written {
    bytes: u64,
    digest: Sha256,
}

/// Where in the artefact an answer begins. One that has no range begins at its first byte, and what is there already is
/// skipped; one that begins later than asked leaves a hole.
fn begins_at(response: &Response, asked: u64) -> Result<u64> {
    if response.status() != PARTIAL {
        return Ok(0);
    }
    match range_start(response.headers()) {
        Some(start) if start <= asked => Ok(start),
        Some(_) | None => Err(Error::Corrupt(
            "the range that came is not the one that was asked for",
        )),
    }
}

/// The first byte of `Content-Range: bytes FIRST-LAST/SIZE` (RFC 9110, section 14.4).
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers
        .get(CONTENT_RANGE)?
        .to_str()
        .ok()?
        .strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_first_byte_of_a_range_is_read() {
        let start = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, HeaderValue::from_static(text));
            range_start(&headers)
        };
        assert_eq!(start("bytes 5-9/10"), Some(5));
        for bad in ["bytes */10", "items 5-9/10", "", "bytes x-9/10"] {
            assert_eq!(start(bad), None, "{bad}");
        }
    }
}
