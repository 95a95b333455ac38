//! Whether the other end of a connection hung up: what a client of HTTP/2 keeps from whoever uses it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// A connection that is listened to for its end.
pub struct Overheard<C> {
    connection: C,
    tell: Option<oneshot::Sender<()>>,
}

/// The end of an [`Overheard`] connection.
pub struct HangUp(oneshot::Receiver<()>);

/// Listens to a connection.
pub fn overhear<C>(connection: C) -> (Overheard<C>, HangUp) {
    let (tell, told) = oneshot::channel();
    let tell = Some(tell);
    (Overheard { connection, tell }, HangUp(told))
}

impl HangUp {
    /// Waits until the other end hangs up.
    ///
    /// # Errors
    /// When it does not in that time, or we hung up first.
    pub async fn within(&mut self, time: Duration) -> anyhow::Result<()> {
        let told = tokio::time::timeout(time, &mut self.0)
            .await
            .with_context(|| format!("the connection is open after {} s", time.as_secs()))?;
        if told.is_err() {
            bail!("we hung up, not the other end");
        }
        Ok(())
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Overheard<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.remaining();
        let read = Pin::new(&mut this.connection).poll_read(context, buffer);
        let ended = match &read {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => before > 0 && buffer.remaining() == before,
            Poll::Ready(Err(_)) => true,
        };
        if ended && let Some(tell) = this.tell.take() {
            // Nobody may want to know.
            let _ = tell.send(());
        }
        read
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Overheard<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn the_other_ends_hanging_up_is_told_and_our_own_is_not_taken_for_it() {
        let (ours, theirs) = duplex(8);
        let (mut ours, mut hang_up) = overhear(ours);
        assert!(hang_up.within(Duration::from_millis(10)).await.is_err());
        drop(theirs);
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
        hang_up.within(SOON).await.unwrap();

        let (ours, _theirs) = duplex(8);
        let (ours, mut hang_up) = overhear(ours);
        drop(ours);
        let told = hang_up.within(SOON).await.unwrap_err().to_string();
        assert!(told.starts_with("we hung up"), "{told}");
    }
}
