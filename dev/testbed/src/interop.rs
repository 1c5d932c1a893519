//! Real programs of the frameworks (`dev/parts/interop`), and their output.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

use crate::network::Place;
use crate::part::Part;
use crate::{eventually, namespace};

/// The framework of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framework {
    #[default]
    Kitex,
    Hertz,
    Kratos,
    Kratos3,
    GoZero,
    Grpc,
    GoFrame,
}

impl Framework {
    pub const ALL: [Self; 7] =
        [Self::Kitex, Self::Hertz, Self::Kratos, Self::Kratos3, Self::GoZero, Self::Grpc, Self::GoFrame];

    /// The value of `spec.format` of a ServiceRegistry.
    pub fn format(self) -> &'static str {
        match self {
            Self::Kitex => "Kitex",
            Self::Hertz => "Hertz",
            Self::Kratos | Self::Kratos3 => "Kratos",
            Self::GoZero => "GoZero",
            Self::Grpc => "GRPC",
            Self::GoFrame => "GoFrame",
        }
    }

    /// The first part of the names of its programs.
    pub fn program(self) -> &'static str {
        match self {
            Self::Kitex => "kitex",
            Self::Hertz => "hertz",
            Self::Kratos => "kratos",
            Self::Kratos3 => "kratos3",
            Self::GoZero => "gozero",
            Self::Grpc => "grpc",
            Self::GoFrame => "goframe",
        }
    }
}

/// The options of a server besides its name and address.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    pub framework: Framework,
    /// Absent is the framework's default. Hertz has only its default.
    pub prefix: Option<String>,
    /// The TTL of the lease in seconds, where it can be chosen (Kitex, Hertz, gRPC); absent is the default: 60, 60 and
    /// 10. Kratos has 15, go-zero and GoFrame 10.
    pub ttl: Option<u32>,
    /// Kitex, Hertz, Kratos and Kratos 3.
    pub tags: Vec<(String, String)>,
    /// Absent is the framework's default; only Kitex.
    pub weight: Option<u32>,
    /// A second address, for HTTP; only Kratos and Kratos 3.
    pub http: Option<SocketAddr>,
    /// Answers, but does not register itself, as in an ordinary pod.
    pub silent: bool,
}

/// A real server.
#[derive(Debug)]
pub struct Server {
    part: Part,
    address: SocketAddr,
}

