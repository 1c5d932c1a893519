//! A proxy for HTTPS, as companies have one: it opens a tunnel to the address that `CONNECT` names (RFC 9110, 9.3.6).
//!
//! Owns the list of what it was asked for. Refuses to know what goes through.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Opens every tunnel that it is asked for.
#[derive(Debug)]
pub struct ConnectProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl ConnectProxy {
    pub async fn start(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let list = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let list = list.clone();
                // A client may go away at any time.
                tokio::spawn(async move { tunnel(stream, &list).await.ok() });
            }
        });
        Ok(Self { address, asked, task })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The addresses of all tunnels since the last question.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn tunnel(stream: TcpStream, asked: &Mutex<Vec<String>>) -> Result<()> {
    let mut client = BufReader::new(stream);
    let mut first = String::new();
    client.read_line(&mut first).await?;
    let mut header = String::from("more");
    while !header.trim().is_empty() {
        header.clear();
        client.read_line(&mut header).await?;
    }
    let to = first.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).context("no CONNECT")?.to_owned();
    let mut beyond = TcpStream::connect(&to).await?;
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(to);
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut beyond).await?;
    Ok(())
}
