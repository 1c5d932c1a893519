//! A way to the page that can freeze, as a process does that is stopped: connections stay, and nothing goes through.
//!
//! Owns the connections on both of its sides. Refuses to know what goes through.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct Relay {
    address: SocketAddr,
    frozen: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// Leads to an address.
    pub async fn to(beyond: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((beyond.ip(), 0)).await?;
        let address = listener.local_addr()?;
        let frozen = watch::Sender::new(false);
        let state = frozen.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Either end may go away at any time.
                tokio::spawn(relay(stream, beyond, state.clone()));
            }
        });
        Ok(Self { address, frozen, task })
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}

async fn relay(stream: TcpStream, beyond: SocketAddr, mut frozen: watch::Receiver<bool>) -> Result<()> {
    frozen.wait_for(|frozen| !frozen).await?;
    let (reads, writes) = stream.into_split();
    let (reads_beyond, writes_beyond) = TcpStream::connect(beyond).await?.into_split();
    tokio::try_join!(pump(reads, writes_beyond, frozen.clone()), pump(reads_beyond, writes, frozen)).map(drop)
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut frozen: watch::Receiver<bool>) -> Result<()> {
    let mut part = vec![0; 16 << 10];
    loop {
        let length = from.read(&mut part).await?;
        frozen.wait_for(|frozen| !frozen).await?;
        if length == 0 {
            return Ok(to.shutdown().await?);
        }
        to.write_all(&part[..length]).await?;
    }
}