impl Server {
    pub async fn start(
        place: impl Into<Place>,
        etcd: &str,
        service: &str,
        address: SocketAddr,
        options: &ServerOptions,
    ) -> Result<Self> {
        let framework = options.framework;
        let mut args = vec![
            format!("{}-server", framework.program()),
            format!("-service={service}"),
            format!("-etcd={etcd}"),
            format!("-listen={address}"),
        ];
        args.extend(options.prefix.iter().map(|prefix| format!("-prefix={prefix}")));
        args.extend(options.tags.iter().map(|(k, v)| format!("-tag={k}={v}")));
        args.extend(options.weight.iter().map(|weight| format!("-weight={weight}")));
        args.extend(options.http.iter().map(|http| format!("-http={http}")));
        if options.silent {
            args.push("-no-register".to_owned());
        }
        let mut env = Vec::new();
        match (framework, options.ttl) {
            (Framework::Kitex, Some(ttl)) => env.push(("KITEX_ETCD_REGISTRY_LEASE_TTL", ttl.to_string())),
            (Framework::Hertz, Some(ttl)) => env.push(("HERTZ_ETCD_REGISTRY_LEASE_TTL", ttl.to_string())),
            (Framework::Grpc, Some(ttl)) => args.push(format!("-ttl={ttl}")),
            _ => {}
        }
        if address.is_ipv6() {
            // Otherwise registry-etcd v0.2.6 writes IPv6 without brackets, which no Kitex client can dial.
            env.push(("KITEX_IP_TO_REGISTRY", format!("[{}]", address.ip())));
        }
        let at = address.to_string().replace([':', '[', ']'], "_");
        let name = format!("{}-server-{service}-{at}", framework.program());
        let part = Part::start(&name, place, &namespace::binary("interop")?, &args, &env)?;
        let server = Self { part, address };
        eventually("the server serves", Duration::from_secs(20), || async {
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
    /// The address that a failed call was for, where the framework tells.
    to: Option<String>,
}

/// One call of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    From(SocketAddr),
    Failed(String),
}

/// A real client, of each framework but Kratos 2, that calls all the time and knows only etcd.
#[derive(Debug)]
pub struct Caller {
    part: Part,
}

impl Caller {
    pub fn start(
        place: impl Into<Place>,
        framework: Framework,
        etcd: &str,
        service: &str,
        prefix: Option<&str>,
    ) -> Result<Self> {
        Self::start_every(place, framework, etcd, service, prefix, None)
    }

    /// The same with so much time between two calls, which Kitex alone lets one choose.
    pub fn start_every(
        place: impl Into<Place>,
        framework: Framework,
        etcd: &str,
        service: &str,
        prefix: Option<&str>,
        interval: Option<Duration>,
    ) -> Result<Self> {
        let interval = interval.map(|interval| format!("-interval={}ms", interval.as_millis()));
        Ok(Self { part: client(place, framework, etcd, service, prefix, interval)? })
    }

    /// One of Kitex that calls only instances with a tag, given as `key=value`.
    pub fn start_in_lane(
        place: impl Into<Place>,
        etcd: &str,
        service: &str,
        prefix: Option<&str>,
        lane: &str,
    ) -> Result<Self> {
        let lane = Some(format!("-lane={lane}"));
        Ok(Self { part: client(place, Framework::Kitex, etcd, service, prefix, lane)? })
    }

    pub fn part(&self) -> &Part {
        &self.part
    }

    /// The number of calls so far; a mark for [`Caller::calls_since`].
    pub fn mark(&self) -> usize {
        self.part.line_count()
    }

    pub fn calls_since(&self, mark: usize) -> Result<Vec<Call>> {
        let mut calls = Vec::new();
        for text in self.part.lines_since(mark) {
            let line: Line =
                serde_json::from_str(&text).with_context(|| format!("not what a client prints: {text}"))?;
            if line.event == "call" {
                calls.push(match (line.from, line.error, line.to) {
                    (Some(from), None, _) => Call::From(from.parse()?),
                    (_, error, Some(to)) => Call::Failed(format!("{to}: {}", error.unwrap_or_default())),
                    (_, error, None) => Call::Failed(error.unwrap_or_default()),
                });
            }
        }
        Ok(calls)
    }

    /// The answers since the mark.
    pub fn answered_since(&self, mark: usize) -> Result<BTreeSet<SocketAddr>> {
        let calls = self.calls_since(mark)?;
        Ok(calls.into_iter().filter_map(|call| if let Call::From(from) = call { Some(from) } else { None }).collect())
    }

    /// Waits until exactly these instances answer, over several calls in a row.
    pub async fn answered_by(&self, expected: &BTreeSet<SocketAddr>, within: Duration) -> Result<()> {
        eventually("the client is answered by the expected instances", within, || async {
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

fn client(
    place: impl Into<Place>,
    framework: Framework,
    etcd: &str,
    service: &str,
    prefix: Option<&str>,
    more: impl IntoIterator<Item = String>,
) -> Result<Part> {
    let program = format!("{}-client", framework.program());
    let mut args = vec![program.clone(), format!("-service={service}"), format!("-etcd={etcd}")];
    args.extend(prefix.map(|prefix| format!("-prefix={prefix}")));
    args.extend(more);
    Part::start(&format!("{program}-{service}"), place, &namespace::binary("interop")?, &args, &[])
}

/// A real Kitex client that calls hundreds of times in a second, and counts its calls.
#[derive(Debug)]
pub struct Tally {
    part: Part,
}

/// Calls by the address that the client's load balancer chose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Tallied {
    pub calls: usize,
    pub failed: usize,
    pub to: BTreeMap<SocketAddr, usize>,
}

impl Tally {
    /// One that tells after each `every` calls whom they went to.
    pub fn start(
        place: impl Into<Place>,
        etcd: &str,
        service: &str,
        prefix: Option<&str>,
        every: usize,
    ) -> Result<Self> {
        // Without a pause one client would take a whole core, and make its calls by one list alone: it polls every 5 s.
        let more = [format!("-tally={every}"), "-interval=500us".to_owned()];
        Ok(Self { part: client(place, Framework::Kitex, etcd, service, prefix, more)? })
    }

    /// One whose calls begin so often in a second, whatever becomes of each.
    pub fn at_rate(place: impl Into<Place>, etcd: &str, service: &str, rate: usize) -> Result<Self> {
        let more = [format!("-tally={}", (rate / 10).max(1)), format!("-rate={rate}")];
        Ok(Self { part: client(place, Framework::Kitex, etcd, service, None, more)? })
    }

    /// A mark for [`Tally::calls_since`].
    pub fn mark(&self) -> usize {
        self.part.line_count()
    }

    /// The calls since the mark, at least so many.
    pub async fn calls_since(&self, mark: usize, calls: usize, within: Duration) -> Result<Tallied> {
        eventually("the client has made its calls", within, || async {
            self.part.check_running()?;
            let mut sum = Tallied::default();
            for text in self.part.lines_since(mark).iter().filter(|line| line.contains("\"tally\"")) {
                let tallied: Tallied = serde_json::from_str(text).with_context(|| format!("no tally: {text}"))?;
                (sum.calls, sum.failed) = (sum.calls + tallied.calls, sum.failed + tallied.failed);
                for (address, calls) in tallied.to {
                    *sum.to.entry(address).or_default() += calls;
                }
            }
            ensure!(sum.calls >= calls, "{} calls of {calls}", sum.calls);
            Ok(sum)
        })
        .await
    }
}

/// An instance as a framework's own resolver returns it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Resolved {
    /// The scheme of the endpoint, for Kratos.
    pub network: String,
    pub address: String,
    pub weight: i64,
    pub tags: BTreeMap<String, String>,
}

/// Asks the real resolver once, for these tags if the framework has tags. No instances is an empty list, although some
/// frameworks call it an error. The resolver of gRPC is asked through a client: these are the servers that answered it.
pub async fn resolve(
    framework: Framework,
    etcd: &str,
    service: &str,
    prefix: Option<&str>,
    tags: &[&str],
) -> Result<Vec<Resolved>> {
    #[derive(Deserialize)]
    struct Answer {
        instances: Vec<Resolved>,
    }
    let program = format!("{}-resolve", framework.program());
    let mut command = Command::new(namespace::binary("interop")?);
    command.arg(&program).arg(format!("-service={service}")).arg(format!("-etcd={etcd}"));
    command.args(prefix.map(|prefix| format!("-prefix={prefix}")));
    if !matches!(framework, Framework::GoZero | Framework::Grpc) {
        command.args(tags.iter().map(|tag| format!("-tag={tag}")));
    }
    let output = command.output().await?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    // Some frameworks log to standard output too.
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("\"resolved\"")).context("no answer")?;
    let answer: Answer = serde_json::from_str(line)?;
    Ok(answer.instances)
}
