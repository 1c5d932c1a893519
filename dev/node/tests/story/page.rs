//! The status page of the leader, opened as a person opens it: from outside, by the right to forward a port to its pod.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use twinspan_node::{Node, scene};
use twinspan_testbed::eventually;

use crate::failover::leader;
use crate::pods::Process;
use crate::steps::{SOON, twinspan};

/// `twinspan status --open`, and the local port that it forwards.
pub struct Opened {
    _command: Child,
    page: SocketAddr,
}

impl Opened {
    /// Runs the program of the image on the machine, with an administrator's kubeconfig.
    pub async fn open(node: &Node) -> Result<Self> {
        let Process { pid, .. } = twinspan(&leader(node).await?)?;
        let mut command = Command::new(format!("/proc/{pid}/exe"))
            .args(["status", "--open", "--no-browser"])
            .env("TWINSPAN_KUBECONFIG", &node.cluster.admin.path)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut said = BufReader::new(command.stdout.take().context("no output")?).lines();
        let line = timeout(SOON, said.next_line()).await.context("no address in time")??.context("it ended")?;
        let address = line.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        let page = address.with_context(|| line.clone())?.parse()?;
        Ok(Self { _command: command, page })
    }

    /// Waits until the port leads to the page of the replica that leads now, with every service of the shop.
    pub async fn shows_the_leader(&self, node: &Node) -> Result<()> {
        eventually("the page is the leader's", SOON, || async {
            let state = timeout(Duration::from_secs(10), self.state()).await.context("no answer in time")??;
            let leads = leader(node).await?;
            ensure!(state["leader"] == true && state["replica"] == leads.as_str(), "{leads} leads, not {state}");
            let rows = state["services"].as_array().context("services")?;
            let user = rows.iter().find(|row| row["namespace"] == scene::SHOP && row["name"] == "user");
            ensure!(user.is_some_and(|row| row["state"] == "InSync"), "{rows:?}");
            Ok(())
        })
        .await
    }

    async fn state(&self) -> Result<Value> {
        let mut stream = TcpStream::connect(self.page).await?;
        stream.write_all(b"GET /state HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").with_context(|| answer.clone())?;
        Ok(serde_json::from_str(body)?)
    }
}
