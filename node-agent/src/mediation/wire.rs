//! What is said through the agent's socket: one JSON object on one line each way, again and again until either side hangs
//! up.

use std::io;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
};

use super::question::Shown;

/// Longest request, in bytes.
pub const MAX_REQUEST_BYTES: u64 = 8 * 1024;
/// Longest reply: as many questions as there may be, each with all that is shown of it, and room for what JSON escapes.
pub const MAX_REPLY_BYTES: u64 = 1024 * 1024;

/// What the agent is asked.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(
    tag = "ask",
    rename_all = "lowercase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Request {
    /// What waits for an answer.
    Pending {
        /// Answered when it is another version than this, or after a while.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unlike: Option<u64>,
    },
    /// What a person decided about what was shown.
    Answer {
        uid: String,
        /// That of what was shown.
        digest: String,
        decision: Said,
        #[serde(default)]
        reason: String,
    },
}

/// What a person says.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Said {
    Allow,
    Deny,
}

/// What the agent answers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "say", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum Response {
    Pending {
        version: u64,
        questions: Vec<Shown>,
    },
    /// The answer counts. With the name under which it is told.
    Taken {
        by: String,
    },
    Refused {
        why: Refused,
        message: String,
    },
}

/// Why a request is not met.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Refused {
    /// This user may not answer.
    NotAllowed,
    /// It cannot be read, or is too large.
    Malformed,
    /// Nothing like it waits for an answer.
    NotAsked,
    /// What is asked is not what was shown.
    Changed,
    /// The agent cannot write its journal: it is not run.
    NotRecorded,
    /// Too much at once, or the agent stops.
    Busy,
}

/// Reads one line and what it says. `None` where the other side hung up.
pub async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncBufRead + Unpin),
    most: u64,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(most).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let why = format!("a line is longer than {most} bytes, or not whole");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

pub async fn write(to: &mut (impl AsyncWrite + Unpin), what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_one_line_of_json_and_bounded() {
        for (line, expected) in [
            (
                "{\"ask\":\"pending\"}\n",
                Some(Request::Pending { unlike: None }),
            ),
            (
                "{\"ask\":\"pending\",\"unlike\":7}\n",
                Some(Request::Pending { unlike: Some(7) }),
            ),
            (
                "{\"ask\":\"answer\",\"uid\":\"a\",\"digest\":\"b\",\"decision\":\"deny\"}\n",
                Some(Request::Answer {
                    uid: "a".to_owned(),
                    digest: "b".to_owned(),
                    decision: Said::Deny,
                    reason: String::new(),
                }),
            ),
            ("", None),
        ] {
            let read: Option<Request> = read(&mut line.as_bytes(), 100).await.unwrap();
            assert_eq!(read, expected, "{line}");
        }
        let long = format!("{{\"ask\":\"pending\"{}}}\n", " ".repeat(100));
        for wrong in [
            "\n",
            "{\"ask\":\"pending\"}",
            "{\"ask\":\"everything\"}\n",
            "{\"ask\":\"pending\",\"more\":1}\n",
            "{\"ask\":\"answer\",\"uid\":\"a\",\"digest\":\"b\",\"decision\":\"perhaps\"}\n",
            &long,
        ] {
            read::<Request>(&mut wrong.as_bytes(), 100)
                .await
                .unwrap_err();
        }
    }

    #[tokio::test]
    async fn what_is_written_is_read_back() {
        let mut bytes = Vec::new();
        let refused = Response::Refused {
            why: Refused::NotAllowed,
            message: "two\nlines".to_owned(),
        };
        let taken = Response::Taken {
            by: "jane".to_owned(),
        };
        for response in [&refused, &taken] {
            write(&mut bytes, response).await.unwrap();
        }
        let mut from = bytes.as_slice();
        for expected in [refused, taken] {
            let response: Option<Response> = read(&mut from, MAX_REPLY_BYTES).await.unwrap();
            assert_eq!(response, Some(expected));
        }
    }
}
