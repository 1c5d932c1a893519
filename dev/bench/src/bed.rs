//! The bed of a run: one control plane, one registry, one Twinspan and one ideal bridge, side by side.
//!
//! Owns the parts, the places of both bridges, and the small services that every scenario changes. Refuses to measure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::DeleteOptions;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use tokio::time::Instant;
use twinspan::api::RegisteredService;
use twinspan_testbed::{Bed as Testbed, Kubeconfig, Part, Twinspan, TwinspanOptions, eventually};

use crate::feed::Feed;
use crate::ideal::{self, Order};
use crate::process::Process;
use crate::records::{self, BRIDGE, Place, SOURCE, Slice};
use crate::{cluster, registry};

/// The group of the small services, which most scenarios change.
pub const BASE: &str = "base";
/// Its services of each direction.
pub const SERVICES: usize = 20;
/// Instances of a service, where the scenario does not say another number.
pub const INSTANCES: usize = 10;
/// How long a bridge may take until everything is on the other side.
pub const SYNCED: Duration = Duration::from_secs(300);
pub const REGISTRY: &str = "bench";
const TWINSPAN: &str = "twinspan";
/// The name of the ideal bridge, and the word that makes this program one.
pub const IDEAL: &str = "ideal";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Import,
    Export,
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::Import, Self::Export];

    pub fn label(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Export => "export",
        }
    }
}

/// The size of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub services: usize,
    /// Of each service.
    pub instances: usize,
}

impl Shape {
    /// Services of the usual size.
    pub const fn of(services: usize) -> Self {
        Self { services, instances: INSTANCES }
    }

    /// Instances of all services.
    pub const fn all(self) -> usize {
        self.services * self.instances
    }

    /// The part of the name of a scenario that tells the size.
    pub fn label(self) -> String {
        match self.instances {
            INSTANCES => self.services.to_string(),
            instances => format!("{}x{instances}", self.services),
        }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × {}", self.services, self.instances)
    }
}

/// A bridge that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bridge {
    Ideal,
    Twinspan,
}

impl Bridge {
    pub const BOTH: [Self; 2] = [Self::Ideal, Self::Twinspan];

    pub fn label(self) -> &'static str {
        match self {
            Self::Ideal => IDEAL,
            Self::Twinspan => TWINSPAN,
        }
    }

    /// Its place for a group of services. Those of Twinspan have one prefix, for they have one ServiceRegistry.
    pub fn place(self, group: &str) -> Place {
        match self {
            Self::Ideal => Place::new(&format!("ideal-{group}"), &format!("bench/ideal-{group}")),
            Self::Twinspan => Place::new(&format!("twinspan-{group}"), "bench/twinspan"),
        }
    }
}

/// The name of the n-th service of a group.
pub fn service(group: &str, direction: Direction, n: usize) -> String {
    format!("{}{n:05}", beginning(group, direction))
}

/// The beginning of the names of a group.
pub fn beginning(group: &str, direction: Direction) -> String {
    format!("{group}-{}-", direction.label())
}

/// A process of the ideal bridge.
#[derive(Debug)]
pub struct Ideal {
    pub part: Part,
}

impl Ideal {
    /// Waits until both sides of its place are equal.
    pub async fn ready(&self) -> Result<()> {
        eventually("the ideal bridge is ready", SYNCED, || async {
            self.part.check_running()?;
            ensure!(self.part.lines().iter().any(|line| line == ideal::READY), "it writes");
            Ok(())
        })
        .await
    }
}

pub struct Bed {
    pub testbed: Testbed,
    /// Clients of an administrator, and with the rights of the operator.
    pub admin: Client,
    pub operator: Client,
    pub etcd: etcd_client::Client,
    binary: String,
    /// The bridges' way to the API server, where it is not the usual one.
    way: Option<Kubeconfig>,
    /// Whether replicas that start serve the status page.
    page: bool,
    twinspan: Option<Twinspan>,
    standby: Option<Twinspan>,
    ideals: BTreeMap<String, Ideal>,
    namespaces: BTreeSet<String>,
    /// The number of addresses that instances have had.
    next: usize,
}

impl Bed {
    pub async fn start(dir: &Path, binary: &str) -> Result<Self> {
        let testbed = Testbed::start(dir).await?;
        let operator = testbed.operator().client().await?;
        let etcd = registry::connect(testbed.registry.endpoint()).await?;
        let admin = testbed.client();
        cluster::create_registry(&admin, REGISTRY, testbed.registry.endpoint(), "bench/twinspan").await?;
        let (ideals, namespaces, binary) = (BTreeMap::new(), BTreeSet::new(), binary.to_owned());
        let (way, page, twinspan, standby, next) = (None, true, None, None, 0);
        Ok(Self { testbed, admin, operator, etcd, binary, way, page, twinspan, standby, ideals, namespaces, next })
    }

