//! The story: a service that runs half in Kubernetes and half on virtual machines, and is one service to both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use twinspan::api::{RegisteredService, ServiceRegistry};
use twinspan::tools::parity::{Request, Resolver, SeenBy, Table, gather};
use twinspan::tools::print::{Format, print};
use twinspan_core::model::{InstanceAddr, ServiceKey};
use twinspan_testbed::{Caller, Framework, OPERATOR_NAMESPACE, Pods, Server, ServerOptions, eventually, next_v4};

use crate::ground::Ground;
use crate::scene::{fact, scene, step};

const NAMESPACE: &str = "shop";
const SERVICE: &str = "user";
/// Its name in the registry, with a dot, which the name of a Service cannot contain.
const REGISTRY_NAME: &str = "douyinec.user";
/// The lease of the servers on VMs, in seconds; Kitex' own default is 60, which would make a long story.
const TTL: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(60);

struct Stage {
    ground: Ground,
    resolver: Resolver,
    pods: Vec<Server>,
    client: Caller,
}

/// Tells the story; returns true if the sides agreed in the end.
pub async fn tell(real: bool, keep: bool) -> Result<bool> {
    let started = Instant::now();
    println!("Twinspan demo: the service {REGISTRY_NAME}, half in Kubernetes, half on virtual machines\n");
    let dir = std::env::temp_dir().join(format!("twinspan-demo-{}", twinspan_testbed::namespace::outer_pid()?));
    let ground = step(&format!("starting {}", Ground::servers(real)), Ground::start(&dir, real)).await?;
    if !real {
        fact(
            "API server and etcd are those of the simulation, which tests compare with the real ones; Twinspan, CoreDNS and the\n\
             Kitex programs are as users run them. make demo REAL=1 builds and runs kube-apiserver and etcd (once 10 minutes).",
        );
    }
    let access = ground.write_access()?;
    let binary = std::env::current_exe()?.with_file_name("twinspan").display().to_string();
    let first = ground.start_twinspan(&binary)?;
    step("starting Twinspan", first.ready()).await?;

    let stage = three_pods(ground).await?;
    let vm = a_server_on_a_vm(&stage).await?;
    killed(&stage, vm).await?;
    let mut vms = vec![back_elsewhere(&stage).await?];
    vms.extend(two_more(&stage).await?);
    let second = restart(&stage, &first, &binary).await?;

    println!("\nEvery instance, and who sees it:\n");
    let table = table(&stage).await?;
    print(&table, Format::Table)?;
    let agrees = table.agrees() && table.rows.len() == 6;
    println!(
        "\n{} in {:.0} s",
        if agrees { "All sides agree" } else { "The sides DIFFER" },
        started.elapsed().as_secs_f64()
    );
    if keep {
        look_around(&stage, second.part().log()).await?;
    }
    drop(vms);
    if let Some(access) = access {
        std::fs::remove_file(access)?;
    }
    std::fs::remove_dir_all(dir)?;
    Ok(agrees)
}

fn vm_options() -> ServerOptions {
    ServerOptions { ttl: Some(TTL), ..ServerOptions::default() }
}

async fn three_pods(ground: Ground) -> Result<Stage> {
    scene(1, "A Service with three pods is exported; a Kitex client outside, which knows only etcd, calls all three");
    let client = ground.client();
    ground.create_namespace(NAMESPACE).await?;
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": SERVICE},
        "spec": {"clusterIP": "None", "selector": {"app": SERVICE}, "ports": [{"name": "rpc", "port": 8888}]},
    }))?;
    Api::namespaced(client.clone(), NAMESPACE).create(&PostParams::default(), &service).await?;
    let registry: ServiceRegistry = serde_json::from_value(json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": "main"},
        "spec": {"etcd": {"endpoints": [ground.registry()]}, "format": "Kitex",
            "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}]},
    }))?;
    Api::all(client.clone()).create(&PostParams::default(), &registry).await?;
    let registered: RegisteredService = serde_json::from_value(json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "metadata": {"name": SERVICE},
        "spec": {"registryRef": {"name": "main"}, "registryName": REGISTRY_NAME},
    }))?;
    Api::namespaced(client.clone(), NAMESPACE).create(&PostParams::default(), &registered).await?;

    let pods = Pods::in_namespace(&client, NAMESPACE).await?;
    let labels = BTreeMap::from([("app".to_owned(), SERVICE.to_owned())]);
    let mut servers = Vec::new();
    for name in ["user-a", "user-b", "user-c"] {
        let address = SocketAddr::from((next_v4(), 8888));
        let options = ServerOptions { silent: true, ..ServerOptions::default() };
        servers.push(Server::start(ground.dir(), ground.registry(), REGISTRY_NAME, address, &options).await?);
        pods.run(name, &labels, &[address.ip()]).await?;
        pods.set_ready(name, true).await?;
    }
    let expected = addresses(&servers);
    let resolver = Resolver::new(Some(ground.dns().address()))?;
    let kitex = Caller::start(ground.dir(), Framework::Kitex, ground.registry(), REGISTRY_NAME, None)?;
    let stage = Stage { ground, resolver, pods: servers, client: kitex };
    step("waiting for three records", async {
        eventually("three records", PATIENCE, || async {
            let found = stage.records().await?;
            ensure!(found.len() == 3, "{found:?}");
            Ok(())
        })
        .await
    })
    .await?;
    fact(stage.records().await?.keys().cloned().collect::<Vec<_>>().join("\n"));
    step("calling (a Kitex client reads the registry every 5 s)", stage.client.answered_by(&expected, PATIENCE))
        .await?;
    stage.tally()?;
    Ok(stage)
}

