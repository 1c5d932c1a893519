//! RegisteredServices that are accepted: instances that both sides have or one lacks, and writes that wait.
//!
//! Owns one function for each group of states. Refuses to know which commands ask about them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use tokio::net::TcpListener;
use twinspan_testbed::eventually;

use super::stage::{Stage, at};
use crate::harness::{SOON, record};

/// Records that are not imported although their tags match: the end of the key, the network, the address.
const SKIPPED: [(&str, &str, &str); 21] = [
    ("no-address", "tcp", ""),
    ("malformed", "tcp", "[10.77.240.94]:9000"),
    ("hostname", "tcp", "db.example:9000"),
    ("no-port", "tcp", "10.77.240.95"),
    ("port-zero", "tcp", "10.77.240.95:0"),
    ("odd", "tcp", "10.77.240.96:09000"),
    ("mapped", "tcp", "[::ffff:10.77.240.93]:9000"),
    ("zone", "tcp", "[fe80::1%eth0]:9000"),
    ("unspecified", "tcp", "0.0.0.0:9000"),
    ("loopback", "tcp", "127.0.0.1:9000"),
    ("link-local", "tcp", "169.254.1.1:9000"),
    ("multicast", "tcp", "224.0.0.1:9000"),
    ("broadcast", "tcp", "255.255.255.255:9000"),
    ("udp", "udp", "10.77.240.97:9000"),
    // The value has another address than the key.
    ("10.77.240.91:9000", "tcp", "10.77.240.92:9000"),
    // The address of a Service, of the Node, of no pod in its range, of a denied network, of a network that is not
    // allowed, and of a pod of another namespace.
    ("10.96.200.200:80", "tcp", "10.96.200.200:80"),
    ("10.77.243.1:9000", "tcp", "10.77.243.1:9000"),
    ("10.77.241.9:9000", "tcp", "10.77.241.9:9000"),
    ("10.77.242.9:9000", "tcp", "10.77.242.9:9000"),
    ("10.77.244.9:9000", "tcp", "10.77.244.9:9000"),
    ("10.77.240.99:80", "tcp", "10.77.240.99:80"),
];

/// One Service with most states. Returns the listener of a server that lost its registration.
pub async fn main_service(
    shop: &mut Stage<'_>,
    guest: &mut Stage<'_>,
    api_server: SocketAddr,
) -> Result<Vec<TcpListener>> {
    let ports = json!([{"name": "rpc", "port": 80}, {"name": "metrics", "port": 9090}]);
    let families = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"], "ports": ports});
    shop.headless("echo", families).await?;
    guest.pod("theirs", &[], &[at(99, 80).ip()], true).await?;

    // The pod's own server registered it, ready or not; an unreadable record has the key of another pod.
    let blue = json!({"lane": "blue"});
    for host in [4, 6] {
        let address = at(host, 80);
        shop.put("echo", &address.to_string(), &record(address).tags(blue.clone()).to_string()).await?;
    }
    shop.put("echo", &at(5, 80).to_string(), "{").await?;
    for (end, network, address) in SKIPPED {
        let record = json!({"network": network, "address": address, "weight": 10, "tags": blue}).to_string();
        shop.put("echo", end, &record).await?;
        shop.ask_key("echo", end);
        if address.parse::<SocketAddr>().is_ok() {
            shop.asked.push(address.to_owned());
        }
    }
    for (address, tags) in [
        (at(98, 9000), json!({"lane": "green"})),
        (at(13, 80), json!({"lane": "blue", "twinspan.dev/owner": "another-cluster/shop/echo"})),
        (at(14, 80), json!({"lane": "blue", "twinspan.dev/owner": "nonsense"})),
        (api_server, blue.clone()),
    ] {
        shop.put("echo", &address.to_string(), &record(address).tags(tags.clone()).to_string()).await?;
        shop.asked.push(address.to_string());
    }
    shop.put("echo", "nonsense", "{").await?;
    shop.ask_key("echo", "nonsense");

    let import = json!({"tagSelector": {"matchLabels": blue}, "keepLostSeconds": 36_000, "zoneTag": "zone"});
    let export =
        json!({"weight": 20, "tags": {"lane": "blue"}, "tagsFromPodLabels": [{"label": "canary", "tag": "canary"}]});
    shop.register("echo", json!({"service": {"ports": [{"name": "rpc"}]}, "import": import, "export": export})).await?;
    let both: [IpAddr; 2] = [at(1, 80).ip(), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 240, 1).into()];
    shop.pod("echo", &["canary"], &both, true).await?;
    shop.pod("echo", &[], &[at(2, 80).ip()], false).await?;
    shop.exported("echo", 3).await?;
    shop.sandbox.pods.terminate("echo-3").await?;
    shop.ready("echo", 4).await?;
    shop.ready("echo", 5).await?;
    shop.pod("echo", &[], &[at(6, 80).ip()], false).await?;
    shop.ask_key("echo", at(1, 80));
    shop.ask_key("echo", at(4, 80));
    for about in [at(1, 80), at(1, 9090), SocketAddr::new(both[1], 80), at(2, 80), at(6, 80)] {
        shop.asked.push(about.to_string());
    }
    shop.foreign("echo", at(11, 9000)).await?;
    shop.ask_key("echo", at(11, 9000));
    let lost = shop.loses_its_registration("echo", at(12, 9000), "Lost").await?;
    Ok(vec![lost])
}

