//! A connection that a test can cut, silence or slow down, to change what is beyond it unseen.
//!
//! Owns the bytes that are on their way. Refuses to know the protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Pieces of one direction that are on their way at most; more wait in the sockets.
const ON_THE_WAY: usize = 4096;
const PIECE: usize = 16 * 1024;

/// Forwards every connection to another address, unless it is cut or silenced.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    up: Arc<watch::Sender<bool>>,
    silenced: Arc<watch::Sender<u64>>,
    delay: Arc<watch::Sender<Duration>>,
    task: JoinHandle<()>,
}

impl Link {
    pub async fn start(address: SocketAddr, to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (up, silenced) = (Arc::new(watch::Sender::new(true)), Arc::new(watch::Sender::new(0)));
        let delay = Arc::new(watch::Sender::new(Duration::ZERO));
        let task = tokio::spawn(run(listener, to, up.clone(), silenced.clone(), delay.clone()));
        Ok(Self { address, up, silenced, delay, task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection, and each new one as soon as it is accepted.
    pub fn cut(&self) {
        self.up.send_replace(false);
    }

    /// Stops forwarding the present connections, and ends none of them: whoever has one hears nothing more. New ones
    /// are forwarded.
    pub fn silence(&self) {
        self.silenced.send_modify(|times| *times += 1);
    }

    pub fn mend(&self) {
        self.up.send_replace(true);
    }

    /// From now on every byte is so much longer on its way, in each direction.
    pub fn delay(&self, each_way: Duration) {
        self.delay.send_replace(each_way);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    listener: TcpListener,
    to: SocketAddr,
    up: Arc<watch::Sender<bool>>,
    silenced: Arc<watch::Sender<u64>>,
    delay: Arc<watch::Sender<Duration>>,
) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (mut up, mut silenced, delay) = (up.subscribe(), silenced.subscribe(), delay.subscribe());
        if !*up.borrow() {
            continue;
        }
        tokio::spawn(async move {
            let Ok(mut beyond) = TcpStream::connect(to).await else { return };
            let silent = {
                let ((read, write), (read_beyond, write_beyond)) = (stream.split(), beyond.split());
                let both = async {
                    tokio::join!(forward(read, write_beyond, delay.clone()), forward(read_beyond, write, delay.clone()))
                };
                tokio::select! {
                    _ = both => false,
                    _ = up.wait_for(|up| !up) => false,
                    Ok(()) = silenced.changed() => true,
                }
            };
            // Both ends stay open until the link itself ends.
            while silent && silenced.changed().await.is_ok() {}
        });
    }
}

/// Forwards one direction until it ends. Bytes keep their order also where the delay becomes shorter.
async fn forward(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, delay: watch::Receiver<Duration>) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let read = async move {
        let mut buffer = vec![0; PIECE];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + *delay.borrow();
            if sender.send((due, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = pieces.recv().await {
            // A timer would round up a moment that has come.
            if due > Instant::now() {
                sleep_until(due).await;
            }
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The other end may be gone already.
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
