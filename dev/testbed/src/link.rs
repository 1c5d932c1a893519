//! A connection that a test can cut, to change what is beyond it unseen.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards every connection to another address, unless it is cut or silenced.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    up: Arc<watch::Sender<bool>>,
    silenced: Arc<watch::Sender<u64>>,
    task: JoinHandle<()>,
}

impl Link {
    pub async fn start(address: SocketAddr, to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (up, silenced) = (Arc::new(watch::Sender::new(true)), Arc::new(watch::Sender::new(0)));
        let task = tokio::spawn(run(listener, to, up.clone(), silenced.clone()));
        Ok(Self { address, up, silenced, task })
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
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(listener: TcpListener, to: SocketAddr, up: Arc<watch::Sender<bool>>, silenced: Arc<watch::Sender<u64>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (mut up, mut silenced) = (up.subscribe(), silenced.subscribe());
        if !*up.borrow() {
            continue;
        }
        tokio::spawn(async move {
            let Ok(mut beyond) = TcpStream::connect(to).await else { return };
            let silent = tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut stream, &mut beyond) => false,
                _ = up.wait_for(|up| !up) => false,
                Ok(()) = silenced.changed() => true,
            };
            // Both ends stay open until the link itself ends.
            while silent && silenced.changed().await.is_ok() {}
        });
    }
}
