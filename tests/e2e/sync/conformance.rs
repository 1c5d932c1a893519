//! The shapes of Kubernetes' own conformance tests, with imported instances instead of pods, and the view of
//! kube-proxy.
//!
//! Sources: `test/e2e/network/endpointslice.go` ("should support a Service with multiple ports specified in multiple
//! EndpointSlices", "… with multiple endpoint IPs specified in multiple EndpointSlices") and `test/e2e/network/dns.go`
//! ("should provide DNS for services") of k8s.io/kubernetes v1.37.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kube::api::ListParams;
use serde_json::json;
use twinspan_testbed::oracle::kube_proxy;
use twinspan_testbed::{Server, eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, stories};

stories![
    multiple_ports_in_multiple_slices,
    multiple_ips_in_multiple_slices,
    dns_for_headless_and_cluster_ip,
    kube_proxy_sees_what_dns_answers,
];

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((next_v4(), port))
}

/// The endpoints that kube-proxy uses for each Service port.
async fn proxied(sandbox: &Sandbox<'_>, service: &str) -> Result<BTreeMap<String, BTreeSet<SocketAddr>>> {
    let labels = format!("kubernetes.io/service-name={service}");
    kube_proxy(&sandbox.slices().list(&ListParams::default().labels(&labels)).await?.items).await
}

async fn proxy_becomes(sandbox: &Sandbox<'_>, service: &str, expected: &[(&str, &[SocketAddr])]) -> Result<()> {
    let expected: BTreeMap<String, BTreeSet<SocketAddr>> =
        expected.iter().map(|(port, all)| ((*port).to_owned(), all.iter().copied().collect())).collect();
    eventually("kube-proxy's endpoints", SOON, || async {
        let found = proxied(sandbox, service).await?;
        ensure!(found == expected, "kube-proxy has {found:?}, want {expected:?}");
        Ok(())
    })
    .await
}

/// One Service with two ports; each port is served by another service of the registry.
async fn multiple_ports_in_multiple_slices(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "confports").await?;
    let ports = json!([{"name": "portname1", "port": 80}, {"name": "portname2", "port": 81}]);
    sandbox.service("both", json!({"clusterIP": "None", "ports": ports})).await?;
    sandbox.service("virtual", json!({"ports": ports})).await?;
    let mut servers: BTreeMap<&str, Vec<Server>> = BTreeMap::new();
    for (port, name) in [("portname1", "first"), ("portname2", "second")] {
        for service in ["both", "virtual"] {
            let spec = json!({"registryName": name, "service": {"name": service, "ports": [{"name": port}]}});
            sandbox.register(&format!("{service}-{name}"), spec).await?;
        }
        for number in [3000, 3001] {
            servers.entry(port).or_default().push(sandbox.vm(name, address(number), None).await?);
        }
    }
    let of = |port: &str| -> Vec<SocketAddr> { servers[port].iter().map(Server::address).collect() };
    let (first, second) = (of("portname1"), of("portname2"));
    for service in ["both", "virtual"] {
        proxy_becomes(&sandbox, service, &[("portname1", &first), ("portname2", &second)]).await?;
    }
    for (port, expected) in [("portname1", &first), ("portname2", &second)] {
        let expected: BTreeSet<SocketAddr> = expected.iter().copied().collect();
        let name = format!("_{port}._tcp.{}", sandbox.dns_name("both"));
        eventually("the SRV answers of the port", SOON, || async {
            let found = bed.dns.srv_addresses(&name).await?;
            ensure!(found == expected, "{name}: {found:?}, want {expected:?}");
            Ok(())
        })
        .await?;
    }
    sandbox.nothing_foreign_was_touched().await
}