    /// Addresses that no instance has had.
    pub fn fresh(&mut self, count: usize) -> Vec<Ipv4Addr> {
        let addresses = (self.next..self.next + count).map(records::address).collect();
        self.next += count;
        addresses
    }

    /// Creates a namespace unless it is there.
    pub async fn create_namespace(&mut self, name: &str) -> Result<()> {
        if self.namespaces.insert(name.to_owned()) {
            self.testbed.create_namespace(name, &BTreeMap::new()).await?;
        }
        Ok(())
    }

    /// Starts a replica. The log is that of the chart, not that of a failed story.
    fn replica(&self) -> Result<Twinspan> {
        let env = vec![("RUST_LOG".to_owned(), "info,kube_client=off".to_owned())];
        let kubeconfig = self.way.clone();
        let args = if self.page { Vec::new() } else { vec!["--page-addr=off".to_owned()] };
        let options = TwinspanOptions { args, env, kubeconfig, ..TwinspanOptions::default() };
        self.testbed.start_twinspan(&self.binary, &options)
    }

    /// Starts Twinspan without waiting for it.
    pub fn start_twinspan(&mut self) -> Result<&Twinspan> {
        let started = self.replica()?;
        Ok(self.twinspan.insert(started))
    }

    /// Starts a second replica beside the one that leads, without waiting for it.
    pub fn start_standby(&mut self) -> Result<&Twinspan> {
        let started = self.replica()?;
        Ok(self.standby.insert(started))
    }

    /// Kills the replica that leads; the standby takes its place here, and in time its Lease.
    pub async fn kill_leader(&mut self) -> Result<()> {
        let standby = self.standby.take().context("no standby")?;
        match self.twinspan.replace(standby) {
            Some(leader) => leader.part().kill().await,
            None => Ok(()),
        }
    }

    pub async fn stop_twinspan(&mut self) -> Result<()> {
        match self.twinspan.take() {
            Some(twinspan) => twinspan.part().stop().await,
            None => Ok(()),
        }
    }

    pub fn twinspan(&self) -> Result<&Twinspan> {
        self.twinspan.as_ref().context("Twinspan does not run")
    }

    /// Starts Twinspan if it does not run, and waits until it leads.
    pub async fn twinspan_leads(&mut self) -> Result<()> {
        if self.twinspan.is_none() {
            self.start_twinspan()?;
        }
        let twinspan = self.twinspan()?;
        twinspan.ready().await?;
        eventually("Twinspan leads", Duration::from_secs(60), || async {
            ensure!(twinspan.metric("twinspan_leader").await? == Some(1.0), "it does not lead");
            Ok(())
        })
        .await
    }

    /// Starts an ideal bridge at its place for a group, without waiting for it.
    pub fn start_ideal(&mut self, group: &str) -> Result<&Ideal> {
        let order = Order {
            kubeconfig: self.way.as_ref().unwrap_or(self.testbed.operator()).path.clone(),
            endpoint: self.testbed.registry.endpoint().to_owned(),
            place: Bridge::Ideal.place(group),
        };
        let mut arguments = vec![IDEAL.to_owned()];
        arguments.extend(order.arguments());
        let program = std::env::current_exe()?.display().to_string();
        let name = format!("ideal-{group}-{}", self.next);
        let part = Part::start(&name, self.testbed.dir(), &program, &arguments, &[])?;
        self.ideals.insert(group.to_owned(), Ideal { part });
        self.ideals.get(group).context("no ideal bridge")
    }

    /// Starts both bridges anew, which reach the API server by this way from then on.
    pub async fn reach_by(&mut self, way: Option<Kubeconfig>, group: &str) -> Result<()> {
        self.stop_ideal(group).await?;
        self.stop_twinspan().await?;
        self.way = way;
        self.start_ideal(group)?.ready().await?;
        self.twinspan_leads().await
    }

    pub async fn stop_ideal(&mut self, group: &str) -> Result<()> {
        match self.ideals.remove(group) {
            Some(ideal) => ideal.part.kill().await,
            None => Ok(()),
        }
    }

    /// Starts Twinspan anew, with or without the status page, and waits until it leads.
    pub async fn restart_with_page(&mut self, page: bool) -> Result<()> {
        self.stop_twinspan().await?;
        self.page = page;
        self.twinspan_leads().await
    }

