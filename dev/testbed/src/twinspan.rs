//! Twinspan itself, as its own ServiceAccount, started as the Deployment of `deploy/twinspan.yaml` starts it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::network::Place;
use crate::part::Part;
use crate::{Kubeconfig, OPERATOR_NAMESPACE, deployment, eventually};

/// How Twinspan is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub args: Vec<String>,
    /// Arguments of the chart, by their beginning, that an earlier version does not know.
    pub unknown: Vec<String>,
    /// The namespace of its Lease and its Secrets; absent is the usual one.
    pub namespace: Option<String>,
    /// How it reaches the API server; absent is directly.
    pub kubeconfig: Option<Kubeconfig>,
    /// The file that it sees as `/etc/hosts`; absent is the machine's.
    pub hosts: Option<PathBuf>,
    /// Variables of its environment besides those of the chart.
    pub env: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct Twinspan {
    part: Part,
    admin: SocketAddr,
    page: SocketAddr,
    drain: SocketAddr,
}

impl Twinspan {
    /// Starts it without waiting for it, as the user of `kubeconfig` unless the options name another.
    pub fn start(
        place: impl Into<Place>,
        ip: Ipv4Addr,
        binary: &str,
        kubeconfig: &Kubeconfig,
        options: &Options,
    ) -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let admin = SocketAddr::from((ip, 8080 + number));
        let name = format!("twinspan-{number}");
        let container = deployment::container()?;
        let mut args = container.args.clone().unwrap_or_default();
        // Differences from a pod: several replicas share one machine, and no kubelet mounts a token.
        args.retain(|arg| {
            !["--admin-addr=", "--page-addr="].iter().any(|flag| arg.starts_with(flag))
                && !options.unknown.iter().any(|flag| arg.starts_with(flag))
        });
        let kubeconfig = options.kubeconfig.as_ref().unwrap_or(kubeconfig);
        args.extend([format!("--admin-addr={admin}"), format!("--kubeconfig={}", kubeconfig.path.display())]);
        args.extend(options.args.iter().cloned());
        let namespace = options.namespace.as_deref().unwrap_or(OPERATOR_NAMESPACE);
        let mut env = deployment::environment(&container, namespace, &name)?;
        // Another difference: no replica has a volume of its own.
        env.retain(|(variable, _)| variable != "TWINSPAN_SOCKET");
        // The logs of a failed story need more detail than those of a user.
        let filter = std::env::var("TWINSPAN_LOG").unwrap_or_else(|_| "info,kube_client=off,twinspan=debug".to_owned());
        env.push(("RUST_LOG".to_owned(), filter));
        // A variable, which an earlier version does not mind.
        let page = SocketAddr::from((ip, 9080 + number));
        env.push(("TWINSPAN_PAGE_ADDR".to_owned(), page.to_string()));
        let drain = SocketAddr::from((ip, 7080 + number));
        env.push(("TWINSPAN_DRAIN_ADDR".to_owned(), drain.to_string()));
        env.extend(options.env.iter().cloned());
        let env: Vec<(&str, String)> = env.iter().map(|(variable, value)| (variable.as_str(), value.clone())).collect();
        let (program, args) = match &options.hosts {
            Some(hosts) => ("unshare", with_hosts(hosts, binary, args)),
            None => (binary, args),
        };
        Ok(Self { part: Part::start(&name, place, program, &args, &env)?, admin, page, drain })
    }

    pub fn part(&self) -> &Part {
        &self.part
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where the status page is served; it answers to local names of hosts alone.
    pub fn page(&self) -> SocketAddr {
        self.page
    }

    /// Where pods that end ask.
    pub fn drain(&self) -> SocketAddr {
        self.drain
    }

    /// Waits for `/readyz`.
    pub async fn ready(&self) -> Result<()> {
        eventually("Twinspan is ready", Duration::from_secs(60), || async {
            self.part.check_running()?;
            let (status, body) = self.get("/readyz").await?;
            ensure!(status == 200, "{status}: {body}");
            Ok(())
        })
        .await
    }

    /// Status and body of a page of the admin address.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.admin).await?;
        // Metrics as Prometheus asks for them.
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        let request = format!("GET {path} HTTP/1.0\r\nHost: twinspan\r\nAccept: {accept}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).context("no HTTP status")?.parse()?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        Ok((status, body))
    }

    /// The value of one metric line, e.g. `twinspan_leader`; absent is `None`.
    pub async fn metric(&self, line: &str) -> Result<Option<f64>> {
        let (_, body) = self.get("/metrics").await?;
        let found = body.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        found.map(|value| value.trim().parse().context("not a number")).transpose()
    }
}

/// Arguments of `unshare` that run a program in a mount namespace where a file is `/etc/hosts`.
fn with_hosts(hosts: &Path, binary: &str, args: Vec<String>) -> Vec<String> {
    let script = format!("mount --bind {} /etc/hosts && exec \"$0\" \"$@\"", hosts.display());
    let mut all: Vec<String> = ["--mount", "--", "sh", "-c", &script, binary].map(str::to_owned).to_vec();
    all.extend(args);
    all
}