/// Instances of one service that listen on different ports are in different slices, under one port of the Service.
async fn multiple_ips_in_multiple_slices(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "confips").await?;
    sandbox.service("echo", json!({"ports": [{"name": "portname1", "port": 80}]})).await?;
    sandbox.service("plain", json!({"clusterIP": "None", "ports": [{"port": 80}]})).await?;
    sandbox.register("echo", json!({})).await?;
    sandbox.register("plain", json!({"registryName": "echo"})).await?;
    let mut servers = Vec::new();
    for port in [3000, 3001, 3001, 3002] {
        servers.push(sandbox.vm("echo", address(port), None).await?);
    }
    let all: Vec<SocketAddr> = servers.iter().map(Server::address).collect();
    proxy_becomes(&sandbox, "echo", &[("portname1", &all)]).await?;
    // A Service port without a name matches the endpoints without one.
    proxy_becomes(&sandbox, "plain", &[("", &all)]).await?;
    servers.remove(0).part().stop().await?;
    proxy_becomes(&sandbox, "echo", &[("portname1", &all[1..])]).await?;
    proxy_becomes(&sandbox, "plain", &[("", &all[1..])]).await?;
    eventually("DNS answers with the same", SOON, || async {
        let a = bed.dns.addresses(&sandbox.dns_name("plain")).await?;
        ensure!(a == all[1..].iter().map(SocketAddr::ip).collect(), "A answers {a:?}");
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn dns_for_headless_and_cluster_ip(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "confdns").await?;
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    sandbox.service("headless", json!({"clusterIP": "None", "ports": ports})).await?;
    sandbox.service("regular", json!({"ports": ports})).await?;
    for service in ["headless", "regular"] {
        sandbox.register(service, json!({"registryName": "echo"})).await?;
    }
    let none = bed.dns.addresses(&sandbox.dns_name("headless")).await?;
    ensure!(none.is_empty(), "a headless Service without an instance has no name: {none:?}");
    let server = sandbox.vm("echo", address(8080), None).await?;
    let instance = server.address();
    let regular: IpAddr =
        sandbox.services().get("regular").await?.spec.and_then(|s| s.cluster_ip).context("a cluster IP")?.parse()?;
    let names = |service: &str| (sandbox.dns_name(service), format!("_http._tcp.{}", sandbox.dns_name(service)));
    for (service, ip, port) in [("headless", instance.ip(), instance.port()), ("regular", regular, 80)] {
        let (name, srv) = names(service);
        eventually("A and SRV", SOON, || async {
            let a = bed.dns.addresses(&name).await?;
            ensure!(a == BTreeSet::from([ip]), "{name}: {a:?}, want {ip}");
            let targets = bed.dns.srv_addresses(&srv).await?;
            ensure!(targets == BTreeSet::from([SocketAddr::new(ip, port)]), "{srv}: {targets:?}, want {ip}:{port}");
            Ok(())
        })
        .await?;
    }
    // The reverse lookup: an instance's name below the headless Service, the Service's name for its cluster IP.
    let dashed = format!("{}.{}", instance.ip().to_string().replace('.', "-"), sandbox.dns_name("headless"));
    for (ip, name) in [(instance.ip(), dashed.clone()), (regular, sandbox.dns_name("regular"))] {
        eventually("PTR", SOON, || async {
            let found = bed.dns.names_of(ip).await?;
            ensure!(found.contains(&name), "{ip}: {found:?}, want {name}");
            Ok(())
        })
        .await?;
    }
    let a = bed.dns.addresses(&dashed).await?;
    ensure!(a == BTreeSet::from([instance.ip()]), "{dashed}: {a:?}");
    server.part().stop().await?;
    sandbox.dns_becomes("headless", &[]).await?;
    let a = bed.dns.addresses(&sandbox.dns_name("regular")).await?;
    ensure!(a == BTreeSet::from([regular]), "a cluster IP is answered with or without instances: {a:?}");
    sandbox.nothing_foreign_was_touched().await
}

/// Pods, imported instances and hand-written slices together, ready and not ready.
async fn kube_proxy_sees_what_dns_answers(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "proxy").await?;
    sandbox.headless_on("echo", 8888).await?;
    sandbox.register("echo", json!({})).await?;
    let labels = BTreeMap::from([("app".to_owned(), "echo".to_owned())]);
    let (a, b, c) = (address(8888), address(8888), address(8888));
    for (name, pod, ready) in [("a", a, true), ("b", b, true), ("c", c, false)] {
        sandbox.pods.run(name, &labels, &[pod.ip()]).await?;
        sandbox.pods.set_ready(name, ready).await?;
    }
    let mut expected = BTreeSet::from([a, b]);
    for port in [9000, 9000, 9001] {
        let instance = address(port);
        sandbox.put("echo", instance).await?;
        expected.insert(instance);
    }
    let (by_hand, not_ready) = (address(7000), address(7000));
    let slice = serde_json::from_value(json!({
        "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "echo",
            "endpointslice.kubernetes.io/managed-by": "by-hand.example"}},
        "addressType": "IPv4", "ports": [{"name": "rpc", "port": 7000}],
        "endpoints": [{"addresses": [by_hand.ip()]}, {"addresses": [not_ready.ip()], "conditions": {"ready": false}}],
    }))?;
    sandbox.slices().create(&Default::default(), &slice).await?;
    expected.insert(by_hand);
    let agreed = |expected: BTreeSet<SocketAddr>| {
        let sandbox = &sandbox;
        async move {
            eventually("kube-proxy and DNS agree", SOON, || async {
                let proxy = proxied(sandbox, "echo").await?.remove("rpc").unwrap_or_default();
                let dns = bed.dns.srv_addresses(&sandbox.srv_name("echo")).await?;
                ensure!(proxy == expected && dns == expected, "kube-proxy {proxy:?}\nDNS {dns:?}\nwant {expected:?}");
                Ok(())
            })
            .await
        }
    };
    agreed(expected.clone()).await?;
    sandbox.pods.set_ready("a", false).await?;
    sandbox.pods.set_ready("c", true).await?;
    expected.remove(&a);
    expected.insert(c);
    for instance in expected.clone().iter().filter(|instance| instance.port() == 9001) {
        bed.registry.delete(&sandbox.key("echo", instance)).await?;
        expected.remove(instance);
    }
    agreed(expected).await?;
    sandbox.nothing_foreign_was_touched().await
}
