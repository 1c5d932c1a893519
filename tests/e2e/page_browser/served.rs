//! The page's own server with lines of services that there are not.
//!
//! Owns the lines: each state, texts of strangers, and as many as are asked for. Refuses to know a browser.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use twinspan::env::Env;
use twinspan::leadership::Leadership;
use twinspan::page::detail::{Condition, Detail, Instance};
use twinspan::page::door::Hosts;
use twinspan::page::rows::{Hold, Ready, Records, Registry, Service, State};
use twinspan::page::{Board, Page, bounds, pages};
use twinspan::telemetry::server::serve_within;
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;

/// A text that would run if it were anything but text, with characters that would turn the line around or break it.
pub const HOSTILE: &str = "<img src=x onerror=document.title='owned'>\u{202e}gnp\n</script>";
/// The same as it is shown.
pub const SHOWN: &str = "<img src=x onerror=document.title='owned'>\\u{202e}gnp\\n</script>";

/// The number of further instances of the service `large`.
pub const LARGE: usize = 150;

pub const STATES: [State; 8] = [
    State::Lost,
    State::Held,
    State::Refused,
    State::Differs,
    State::Unknown,
    State::Pending,
    State::Observing,
    State::InSync,
];

/// A server that can be stopped and started again at the same address.
pub struct Served {
    pub board: Board,
    pub leadership: Leadership,
    /// Whether every instance that is explained is on both sides.
    pub alike: Arc<AtomicBool>,
    address: SocketAddr,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some((stop, _)) = &self.running {
            stop.cancel();
        }
    }
}

