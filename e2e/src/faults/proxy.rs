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

/// One of the two ways of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    ToDevices,
    ToGateway,
}

#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    weather: Weather,
    /// Counts the times that all connections were cut: a connection ends when the number is not that of its beginning.
    cuts: u64,
    /// Count the times that one way was closed.
    closes_to_devices: u64,
    closes_to_gateway: u64,
}

impl Orders {
    fn closes(&self, way: Way) -> u64 {
        match way {
            Way::ToDevices => self.closes_to_devices,
            Way::ToGateway => self.closes_to_gateway,
        }
    }
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

    /// Ends one way on every connection there is, and leaves the other open.
    pub fn half_close(&self, way: Way) {
        self.orders.send_modify(|orders| match way {
            Way::ToDevices => orders.closes_to_devices += 1,
            Way::ToGateway => orders.closes_to_gateway += 1,
        });
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
        let up = copy(
            from_device,
            to_gateway,
            orders.clone(),
            Way::ToGateway,
            began,
        );
        let down = copy(from_gateway, to_device, orders, Way::ToDevices, began);
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
    way: Way,
    began: Orders,
) -> io::Result<()> {
    let closed = {
        let mut orders = orders.clone();
        async move {
            let before = began.closes(way);
            let _ = orders.wait_for(|now| now.closes(way) != before).await;
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
    async fn half_closed_one_hears_the_end_and_can_still_speak() {
        for way in [Way::ToDevices, Way::ToGateway] {
            let (proxy, device, gateway) = pair().await;
            let (mut deaf, mut other) = match way {
                Way::ToDevices => (device, gateway),
                Way::ToGateway => (gateway, device),
            };
            // It is carried before it is closed: what comes later knows nothing of it.
            deaf.write_all(b"first").await.unwrap();
            assert_eq!(read(&mut other).await.unwrap(), b"first");
            proxy.half_close(way);
            assert_eq!(read(&mut deaf).await.unwrap(), b"");
            deaf.write_all(b"still").await.unwrap();
            assert_eq!(read(&mut other).await.unwrap(), b"still");
        }
    }
}