    /// The process of a bridge.
    pub fn process(&self, bridge: Bridge, group: &str) -> Result<Process> {
        match bridge {
            Bridge::Twinspan => Process::of(self.twinspan()?.part()),
            Bridge::Ideal => Process::of(&self.ideals.get(group).context("no ideal bridge")?.part),
        }
    }

    /// Makes services of a group with instances on the side from which they come: records of servers, or slices by
    /// hand, 100 endpoints to a slice.
    pub async fn seed(&mut self, bridge: Bridge, group: &str, direction: Direction, shape: Shape) -> Result<()> {
        let place = bridge.place(group);
        self.create_namespace(&place.namespace).await?;
        let names: Vec<String> = (0..shape.services).map(|n| service(group, direction, n)).collect();
        let (mut records, mut slices): (Vec<(String, String)>, Vec<EndpointSlice>) = Default::default();
        match direction {
            Direction::Import => {
                for name in &names {
                    let addresses = self.fresh(shape.instances);
                    records.extend(addresses.iter().map(|a| (place.key(name, *a), records::value(*a, None))));
                }
            }
            Direction::Export => slices = self.sources(&place, &names, shape.instances),
        }
        if bridge == Bridge::Twinspan {
            cluster::create_services(&self.admin, &place, REGISTRY, &names).await?;
        }
        registry::put_all(&self.etcd, &records).await?;
        cluster::create_slices(&self.admin, &place, &slices).await
    }

    /// Slices by hand for so many instances of each service.
    pub fn sources(&mut self, place: &Place, names: &[String], instances: usize) -> Vec<EndpointSlice> {
        let mut slices = Vec::new();
        for name in names {
            let addresses = self.fresh(instances);
            let groups = addresses.chunks(100).enumerate();
            slices.extend(groups.map(|(n, group)| source(place, name, n, group)));
        }
        slices
    }

    /// Removes everything of a group at the place of a bridge, which is stopped first.
    pub async fn clear(&mut self, bridge: Bridge, group: &str) -> Result<()> {
        match bridge {
            Bridge::Ideal => self.stop_ideal(group).await?,
            Bridge::Twinspan => self.stop_twinspan().await?,
        }
        let place = bridge.place(group);
        let namespace = place.namespace.as_str();
        cluster::delete_all::<RegisteredService>(&self.admin, namespace).await?;
        cluster::delete_all::<Service>(&self.admin, namespace).await?;
        cluster::delete_all::<EndpointSlice>(&self.admin, namespace).await?;
        for direction in Direction::BOTH {
            self.delete_records(bridge, group, direction).await?;
        }
        Ok(())
    }

    /// Deletes the records of a group at the place of a bridge, whoever wrote them.
    pub async fn delete_records(&mut self, bridge: Bridge, group: &str, direction: Direction) -> Result<()> {
        let range = format!("{}/{}", bridge.place(group).prefix, beginning(group, direction));
        self.etcd.delete(range, Some(DeleteOptions::new().with_prefix())).await?;
        Ok(())
    }

    /// The feed of the side to which a bridge writes.
    pub async fn written(&self, bridge: Bridge, group: &str, direction: Direction) -> Result<Feed> {
        let place = bridge.place(group);
        match direction {
            Direction::Import => Feed::slices(&self.admin, &place.namespace, BRIDGE).await,
            Direction::Export => Feed::records(&self.etcd, &place, &beginning(group, direction)).await,
        }
    }

    /// Makes both directions of a group at both places, and waits until both bridges have written everything.
    pub async fn prepare(&mut self, group: &str, shape: Shape) -> Result<()> {
        for bridge in Bridge::BOTH {
            for direction in Direction::BOTH {
                self.seed(bridge, group, direction, shape).await?;
            }
        }
        self.start_ideal(group)?.ready().await?;
        self.twinspan_leads().await?;
        for direction in Direction::BOTH {
            let mut feed = self.written(Bridge::Twinspan, group, direction).await?;
            feed.until_count(shape.all(), Instant::now() + SYNCED).await?;
        }
        Ok(())
    }
}

/// The n-th slice of a service that is to be exported.
fn source(place: &Place, service: &str, n: usize, addresses: &[Ipv4Addr]) -> EndpointSlice {
    let name = format!("{service}.source-{n}");
    let slice = Slice { namespace: &place.namespace, name: &name, service, manager: SOURCE, version: None };
    slice.with(addresses.iter().copied())
}
