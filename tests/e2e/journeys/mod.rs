//! The journeys of `docs/migration.md`: services move while a real client calls all the time, and no call fails but to
//! a machine that was shut down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use kube::api::PostParams;
use libtest_mimic::Trial;
use serde_json::json;
use twinspan_testbed::{Call, Caller, Etcd, Framework, Server, ServerOptions, eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, stories};
use crate::sync::formats::sandbox_of;

stories![
    long: from_an_old_etcd_to_a_new_one;
    more: each_framework
];

const PORT: u16 = 8888;

fn each_framework(suite: &Arc<Suite>) -> Vec<Trial> {
    let each = Framework::ALL.map(|framework| {
        let name = format!("journeys::{}_from_machines_to_pods", framework.program());
        suite.long_story(&name, move |suite| from_machines_to_pods(suite, framework))
    });
    each.into()
}

/// A client that calls all the time, and the machines that were shut down meanwhile.
struct Traveller {
    client: Caller,
    mark: usize,
    gone: BTreeSet<SocketAddr>,
}

impl Traveller {
    async fn starts(sandbox: &Sandbox<'_>, framework: Framework, etcd: &Etcd, first: &[SocketAddr]) -> Result<Self> {
        // Both versions of Kratos read the same records.
        let framework = if framework == Framework::Kratos { Framework::Kratos3 } else { framework };
        let client = Caller::start(sandbox.bed.dir(), framework, etcd.endpoint(), "echo", None)?;
        client.answered_by(&first.iter().copied().collect(), SOON).await?;
        let mark = client.mark();
        Ok(Self { client, mark, gone: BTreeSet::new() })
    }

    async fn calls(&self, servers: &[SocketAddr]) -> Result<()> {
        self.client.answered_by(&servers.iter().copied().collect(), SOON * 2).await
    }

    /// Shuts a machine down, as its owner does.
    async fn outlives(&mut self, machine: &Server) -> Result<()> {
        self.gone.insert(machine.address());
        machine.part().stop().await
    }

    fn arrives(&self) -> Result<()> {
        let calls = self.client.calls_since(self.mark)?;
        let excused = |error: &String| self.gone.iter().any(|machine| error.contains(&machine.to_string()));
        let failed: Vec<&String> =
            calls.iter().filter_map(|call| if let Call::Failed(error) = call { Some(error) } else { None }).collect();
        let unexcused: Vec<_> = failed.iter().filter(|error| !excused(error)).collect();
        ensure!(calls.len() > 100, "{} calls", calls.len());
        ensure!(unexcused.is_empty(), "{} of {} calls failed: {unexcused:?}", unexcused.len(), calls.len());
        Ok(())
    }
}

async fn server(sandbox: &Sandbox<'_>, etcd: &Etcd, options: ServerOptions, port: u16) -> Result<Server> {
    let address = SocketAddr::from((next_v4(), port));
    Server::start(sandbox.bed.dir(), etcd.endpoint(), "echo", address, &options).await
}

async fn machine(sandbox: &Sandbox<'_>, etcd: &Etcd, framework: Framework) -> Result<Server> {
    let weight = (framework == Framework::Kitex).then_some(100);
    server(sandbox, etcd, ServerOptions { framework, weight, ..ServerOptions::default() }, 9000).await
}

async fn pod(sandbox: &Sandbox<'_>, etcd: &Etcd, framework: Framework, name: &str) -> Result<Server> {
    let options = ServerOptions { framework, silent: true, ..ServerOptions::default() };
    let server = server(sandbox, etcd, options, PORT).await?;
    let labels = BTreeMap::from([("app".to_owned(), "echo".to_owned())]);
    sandbox.pods.run(name, &labels, &[server.address().ip()]).await?;
    sandbox.pods.set_ready(name, true).await?;
    Ok(server)
}

fn addresses(servers: &[Server]) -> Vec<SocketAddr> {
    servers.iter().map(Server::address).collect()
}

