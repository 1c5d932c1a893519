//! A connection that a test can cut, to change what is beyond it unseen.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards every connection to another address, unless it is cut.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    up: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Link {
    pub async fn start(address: SocketAddr, to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let up = Arc::new(watch::Sender::new(true));
        let task = tokio::spawn(run(listener, to, up.clone()));
        Ok(Self { address, up, task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection, and each new one as soon as it is accepted.
    pub fn cut(&self) {
        self.up.send_replace(false);
    }

    pub fn mend(&self) {
        self.up.send_replace(true);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(listener: TcpListener, to: SocketAddr, up: Arc<watch::Sender<bool>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut up = up.subscribe();
        if !*up.borrow() {
            continue;
        }
        tokio::spawn(async move {
            let Ok(mut beyond) = TcpStream::connect(to).await else { return };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut stream, &mut beyond) => {}
                _ = up.wait_for(|up| !up) => {}
            }
        });
    }
}