impl Served {
    /// Serves a page without lines, of a replica that stands by until its leadership is acquired.
    pub async fn start() -> Result<Self> {
        let board = Board::on();
        let mut served = Self {
            board,
            leadership: Leadership::none(),
            alike: Arc::default(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            running: None,
        };
        served.resume().await?;
        Ok(served)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves again, as another process would.
    pub async fn resume(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.address = listener.local_addr()?;
        let env = Env::real();
        let (board, leadership) = (self.board.clone(), self.leadership.clone());
        let name = "twinspan-7d9c5b6f4-x2kqp";
        let alike = self.alike.clone();
        let explain = Arc::new(move |key: &ServiceKey, _leads| Some(explain(key, alike.load(Ordering::SeqCst))));
        let page = Page::new(board, leadership, name, Hosts::default(), explain, env.clone());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve_within(bounds(), listener, pages(page), env, stop.clone()));
        self.running = Some((stop, serving));
        Ok(())
    }

    /// Ends the server, and serves again as a process does that has just started: its board is empty.
    pub async fn restart(&mut self) -> Result<()> {
        self.pause().await?;
        self.board = Board::on();
        self.resume().await
    }

    /// Ends the server and every connection.
    pub async fn pause(&mut self) -> Result<()> {
        if let Some((stop, serving)) = self.running.take() {
            stop.cancel();
            serving.await?;
        }
        Ok(())
    }

    /// Puts the line of a service, with a change that took 14 ms.
    pub fn put(&self, key: &ServiceKey, service: Service) {
        self.put_measured(key, service, Some(Duration::from_millis(14)));
    }

    /// Puts the line of a service, with the time that a change took, if there was one.
    pub fn put_measured(&self, key: &ServiceKey, service: Service, propagation: Option<Duration>) {
        let hold = (service.state == State::Held).then(|| hold(key, service.held));
        self.board.put(key, service, hold, propagation, Env::real().now());
    }

    /// Registries with and without trouble, and one service for each state.
    pub fn put_examples(&self) {
        self.board.put_registry(registry("main", true, &["2a44ff20-8f0e", "beijing-b"]));
        self.board.put_registry(registry("legacy", false, &[]));
        let mut held = registry("edge", true, &[]);
        held.hold = Some(hold(&ServiceKey::new("registry", "edge"), 1));
        self.board.put_registry(held);
        for (n, state) in STATES.into_iter().enumerate() {
            self.put(&ServiceKey::new("shop", format!("{state:?}").to_lowercase()), service(n, state));
        }
        let hostile =
            Service { registry_name: HOSTILE.to_owned(), message: HOSTILE.repeat(20), ..service(3, State::Differs) };
        self.put(&ServiceKey::new("shop", "hostile"), hostile);
    }

    /// So many services in fifty namespaces, all in sync.
    pub fn put_many(&self, services: usize) {
        self.board.put_registry(registry("main", true, &[]));
        for n in 0..services {
            self.put(&many(n), service(n, State::InSync));
        }
    }
}

/// The name of one of many.
pub fn many(n: usize) -> ServiceKey {
    ServiceKey::new(format!("team-{:02}", n % 50), format!("service-{n:05}"))
}

pub fn service(n: usize, state: State) -> Service {
    let n = i64::try_from(n).unwrap_or_default() % 40;
    let other = i64::from(state != State::InSync);
    Service {
        registry: "main".to_owned(),
        registry_name: format!("douyinec.service.{n}"),
        service: "echo".to_owned(),
        direction: "Both",
        policy: "Sync",
        discovered: n % 2 == 1,
        state,
        reason: "Synced".to_owned(),
        message: if state == State::InSync { String::new() } else { format!("{state:?}, in words") },
        cluster: n / 2 + other,
        registry_instances: n - n / 2,
        exported: n / 2,
        imported: n - n / 2,
        lost: i64::from(state == State::Lost),
        healed: 0,
        skipped: i64::from(state == State::Differs),
        held: 3 * i64::from(state == State::Held),
        digest: 0,
    }
}

pub fn registry(name: &str, well: bool, clusters: &[&str]) -> Registry {
    let text = |well_so: &str, else_so: &str| if well { well_so } else { else_so }.to_owned();
    Registry {
        name: name.to_owned(),
        format: "Kitex",
        prefix: "kitex/registry-etcd".to_owned(),
        session: text("Synced", "Unreachable"),
        ready: Ready {
            status: text("True", "False"),
            reason: text("Connected", "Unreachable"),
            message: text("", "no endpoint of the registry answers"),
            code: None,
        },
        records: Records { own: 412, foreign: 230, healed: 0, undecodable: 2 },
        last_verified: well.then(|| Env::real().now()),
        hold: None,
        clusters: clusters.iter().map(|&cluster| cluster.to_owned()).collect(),
        notes: Vec::new(),
        synced: well,
        cluster_id: "2a44ff20-8f0e".to_owned(),
    }
}

fn hold(key: &ServiceKey, held: i64) -> Hold {
    let since = Env::real().now();
    let hash = "8c1d2f0a9b3e".to_owned();
    let command = format!("twinspan approve {} -n {} --only {hash}", key.name, key.namespace);
    Hold { since, until: since + Duration::from_secs(300), hash, held, command }
}

/// Instances of every kind, for each service; or those alone that are alike on both sides.
fn explain(key: &ServiceKey, alike: bool) -> Detail {
    let since: Timestamp = Env::real().now();
    let instance = |address: &str, cluster, registry, state: &str, why: &str| Instance {
        instance: address.to_owned(),
        cluster,
        registry,
        state: state.to_owned(),
        why: why.to_owned(),
        until: (state == "Lost").then_some(since),
        records: if registry { vec![format!("kitex/registry-etcd/{key}/{address}")] } else { Vec::new() },
    };
    let mut instances = vec![
        instance("10.77.0.1:8888", true, true, "Exported", "as kitex/registry-etcd/echo/10.77.0.1:8888"),
        instance("10.77.0.2:8888", true, false, "NotReady", "its pod is not ready; see its readiness probe"),
        instance("10.77.0.3:8888", true, false, "Lost", "it lost its registration and accepts connections"),
        instance("127.0.0.1:80", false, true, "LoopbackAddress", "a loopback address leads every client to itself"),
    ];
    if key.name == "hostile" {
        instances.push(instance(&HOSTILE.repeat(20), false, true, "Undecodable", HOSTILE));
    }
    if key.name == "large" {
        instances
            .extend((0..LARGE).map(|n| instance(&format!("10.78.0.{n}:8888"), true, true, "Exported", "a record")));
    }
    instances.retain(|instance| !alike || instance.cluster == instance.registry);
    let condition = |kind: &str, message: &str| Condition {
        kind: kind.to_owned(),
        status: "True".to_owned(),
        reason: "Synced".to_owned(),
        message: message.to_owned(),
        code: None,
        since,
    };
    let instances_total = instances.len() + 7;
    let conditions = vec![condition("Ready", "a message"), condition("Accepted", ""), condition("Exported", "")];
    Detail { conditions, instances, instances_total }
}
