//! A TCP proxy on loopback that stands between devices and one gateway, and does to their connections what networks do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to what goes through.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Weather {
    /// It goes through.
    #[default]
    Fair,
    /// Nothing goes through, and nobody is told.
    Stalled,
}

#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    weather: Weather,
    /// Counts the times that all connections were cut: a connection ends when the number is not that of its beginning.
    cuts: u64,
    /// Counts the times that the way to the device was closed.
    half_closes: u64,
}

/// Listens until it is dropped.
pub struct Proxy {
    address: String,
    orders: Arc<watch::Sender<Orders>>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port and passes everything on to `gateway`, which need not be there yet.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(gateway: &str) -> anyhow::Result<Self> {
        let gateway: SocketAddr = gateway.parse().context("read the gateway's address")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let orders = Arc::new(watch::Sender::new(Orders::default()));
        let mut task = JoinSet::new();
        let theirs = Arc::clone(&orders);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((device, _)) = accepted else { continue };
                        let orders = theirs.subscribe();
                        connections.spawn(async move {
                            // How a connection ends is the peers' to notice.
                            let _ = carry(device, gateway, orders).await;
                        });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self {
            address,
            orders,
            _task: task,
        })
    }

    /// `HOST:PORT` where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Changes the weather for all connections, those to come among them.
    pub fn weather(&self, weather: Weather) {
        self.orders.send_modify(|orders| orders.weather = weather);
    }

    /// Resets every connection there is.
    pub fn cut(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }

    /// Ends the way from the gateway to the device on every connection there is, and leaves the other open.
    pub fn half_close(&self) {
        self.orders.send_modify(|orders| orders.half_closes += 1);
    }
}

async fn carry(
    device: TcpStream,
    gateway: SocketAddr,
    mut orders: watch::Receiver<Orders>,
) -> io::Result<()> {
    let began = *orders.borrow();
    let cut = {
        let mut orders = orders.clone();
        async move {
            // An error means that the proxy is gone, and so is the connection.
            let _ = orders.wait_for(|now| now.cuts != began.cuts).await;
        }
    };
    let carried = async {
        fair(&mut orders).await?;
        let gateway = TcpStream::connect(gateway).await?;
        for stream in [&device, &gateway] {
            stream.set_nodelay(true)?;
            // A cut is a reset, not a polite end.
            stream.set_zero_linger()?;
        }
        let (from_device, to_device) = device.into_split();
        let (from_gateway, to_gateway) = gateway.into_split();
        let up = copy(from_device, to_gateway, orders.clone(), None);
        let down = copy(from_gateway, to_device, orders, Some(began.half_closes));
        tokio::try_join!(up, down).map(drop)
    };
    tokio::select! {
        () = cut => Ok(()),
        carried = carried => carried,
    }
}

/// Copies while the weather is fair, up to the end of `from`, or until the orders say that this way is closed.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut orders: watch::Receiver<Orders>,
    half_closes: Option<u64>,
) -> io::Result<()> {
    let closed = {
        let mut orders = orders.clone();
        async move {
            match half_closes {
                Some(before) => {
                    let _ = orders.wait_for(|now| now.half_closes != before).await;
                }
                None => std::future::pending().await,
            }
        }
    };
    let copying = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let length = from.read(&mut buffer).await?;
            fair(&mut orders).await?;
            match buffer.get(..length) {
                Some(part) if length > 0 => to.write_all(part).await?,
                Some(_) | None => return Ok(()),
            }
        }
    };
    let copied = tokio::select! {
        () = closed => Ok(()),
        copied = copying => copied,
    };
    to.shutdown().await?;
    copied
}

async fn fair(orders: &mut watch::Receiver<Orders>) -> io::Result<()> {
    orders
        .wait_for(|orders| orders.weather == Weather::Fair)
        .await
        .map(drop)
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const A_MOMENT: Duration = Duration::from_millis(100);

    async fn pair() -> (Proxy, TcpStream, TcpStream) {
        let gateway = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(&gateway.local_addr().unwrap().to_string())
            .await
            .unwrap();
        let device = TcpStream::connect(proxy.address()).await.unwrap();
        let (gateway, _) = gateway.accept().await.unwrap();
        (proxy, device, gateway)
    }

    async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 16];
        let length = tokio::time::timeout(SOON, stream.read(&mut buffer))
            .await
            .unwrap()?;
        Ok(buffer[..length].to_vec())
    }

    #[tokio::test]
    async fn what_was_stalled_arrives_when_the_weather_clears() {
        let (proxy, mut device, mut gateway) = pair().await;
        device.write_all(b"one").await.unwrap();
        assert_eq!(read(&mut gateway).await.unwrap(), b"one");
        proxy.weather(Weather::Stalled);
        device.write_all(b"two").await.unwrap();
        let early = tokio::time::timeout(A_MOMENT, gateway.readable()).await;
        assert!(early.is_err(), "it went through");
        proxy.weather(Weather::Fair);
        assert_eq!(read(&mut gateway).await.unwrap(), b"two");
    }

    #[tokio::test]
    async fn a_cut_ends_both_sides_and_a_new_connection_goes_through() {
        let (proxy, mut device, mut gateway) = pair().await;
        proxy.cut();
        for side in [&mut device, &mut gateway] {
            let read = read(side).await;
            assert!(read.is_err() || read.is_ok_and(|read| read.is_empty()));
        }
        assert!(TcpStream::connect(proxy.address()).await.is_ok());
    }

    #[tokio::test]
    async fn half_closed_the_device_hears_the_end_and_can_still_speak() {
        let (proxy, mut device, mut gateway) = pair().await;
        proxy.half_close();
        assert_eq!(read(&mut device).await.unwrap(), b"");
        device.write_all(b"still").await.unwrap();
        assert_eq!(read(&mut gateway).await.unwrap(), b"still");
    }
}
