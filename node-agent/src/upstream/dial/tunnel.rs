//! `CONNECT` (RFC 9110, section 9.3.6): a proxy connects to the gateway, and passes bytes on unread.

use std::io;

use runtime::proxy::ProxyUrl;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::super::connect::Error;
use crate::terminal::printable;

/// Longest head of an answer that is read, in bytes.
const MAX_HEAD: usize = 8 * 1024;

/// Has the proxy at the other end connect to `gateway`, which is `HOST:PORT`. After this, `stream` leads to the gateway,
/// and none of the gateway's bytes was read.
pub(super) async fn open(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    gateway: &str,
    proxy: &ProxyUrl,
) -> Result<(), Error> {
    let failed = |source| Error::Proxy {
        proxy: proxy.to_string(),
        source,
    };
    let mut request = Zeroizing::new(format!("CONNECT {gateway} HTTP/1.1\r\nHost: {gateway}\r\n"));
    if let Some(authorization) = proxy.authorization() {
        request.push_str("Proxy-Authorization: ");
        request.push_str(&authorization);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let head = read_head(stream).await.map_err(failed)?;
    judge(&head).map_err(|why| failed(io::Error::other(why)))
}

/// Byte by byte: what follows the head is the gateway's.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(io::Error::other("its answer is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

fn judge(head: &[u8]) -> Result<(), String> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = printable(&String::from_utf8_lossy(line));
    let (version, status) = line.split_once(' ').unwrap_or((&line, ""));
    let code = status.split(' ').next().and_then(|code| code.parse().ok());
    match code {
        Some(200..300) if version.starts_with("HTTP/1.") => Ok(()),
        // Some answer as an origin server would.
        Some(401_u16 | 407) => Err(
            "it asks for a user and a password; give http://USER:PASSWORD@HOST:PORT as `proxy` in agent.toml"
                .to_owned(),
        ),
        Some(500..600) if version.starts_with("HTTP/1.") => Err(format!(
            "it cannot reach this gateway: {status}; see that the gateway's name and port are right"
        )),
        Some(_) if version.starts_with("HTTP/1.") => Err(format!(
            "it does not connect to this gateway: {status}; have its administrator allow CONNECT to that port"
        )),
        Some(_) | None => Err("it does not speak HTTP/1.1; give another address".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::upstream::connect::chain;

    async fn answered(answer: &'static [u8], proxy: &str) -> (Result<(), String>, String, Vec<u8>) {
        let (mut device, mut end) = duplex(64 * 1024);
        end.write_all(answer).await.unwrap();
        let proxy: ProxyUrl = proxy.parse().unwrap();
        let opened = open(&mut device, "gateway.test:7443", &proxy).await;
        let mut asked = vec![0; 4096];
        let length = end.read(&mut asked).await.unwrap();
        end.shutdown().await.unwrap();
        let mut rest = Vec::new();
        device.read_to_end(&mut rest).await.unwrap();
        (
            opened.map_err(|error| chain(&error)),
            String::from_utf8(asked[..length].to_vec()).unwrap(),
            rest,
        )
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_the_gateway_and_nothing_of_the_gateway_is_read() {
        let (opened, asked, rest) = answered(
            b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\nHELLO",
            "http://ada:s3cret@proxy.test:3128",
        )
        .await;
        assert_eq!(opened, Ok(()));
        assert_eq!(
            asked,
            "CONNECT gateway.test:7443 HTTP/1.1\r\nHost: gateway.test:7443\r\n\
             Proxy-Authorization: Basic YWRhOnMzY3JldA==\r\n\r\n"
        );
        assert_eq!(rest, b"HELLO");
        let (opened, asked, _) = answered(b"HTTP/1.0 204 \r\n\r\n", "http://proxy.test").await;
        assert_eq!(opened, Ok(()));
        assert!(!asked.contains("Authorization"), "{asked}");
    }

    #[tokio::test]
    async fn what_a_proxy_refuses_is_told_with_what_to_do_and_without_a_password() {
        for (answer, says) in [
            (
                &b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..],
                "USER:PASSWORD",
            ),
            (b"HTTP/1.0 401 Unauthorized\r\n\r\n", "USER:PASSWORD"),
            (b"HTTP/1.1 403 For\x1bbidden\r\n\r\n", "403 For"),
            (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502 Bad Gateway"),
            (b"SSH-2.0-x\r\n\r\n", "does not speak HTTP/1.1"),
            (b"HTTP/2 200\r\n\r\n", "does not speak HTTP/1.1"),
        ] {
            let (opened, _, _) = answered(answer, "http://ada:s3cret@proxy.test:3128").await;
            let error = opened.unwrap_err();
            assert!(error.contains(says), "{error}");
            assert!(error.contains("http://proxy.test:3128"), "{error}");
            assert!(
                !error.contains("s3cret") && !error.contains('\x1b'),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_not_read_for_ever() {
        let (mut device, mut end) = duplex(64 * 1024);
        end.write_all(&[b'x'; 2 * MAX_HEAD]).await.unwrap();
        let proxy: ProxyUrl = "http://proxy.test".parse().unwrap();
        let error = open(&mut device, "g:1", &proxy).await.unwrap_err();
        assert!(chain(&error).contains("too long"), "{}", chain(&error));
    }
}