/// Two RegisteredServices export under one name, and two import into one Service.
pub async fn shared(shop: &mut Stage<'_>) -> Result<()> {
    for name in ["shared-a", "shared-b"] {
        shop.headless(name, json!({"selector": {"app": "shared", name: "yes"}})).await?;
        shop.register(name, json!({"registryName": "shared"})).await?;
    }
    for (host, labels) in [(31, &["shared-a", "shared-b"][..]), (32, &["shared-a"]), (33, &["shared-b"])] {
        shop.pod("shared", labels, &[at(host, 80).ip()], true).await?;
        shop.asked.push(at(host, 80).to_string());
        shop.becomes(at(host, 80), "Exported").await?;
    }
    shop.headless("rivals", json!({"selector": null})).await?;
    for name in ["rival-a", "rival-b"] {
        shop.put(name, &at(41, 9000).to_string(), &record(at(41, 9000)).to_string()).await?;
        shop.register(name, json!({"service": {"name": "rivals"}})).await?;
    }
    shop.asked.push(at(41, 9000).to_string());
    shop.foreign("rival-b", at(42, 9000)).await?;
    shop.becomes(at(42, 9000), "Imported").await
}

/// One direction only, nothing written at all, a missing Service, and endpoints that no controller manages.
pub async fn one_way_and_observed(shop: &mut Stage<'_>) -> Result<()> {
    for (name, spec, pod, vm) in [
        ("import-only", json!({"direction": "Import"}), 51, 54),
        ("export-only", json!({"direction": "Export"}), 53, 52),
        ("observed", json!({"policy": "Observe"}), 61, 62),
    ] {
        shop.both(name, spec).await?;
        shop.ready(name, pod).await?;
        shop.foreign(name, at(vm, 9000)).await?;
    }
    let created =
        json!({"service": {"create": "Headless", "ports": [{"name": "rpc", "number": 80}]}, "policy": "Observe"});
    shop.register("to-be-created", created).await?;
    shop.foreign("to-be-created", at(68, 9000)).await?;

    shop.headless("leftover", json!({})).await?;
    shop.ready("leftover", 69).await?;
    let slices = ListParams::default().labels("kubernetes.io/service-name=leftover");
    eventually("the pod is in a slice", SOON, || async {
        let all = shop.sandbox.slices().list(&slices).await?.items;
        let ready = all.iter().flat_map(|slice| &slice.endpoints).filter_map(|e| e.conditions.as_ref()?.ready);
        ensure!(ready.into_iter().any(|ready| ready), "{all:?}");
        Ok(())
    })
    .await?;
    let nobody = Patch::Merge(json!({"spec": {"selector": null}}));
    let patched: Service = shop.sandbox.services().patch("leftover", &PatchParams::default(), &nobody).await?;
    ensure!(patched.spec.context("a spec")?.selector.is_none());
    shop.register("leftover", json!({})).await
}

