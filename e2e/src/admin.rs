//! Asks the admin port of one of our programs: `/live`, `/ready`, `/metrics`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;

/// Gets a path over plain HTTP.
///
/// # Errors
/// When nobody answers in five seconds, or the answer is not 200; the message has the answer.
pub async fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.context("connect")?;
        // HTTP/1.0: the answer is neither chunked nor kept open.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.context("ask")?;
        let mut answer = String::new();
        stream
            .take(MAX_ANSWER_BYTES)
            .read_to_string(&mut answer)
            .await
            .context("read")?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(ANSWER_WITHIN, exchange)
        .await
        .context("no answer in time")?
        .with_context(|| format!("GET http://{address}{path}"))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer is not HTTP")?;
    let status = head.split_whitespace().nth(1);
    ensure!(
        status == Some("200"),
        "GET http://{address}{path}: {}",
        answer.trim()
    );
    Ok(body.to_owned())
}