async fn from_machines_to_pods(suite: Arc<Suite>, framework: Framework) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let name = format!("journey{}", framework.program());
    let etcd = bed.start_registry(&format!("registry-{name}")).await?;
    let sandbox = sandbox_of(bed, &name, &etcd, framework, json!({})).await?;
    let mut machines = Vec::new();
    for _ in 0..3 {
        machines.push(machine(&sandbox, &etcd, framework).await?);
    }
    let mut traveller = Traveller::starts(&sandbox, framework, &etcd, &addresses(&machines)).await?;

    sandbox.headless_on("echo", PORT).await?;
    sandbox.register("echo", json!({"policy": "Observe"})).await?;
    sandbox.seen("echo").await?;
    eventually("it counts what it would import", SOON, || async {
        let counts = sandbox.counts("echo").await?;
        ensure!(counts.registry == 3, "{counts:?}");
        Ok(())
    })
    .await?;
    ensure!(sandbox.imported("echo").await?.is_empty(), "nothing is written");
    sandbox.patch("echo", json!({"policy": "Sync"})).await?;
    sandbox.dns_becomes("echo", &addresses(&machines)).await?;

    let goes_by_weights = matches!(framework.format(), "Kitex" | "Hertz" | "Kratos");
    if goes_by_weights {
        sandbox.patch("echo", json!({"export": {"share": 10}})).await?;
    }
    let pods = [pod(&sandbox, &etcd, framework, "a").await?, pod(&sandbox, &etcd, framework, "b").await?];
    let pods = addresses(&pods).into_iter().zip(pods).collect::<BTreeMap<_, _>>();
    let all = |machines: &[Server]| [addresses(machines), pods.keys().copied().collect()].concat();
    sandbox.dns_becomes("echo", &all(&machines)).await?;
    traveller.calls(&all(&machines)).await?;
    if goes_by_weights {
        sandbox.patch("echo", json!({"export": {"share": 50}})).await?;
        traveller.calls(&all(&machines)).await?;
    }
    while let Some(leaves) = machines.pop() {
        traveller.outlives(&leaves).await?;
        sandbox.dns_becomes("echo", &all(&machines)).await?;
        traveller.calls(&all(&machines)).await?;
    }
    sandbox.patch("echo", json!({"export": {"share": null}})).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;
    traveller.calls(&all(&machines)).await?;
    traveller.arrives()?;
    sandbox.nothing_foreign_was_touched().await
}

async fn from_an_old_etcd_to_a_new_one(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let old = bed.start_registry("registry-journey-old").await?;
    let new = bed.start_registry("registry-journey-new").await?;
    let sandbox = sandbox_of(bed, "journeyregistries", &old, Framework::Kitex, json!({})).await?;
    sandbox.headless_on("echo", PORT).await?;
    sandbox.register("echo", json!({})).await?;
    let mut machines =
        vec![machine(&sandbox, &old, Framework::Kitex).await?, machine(&sandbox, &old, Framework::Kitex).await?];
    let pods = [pod(&sandbox, &old, Framework::Kitex, "a").await?, pod(&sandbox, &old, Framework::Kitex, "b").await?];
    let pods = addresses(&pods);
    let both = |machines: &[Server]| [&addresses(machines)[..], &pods].concat();
    let mut of_old = Traveller::starts(&sandbox, Framework::Kitex, &old, &both(&machines)).await?;
    sandbox.dns_becomes("echo", &both(&machines)).await?;

    // Pods are in both registries.
    let mut object = sandbox.registries().get(&sandbox.name).await?;
    object.metadata = serde_json::from_value(json!({"name": format!("{}-new", sandbox.name)}))?;
    object.status = None;
    object.spec.etcd.endpoints = vec![new.endpoint().to_owned()];
    let registry = sandbox.registries().create(&PostParams::default(), &object).await?;
    let into_new =
        json!({"registryRef": {"name": registry.metadata.name}, "registryName": "echo", "service": {"name": "echo"}});
    sandbox.register("echo-new", into_new).await?;
    let mut of_new = Traveller::starts(&sandbox, Framework::Kitex, &new, &pods).await?;
    of_old.calls(&both(&machines)).await?;

    // Machines move one by one, and programs in the cluster see all of them all the time.
    let mut moved = Vec::new();
    while let Some(leaves) = machines.pop() {
        moved.push(machine(&sandbox, &new, Framework::Kitex).await?);
        sandbox.dns_becomes("echo", &[both(&machines), addresses(&moved), vec![leaves.address()]].concat()).await?;
        of_old.outlives(&leaves).await?;
        sandbox.dns_becomes("echo", &[both(&machines), addresses(&moved)].concat()).await?;
        of_old.calls(&both(&machines)).await?;
        of_new.calls(&[&addresses(&moved)[..], &pods].concat()).await?;
    }
    of_old.arrives()?;

    // Nobody reads the old one any more.
    of_old.client.part().stop().await?;
    sandbox.unregister("echo").await?;
    eventually("the old registry is empty", SOON, || async {
        let left = old.dump("kitex/registry-etcd/echo/").await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    sandbox.dns_becomes("echo", &[&addresses(&moved)[..], &pods].concat()).await?;
    of_new.calls(&[&addresses(&moved)[..], &pods].concat()).await?;
    for machine in &moved {
        of_new.outlives(machine).await?;
    }
    of_new.calls(&pods).await?;
    of_new.arrives()?;
    sandbox.nothing_foreign_was_touched().await
}