/// A suspended RegisteredService with pending writes.
pub async fn suspended(shop: &mut Stage<'_>) -> Result<()> {
    for (name, host, change) in [
        ("retagged", 66, json!({"export": {"weight": 25}})),
        ("renamed", 65, json!({"registryName": "renamed-since"})),
        ("waiting", 67, json!({})),
        ("withdrawn", 63, json!({"direction": "Import"})),
    ] {
        shop.both(name, json!({})).await?;
        shop.exported(name, host).await?;
        if name == "withdrawn" {
            shop.exported(name, 64).await?;
        }
        let mut change = change;
        crate::harness::merge(&mut change, json!({"suspend": true}));
        shop.sandbox.patch(name, change).await?;
        shop.sandbox.seen(name).await?;
    }
    shop.sandbox.pods.remove("waiting-67").await?;
    shop.sandbox.pods.remove("withdrawn-63").await?;
    shop.becomes(at(67, 80), "Waiting").await?;
    shop.becomes(at(63, 80), "ToBeWithdrawn").await?;

    let port = |number: i32| json!({"create": "Headless", "ports": [{"name": "rpc", "number": number}]});
    shop.register("amended", json!({"service": port(80)})).await?;
    shop.foreign("amended", at(70, 9000)).await?;
    shop.becomes(at(70, 9000), "Imported").await?;
    shop.sandbox.patch("amended", json!({"service": port(81), "suspend": true})).await?;
    shop.sandbox.seen("amended").await
}

/// Deletions that the guard holds, and a registration that is put back. Returns the listener of that server.
pub async fn held_and_healed(shop: &mut Stage<'_>) -> Result<TcpListener> {
    shop.both("held", json!({"deletionGuard": {"holdSeconds": 36_000}})).await?;
    let mut keys = Vec::new();
    for host in [43, 44] {
        let address = at(host, 9000);
        shop.foreign("held", address).await?;
        shop.becomes(address, "Imported").await?;
        keys.push(shop.sandbox.key("held", address));
    }
    shop.registry.delete_at_once(&keys).await?;
    shop.sandbox.condition("held", "DeletionsHeld", "True", "Held").await?;
    shop.both("healed", json!({"import": {"onExpiry": "Heal", "keepLostSeconds": 36_000}})).await?;
    shop.loses_its_registration("healed", at(45, 9000), "Healed").await
}

/// Another format: a record stands for two ports.
pub async fn kratos(kratos: &mut Stage<'_>) -> Result<()> {
    let ports = json!([{"name": "rpc", "port": 9000}, {"name": "web", "port": 8000}]);
    kratos.headless("echo", json!({"ports": ports})).await?;
    let ports = json!([{"name": "rpc"}, {"name": "web", "scheme": "http"}]);
    kratos.register("echo", json!({"service": {"ports": ports}})).await?;
    kratos.pod("echo", &[], &[at(71, 9000).ip()], true).await?;
    let record = |name: &str, endpoints: &[&str]| {
        json!({"id": "vm", "name": name, "version": "v1", "metadata": {"lane": "blue"}, "endpoints": endpoints})
            .to_string()
    };
    for (end, name, endpoints) in [
        ("both", "echo", &["http://10.77.240.72:8100", "grpc://10.77.240.72:9100"][..]),
        ("grpc-only", "echo", &["grpc://10.77.240.73:9100"]),
        ("half", "echo", &["grpc://db.example:9100", "http://10.77.240.76:8100"]),
        ("other-name", "other", &["grpc://10.77.240.74:9100"]),
        ("no-scheme", "echo", &["ws://10.77.240.75:9100"]),
        ("nothing", "echo", &[]),
    ] {
        kratos.put("echo", end, &record(name, endpoints)).await?;
        kratos.ask_key("echo", end);
        let addresses = endpoints.iter().filter_map(|endpoint| endpoint.split_once("://").map(|(_, address)| address));
        kratos.asked.extend(addresses.filter(|a| a.parse::<SocketAddr>().is_ok()).map(ToOwned::to_owned));
    }
    kratos.put("echo", "null", "null").await?;
    kratos.ask_key("echo", "null");
    kratos.asked.extend([at(71, 9000), at(71, 8000)].map(|address| address.to_string()));
    kratos.becomes(at(71, 9000), "Exported").await?;
    kratos.becomes(at(72, 8100), "Imported").await
}
