//! Real Kitex programs (`dev/interop`), and what they say.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

use crate::part::Part;
use crate::{eventually, namespace};

/// What a server is given besides its name and address.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Absent is the framework's default.
    pub prefix: Option<String>,
    /// The lease's TTL in seconds (`KITEX_ETCD_REGISTRY_LEASE_TTL`); absent is the framework's default, 60.
    pub ttl: Option<u32>,
    pub tags: Vec<(String, String)>,
    /// Answers, but does not know the registry: what runs in an ordinary pod.
    pub silent: bool,
}

/// A real Kitex server.
#[derive(Debug)]
pub struct KitexServer {
    part: Part,
    address: SocketAddr,
}

impl KitexServer {
    pub async fn start(
        dir: &Path,
        etcd: &str,
        service: &str,
        address: SocketAddr,
        options: &ServerOptions,
    ) -> Result<Self> {
        let mut args = vec![
            "kitex-server".to_owned(),
            format!("-service={service}"),
            format!("-etcd={etcd}"),
            format!("-listen={address}"),
        ];
        args.extend(options.prefix.iter().map(|prefix| format!("-prefix={prefix}")));
        args.extend(options.tags.iter().map(|(k, v)| format!("-tag={k}={v}")));
        if options.silent {
            args.push("-no-register".to_owned());
        }
        let mut env = Vec::new();
        if let Some(ttl) = options.ttl {
            env.push(("KITEX_ETCD_REGISTRY_LEASE_TTL", ttl.to_string()));
        }
        if address.is_ipv6() {
            // registry-etcd v0.2.6 writes IPv6 without brackets otherwise, which no Kitex client can dial.
            env.push(("KITEX_IP_TO_REGISTRY", format!("[{}]", address.ip())));
        }
        let name = format!("kitex-server-{service}-{}", address.to_string().replace([':', '[', ']'], "_"));
        let part = Part::start(&name, dir, &namespace::binary("interop")?, &args, &env)?;
        let server = Self { part, address };
        eventually("the Kitex server serves", Duration::from_secs(20), || async {
            server.part.check_running()?;
            ensure!(server.part.lines().iter().any(|l| l.contains("\"serving\"")), "not serving yet");
            Ok(())
        })
        .await?;
        Ok(server)
    }

    pub fn part(&self) -> &Part {
        &self.part
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[derive(Deserialize)]
struct Line {
    event: String,
    from: Option<String>,
    error: Option<String>,
}

/// One call of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    From(SocketAddr),
    Failed(String),
}

/// A real Kitex client that calls all the time and knows nothing but etcd.
#[derive(Debug)]
pub struct KitexClient {
    part: Part,
}

impl KitexClient {
    pub fn start(dir: &Path, etcd: &str, service: &str, prefix: Option<&str>) -> Result<Self> {
        let mut args = vec!["kitex-client".to_owned(), format!("-service={service}"), format!("-etcd={etcd}")];
        args.extend(prefix.map(|prefix| format!("-prefix={prefix}")));
        let part = Part::start(&format!("kitex-client-{service}"), dir, &namespace::binary("interop")?, &args, &[])?;
        Ok(Self { part })
    }

    pub fn part(&self) -> &Part {
        &self.part
    }

    /// How many calls there were; a mark for [`KitexClient::calls_since`].
    pub fn mark(&self) -> usize {
        self.part.line_count()
    }

    pub fn calls_since(&self, mark: usize) -> Result<Vec<Call>> {
        let mut calls = Vec::new();
        for text in self.part.lines_since(mark) {
            let line: Line =
                serde_json::from_str(&text).with_context(|| format!("not what a client prints: {text}"))?;
            if line.event == "call" {
                calls.push(match (line.from, line.error) {
                    (Some(from), None) => Call::From(from.parse()?),
                    (_, error) => Call::Failed(error.unwrap_or_default()),
                });
            }
        }
        Ok(calls)
    }

    /// Who answered since the mark.
    pub fn answered_since(&self, mark: usize) -> Result<BTreeSet<SocketAddr>> {
        let calls = self.calls_since(mark)?;
        Ok(calls.into_iter().filter_map(|call| if let Call::From(from) = call { Some(from) } else { None }).collect())
    }

    /// Waits until exactly these answer, over some calls in a row.
    pub async fn answered_by(&self, expected: &BTreeSet<SocketAddr>, within: Duration) -> Result<()> {
        eventually("the Kitex client is answered by the expected instances", within, || async {
            self.part.check_running()?;
            let mark = self.mark();
            tokio::time::sleep(Duration::from_millis(60 * (expected.len() as u64 * 8).max(8))).await;
            let answered = self.answered_since(mark)?;
            ensure!(&answered == expected, "answered by {answered:?}, want {expected:?}");
            Ok(())
        })
        .await
    }
}

/// An instance as Kitex' own resolver returns it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Resolved {
    pub network: String,
    pub address: String,
    pub weight: i64,
    pub tags: std::collections::BTreeMap<String, String>,
}

/// Asks the real resolver once. No instances is an empty list, although Kitex calls it an error.
pub async fn resolve(etcd: &str, service: &str, prefix: Option<&str>, tags: &[&str]) -> Result<Vec<Resolved>> {
    #[derive(Deserialize)]
    struct Answer {
        instances: Vec<Resolved>,
    }
    let mut command = Command::new(namespace::binary("interop")?);
    command.arg("kitex-resolve").arg(format!("-service={service}")).arg(format!("-etcd={etcd}"));
    command.args(prefix.map(|prefix| format!("-prefix={prefix}")));
    command.args(tags.iter().map(|tag| format!("-tag={tag}")));
    let output = command.output().await?;
    ensure!(output.status.success(), "kitex-resolve: {}", String::from_utf8_lossy(&output.stderr));
    let answer: Answer = serde_json::from_slice(&output.stdout)?;
    Ok(answer.instances)
}
