//! A reader of the page, without a browser.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use twinspan_testbed::Twinspan;

const SOON: Duration = Duration::from_secs(60);

/// The answer of a path, as text.
pub async fn text(page: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(page).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.context("no answer in time")??;
    ensure!(answer.split(' ').nth(1) == Some("200"), "{path}: {answer}");
    Ok(answer.split_once("\r\n\r\n").context("no body")?.1.to_owned())
}

pub async fn json(twinspan: &Twinspan, path: &str) -> Result<Value> {
    Ok(serde_json::from_str(&text(twinspan.page(), path).await?)?)
}

/// The row of one service; null if there is none.
pub async fn row(twinspan: &Twinspan, key: &str) -> Result<Value> {
    let state = json(twinspan, "/state").await?;
    let mut rows = state["services"].as_array().context("services")?.iter();
    Ok(rows.find(|row| row["key"] == key).cloned().unwrap_or_default())
}

/// A stream of changes.
pub struct Changes(BufReader<TcpStream>);

impl Changes {
    /// From now on.
    pub async fn follow(twinspan: &Twinspan) -> Result<Self> {
        let state = json(twinspan, "/state").await?;
        let boot = state["boot"].as_str().context("boot")?;
        let mut stream = TcpStream::connect(twinspan.page()).await?;
        let path = format!("/events?since={}&boot={boot}", state["version"]);
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The next row of a service that is as it should be.
    pub async fn row(&mut self, key: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = async {
            let mut line = String::new();
            loop {
                line.clear();
                ensure!(self.0.read_line(&mut line).await? > 0, "the stream ended");
                if line.trim_end() == "event: reset" {
                    bail!("the stream begins anew");
                }
                let Some(data) = line.trim_end().strip_prefix("data: ") else { continue };
                let change: Value = serde_json::from_str(data)?;
                // A heartbeat has none.
                let mut rows = change["services"].as_array().into_iter().flatten();
                if let Some(row) = rows.find(|row| row["key"] == key && wanted(row)) {
                    return Ok(row.clone());
                }
            }
        };
        timeout(SOON, found).await.context("no such row in time")?
    }
}