async fn a_server_on_a_vm(stage: &Stage) -> Result<Server> {
    scene(
        2,
        "A Kitex server \"on a VM\" registers itself in etcd; in-cluster DNS answers it, an EndpointSlice lists it",
    );
    let vm = stage.vm().await?;
    let mut expected = addresses(&stage.pods);
    expected.insert(vm.address());
    step("waiting for DNS", stage.dns_becomes(&expected)).await?;
    let name = stage.fqdn();
    let ips = stage.ground.dns().addresses(&name).await?;
    fact(format!("A    {name}  {}", ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")));
    for srv in stage.ground.dns().srv(&stage.srv()).await? {
        fact(format!("SRV  {}  {} {}", stage.srv(), srv.port, srv.target));
    }
    fact(stage.slices().await?);
    Ok(vm)
}

async fn killed(stage: &Stage, vm: Server) -> Result<()> {
    scene(3, "It is killed with SIGKILL and leaves DNS when its lease ends");
    vm.part().kill().await?;
    step(&format!("killed {}; its lease of {TTL} s ends", vm.address()), stage.dns_becomes(&addresses(&stage.pods)))
        .await?;
    Ok(())
}

async fn back_elsewhere(stage: &Stage) -> Result<Server> {
    scene(4, "It comes back at another address");
    let vm = stage.vm().await?;
    let mut expected = addresses(&stage.pods);
    expected.insert(vm.address());
    step(&format!("started at {}; waiting for DNS", vm.address()), stage.dns_becomes(&expected)).await?;
    Ok(vm)
}

async fn two_more(stage: &Stage) -> Result<Vec<Server>> {
    scene(5, "Two more instances start; both sides list the same set");
    let more = vec![stage.vm().await?, stage.vm().await?];
    step("waiting until cluster, registry, DNS and the Kitex client agree on six", async {
        eventually("the sides agree", PATIENCE, || async {
            let table = table(stage).await?;
            ensure!(table.agrees() && table.rows.len() == 6, "\n{table}");
            Ok(())
        })
        .await
    })
    .await?;
    stage.tally()?;
    Ok(more)
}

async fn restart(
    stage: &Stage,
    first: &twinspan_testbed::Twinspan,
    binary: &str,
) -> Result<twinspan_testbed::Twinspan> {
    scene(6, "Twinspan restarts; no record and no slice changes");
    let before = stage.versions().await?;
    step("stopping Twinspan", first.part().stop()).await?;
    let second = stage.ground.start_twinspan(binary)?;
    step("starting it again", second.ready()).await?;
    step("watching every revision for 10 s", async {
        let watched = Instant::now();
        while watched.elapsed() < Duration::from_secs(10) {
            let now = stage.versions().await?;
            ensure!(now == before, "something was written:\n{before:?}\n{now:?}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    })
    .await?;
    let (records, slices) = (before.0.len(), before.1.len());
    let plural = if slices == 1 { "" } else { "s" };
    fact(format!("{records} records and {slices} slice{plural}, all at the revisions that they had"));
    Ok(second)
}

/// The table of `twinspan parity`, with the calls of the real client.
async fn table(stage: &Stage) -> Result<Table> {
    let mark = stage.client.mark();
    let request = Request {
        client: stage.ground.client(),
        key: ServiceKey::new(NAMESPACE, SERVICE),
        operator_namespace: OPERATOR_NAMESPACE,
        resolver: &stage.resolver,
        cluster_domain: "cluster.local",
    };
    let seen_by = gather(&request).await?.seen_by;
    // Long enough for a client that picks at random to reach every instance.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let called = stage.client.answered_since(mark)?;
    let kitex = called.iter().filter_map(|a| InstanceAddr::new(a.ip(), a.port()).ok()).collect();
    Ok(Table::new(&SeenBy { client: kitex, ..seen_by }, "Kitex"))
}

async fn look_around(stage: &Stage, log: &Path) -> Result<()> {
    let dns = stage.ground.dns().address().ip();
    println!("\nIt goes on until Ctrl-C. In another terminal:");
    for command in [
        "dev/testbed/run exec kubectl get svcreg,rsvc,endpointslices -A".to_owned(),
        format!("dev/testbed/run exec kubectl describe rsvc {SERVICE} -n {NAMESPACE}"),
        "dev/testbed/run exec etcdctl get --prefix kitex/registry-etcd/".to_owned(),
        format!("dev/testbed/run exec dig @{dns} +noall +answer {}", stage.fqdn()),
        format!("dev/testbed/run exec dig @{dns} +noall +answer SRV {}", stage.srv()),
        format!("dev/testbed/run exec target/debug/twinspan parity {SERVICE} -n {NAMESPACE} --dns {dns}"),
        format!("tail -f {}", log.display()),
    ] {
        println!("  {command}");
    }
    tokio::signal::ctrl_c().await?;
    Ok(())
}

fn addresses(servers: &[Server]) -> BTreeSet<SocketAddr> {
    servers.iter().map(Server::address).collect()
}

type Versions = (BTreeMap<String, i64>, BTreeMap<String, String>);

impl Stage {
    async fn vm(&self) -> Result<Server> {
        let address = SocketAddr::from((next_v4(), 9000));
        Server::start(self.ground.dir(), self.ground.registry(), REGISTRY_NAME, address, &vm_options()).await
    }

    fn fqdn(&self) -> String {
        format!("{SERVICE}.{NAMESPACE}.svc.cluster.local.")
    }

    fn srv(&self) -> String {
        format!("_rpc._tcp.{}", self.fqdn())
    }

    /// Revisions by key.
    async fn records(&self) -> Result<BTreeMap<String, i64>> {
        self.ground.records(&format!("kitex/registry-etcd/{REGISTRY_NAME}/")).await
    }

    async fn our_slices(&self) -> Result<Vec<EndpointSlice>> {
        let api: Api<EndpointSlice> = Api::namespaced(self.ground.client(), NAMESPACE);
        let labels = "endpointslice.kubernetes.io/managed-by=twinspan.dev";
        Ok(api.list(&ListParams::default().labels(labels)).await?.items)
    }

    async fn slices(&self) -> Result<String> {
        let mut lines = Vec::new();
        for slice in self.our_slices().await? {
            let name = slice.metadata.name.clone().context("a slice without a name")?;
            let ports: Vec<_> = slice.ports.iter().flatten().filter_map(|p| p.port).map(|p| p.to_string()).collect();
            let ips: Vec<_> = slice.endpoints.iter().flat_map(|e| e.addresses.clone()).collect();
            lines.push(format!(
                "EndpointSlice {name}  {}  port {}  {}",
                slice.address_type,
                ports.join(","),
                ips.join(" ")
            ));
        }
        Ok(lines.join("\n"))
    }

    /// `mod_revision` of every record and `resourceVersion` of every slice of ours.
    async fn versions(&self) -> Result<Versions> {
        let slices = self.our_slices().await?.into_iter();
        let slices =
            slices.map(|s| (s.metadata.name.unwrap_or_default(), s.metadata.resource_version.unwrap_or_default()));
        Ok((self.records().await?, slices.collect()))
    }

    async fn dns_becomes(&self, expected: &BTreeSet<SocketAddr>) -> Result<()> {
        eventually("the SRV answers", PATIENCE, || async {
            let found = self.ground.dns().srv_addresses(&self.srv()).await?;
            ensure!(&found == expected, "DNS answers {found:?}, want {expected:?}");
            Ok(())
        })
        .await
    }

    /// The number of recent calls that each instance answered.
    fn tally(&self) -> Result<()> {
        let calls = self.client.calls_since(self.client.mark().saturating_sub(60))?;
        let mut tally: BTreeMap<String, usize> = BTreeMap::new();
        for call in &calls {
            let who = match call {
                twinspan_testbed::Call::From(address) => address.to_string(),
                twinspan_testbed::Call::Failed(why) => format!("failed: {why}"),
            };
            *tally.entry(who).or_default() += 1;
        }
        let shown: Vec<String> = tally.iter().map(|(who, times)| format!("{who} × {times}")).collect();
        fact(format!("the last {} calls: {}", calls.len(), shown.join(", ")));
        Ok(())
    }
}
