//! Every format, both ways, with the frameworks' own programs: their records are imported, their own resolvers resolve
//! Twinspan's records, and real calls are answered.
//!
//! Kitex v0.16.3 with registry-etcd v0.2.6; Hertz v0.10.4 with hertz-contrib/registry/etcd at 8a220332; Kratos v2.9.2
//! and v3.0.0, both with contrib/registry/etcd/v2 at b9fab9a5; go-zero v1.10.3; gRPC with client/v3/naming of
//! etcd v3.5.21; GoFrame v2.10.0 with contrib/registry/etcd/v2 v2.9.0.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use twinspan_testbed::{Caller, Etcd, Framework, Server, ServerOptions, eventually, next_v4, repository, resolve};

use crate::harness::{SOON, Sandbox, Suite, record, stories};

/// The lines that the module file of the programs must contain, so that the versions above are the ones that ran.
const VERSIONS: [&str; 11] = [
    "github.com/cloudwego/kitex v0.16.3",
    "github.com/kitex-contrib/registry-etcd v0.2.6",
    "github.com/cloudwego/hertz v0.10.4",
    "github.com/hertz-contrib/registry/etcd v0.0.0-20250319055937-8a220332e808",
    "github.com/go-kratos/kratos/contrib/registry/etcd/v2 v2.0.0-20251205160234-b9fab9a5a5ab",
    "github.com/go-kratos/kratos/v2 v2.9.2",
    "github.com/go-kratos/kratos/v3 v3.0.0",
    "github.com/zeromicro/go-zero v1.10.3",
    "go.etcd.io/etcd/client/v3 v3.5.21",
    "github.com/gogf/gf/v2 v2.10.0",
    "github.com/gogf/gf/contrib/registry/etcd/v2 v2.9.0",
];

stories![
    kratos_has_several_ports,
    a_kratos_id_that_is_an_address,
    kitex_without_a_prefix,
    keys_that_begin_with_a_slash,
    hertz_names_are_lower_case,
    two_registries_in_different_formats;
    more: both_ways_for_each_format,
];

fn both_ways_for_each_format(suite: &Arc<Suite>) -> Vec<Trial> {
    let each = Framework::ALL.map(|framework| {
        let name = format!("formats::{}_both_ways", framework.program());
        suite.story(&name, move |suite| both_ways(suite, framework))
    });
    each.into()
}

/// A sandbox whose ServiceRegistry has the framework's format and default prefix.
pub async fn sandbox_of<'a>(
    bed: &'a twinspan_testbed::Bed,
    name: &str,
    etcd: &'a Etcd,
    framework: Framework,
    extra: Value,
) -> Result<Sandbox<'a>> {
    let sandbox = Sandbox::without_registry_object(bed, name, etcd).await?;
    let mut spec = json!({"format": framework.format(), "prefix": null});
    crate::harness::merge(&mut spec, extra);
    sandbox.create_registry(spec).await?;
    Ok(sandbox)
}

/// A pod with a real server of the framework that does not register itself.
async fn pod(sandbox: &Sandbox<'_>, framework: Framework, service: &str, name: &str, port: u16) -> Result<Server> {
    let address = SocketAddr::from((next_v4(), port));
    let options = ServerOptions { framework, silent: true, ..ServerOptions::default() };
    let server = Server::start(sandbox.bed.dir(), sandbox.registry.endpoint(), service, address, &options).await?;
    let labels = BTreeMap::from([("app".to_owned(), service.to_owned())]);
    sandbox.pods.run(name, &labels, &[address.ip()]).await?;
    sandbox.pods.set_ready(name, true).await?;
    Ok(server)
}

async fn vm(sandbox: &Sandbox<'_>, framework: Framework, service: &str) -> Result<Server> {
    let address = SocketAddr::from((next_v4(), 9000));
    let options = ServerOptions { framework, ttl: Some(5), ..ServerOptions::default() };
    Server::start(sandbox.bed.dir(), sandbox.registry.endpoint(), service, address, &options).await
}

async fn resolves_to(
    sandbox: &Sandbox<'_>,
    framework: Framework,
    service: &str,
    expected: &[SocketAddr],
) -> Result<BTreeMap<String, (i64, BTreeMap<String, String>)>> {
    let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
    eventually("the framework's own resolver returns all of them", SOON, || async {
        let found = resolve(framework, sandbox.registry.endpoint(), service, None, &["lane"]).await?;
        let found: BTreeMap<_, _> = found.into_iter().map(|i| (i.address, (i.weight, i.tags))).collect();
        let addresses: BTreeSet<String> = found.keys().cloned().collect();
        ensure!(addresses == expected, "resolved {addresses:?}, want {expected:?}");
        Ok(found)
    })
    .await
}

async fn both_ways(suite: Arc<Suite>, framework: Framework) -> Result<()> {
    let modules = std::fs::read_to_string(repository().join("dev/parts/interop/go.mod"))?;
    for version in VERSIONS {
        ensure!(modules.contains(version), "the programs are not of {version}");
    }
    let bed = &suite.shared().await?.bed;
    let etcd = bed.start_registry(&format!("registry-{}", framework.program())).await?;
    let sandbox = sandbox_of(bed, framework.program(), &etcd, framework, json!({})).await?;
    sandbox.headless_on("echo", 8888).await?;
    let carries_tags = !matches!(framework, Framework::GoZero | Framework::Grpc);
    let export = if carries_tags { json!({"weight": 25, "tags": {"lane": "blue"}}) } else { json!({}) };
    sandbox.register("echo", json!({"export": export})).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;

    // Cluster → registry, as the framework's own resolver sees it.
    let a = pod(&sandbox, framework, "echo", "a", 8888).await?;
    let b = pod(&sandbox, framework, "echo", "b", 8888).await?;
    let found = resolves_to(&sandbox, framework, "echo", &[a.address(), b.address()]).await?;
    if carries_tags {
        for (address, (weight, tags)) in &found {
            ensure!(*weight == 25 && tags["lane"] == "blue", "{address}: {weight} {tags:?}");
        }
    }
    // Registry → cluster, as DNS sees it; then all instances together, as the framework sees them.
    let leaves = vm(&sandbox, framework, "echo").await?;
    let dies = vm(&sandbox, framework, "echo").await?;
    sandbox.imports_become("echo", &[leaves.address(), dies.address()]).await?;
    let all = [a.address(), b.address(), leaves.address(), dies.address()];
    sandbox.dns_becomes("echo", &all).await?;
    resolves_to(&sandbox, framework, "echo", &all).await?;
    if matches!(framework, Framework::Kitex | Framework::Hertz | Framework::Kratos3 | Framework::GoFrame) {
        let caller = Caller::start(bed.dir(), framework, sandbox.registry.endpoint(), "echo", None)?;
        caller.answered_by(&all.into(), SOON).await?;
    }
    // One server deregisters, one is killed, and one pod becomes not ready.
    leaves.part().stop().await?;
    sandbox.dns_becomes("echo", &[a.address(), b.address(), dies.address()]).await?;
    dies.part().kill().await?;
    sandbox.pods.set_ready("b", false).await?;
    eventually("the killed one leaves DNS once its lease has ended", SOON * 2, || async {
        let found = bed.dns.srv_addresses(&sandbox.srv_name("echo")).await?;
        ensure!(found == BTreeSet::from([a.address()]), "{found:?}");
        Ok(())
    })
    .await?;
    resolves_to(&sandbox, framework, "echo", &[a.address()]).await?;
    sandbox.unregister("echo").await?;
    eventually("nothing of ours is left", SOON, || async {
        let left: Vec<String> = etcd.dump("").await?.into_keys().filter(|key| key.contains("echo")).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}

/// gRPC and HTTP of one Kratos service are two ports of the Service, and one record.
async fn kratos_has_several_ports(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let etcd = bed.start_registry("registry-kratos-ports").await?;
    let sandbox = sandbox_of(bed, "kratosports", &etcd, Framework::Kratos, json!({})).await?;
    let ports = json!([{"name": "rpc", "port": 9000}, {"name": "web", "port": 8000}]);
    sandbox.service("echo", json!({"clusterIP": "None", "selector": {"app": "echo"}, "ports": ports})).await?;
    let chosen = json!([{"name": "rpc", "scheme": "grpc"}, {"name": "web", "scheme": "http"}]);
    sandbox.register("echo", json!({"service": {"ports": chosen}})).await?;
    let ip = next_v4();
    sandbox.pods.run("pod", &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[ip.into()]).await?;
    sandbox.pods.set_ready("pod", true).await?;
    let (rpc, web) = (SocketAddr::from((next_v4(), 9100)), SocketAddr::from((next_v4(), 8100)));
    let options = ServerOptions {
        framework: Framework::Kratos,
        http: Some(web),
        tags: vec![("zone".to_owned(), "eu-1".to_owned())],
        ..ServerOptions::default()
    };
    let server = Server::start(bed.dir(), sandbox.registry.endpoint(), "echo", rpc, &options).await?;
    let by_port = |port: &'static str, expected: BTreeSet<SocketAddr>| {
        let name = format!("_{port}._tcp.{}", sandbox.dns_name("echo"));
        async move {
            eventually("the SRV answers of the port", SOON, || async {
                let found = bed.dns.srv_addresses(&name).await?;
                ensure!(found == expected, "{name}: {found:?}, want {expected:?}");
                Ok(())
            })
            .await
        }
    };
    by_port("rpc", [SocketAddr::from((ip, 9000)), rpc].into()).await?;
    by_port("web", [SocketAddr::from((ip, 8000)), web].into()).await?;
    eventually("one record has both addresses of the pod", SOON, || async {
        let found = resolve(Framework::Kratos, sandbox.registry.endpoint(), "echo", None, &[]).await?;
        let found: BTreeSet<(String, String)> = found.into_iter().map(|i| (i.network, i.address)).collect();
        let expected = [
            ("grpc".to_owned(), format!("{ip}:9000")),
            ("http".to_owned(), format!("{ip}:8000")),
            ("grpc".to_owned(), rpc.to_string()),
            ("http".to_owned(), web.to_string()),
        ];
        ensure!(found == expected.into(), "{found:?}");
        let keys: Vec<String> = etcd.dump("/microservices/echo/").await?.into_keys().collect();
        ensure!(keys.iter().filter(|key| key.contains("twinspan~")).count() == 1, "{keys:?}");
        Ok(())
    })
    .await?;
    // Twinspan must not write a value on which Kratos' readers fail. A foreign value of that kind costs its neighbours
    // nothing.
    etcd.put("/microservices/echo/broken", "null").await?;
    eventually("counted", SOON, || async {
        let status = sandbox.registered().get("echo").await?.status.unwrap_or_default();
        ensure!(status.differences.iter().any(|s| s.reason == "Undecodable"), "{status:?}");
        Ok(())
    })
    .await?;
    etcd.delete("/microservices/echo/broken").await?;
    server.part().stop().await?;
    by_port("rpc", [SocketAddr::from((ip, 9000))].into()).await?;
    by_port("web", [SocketAddr::from((ip, 8000))].into()).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// Programs set the ID of an instance to the address of its HTTP server; Kratos' own reader dials the endpoints.
async fn a_kratos_id_that_is_an_address(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let etcd = bed.start_registry("registry-kratos-ids").await?;
    let sandbox = sandbox_of(bed, "kratosids", &etcd, Framework::Kratos, json!({})).await?;
    sandbox.headless_on("echo", 8888).await?;
    sandbox.register("echo", json!({"direction": "Import"})).await?;
    let (named, bound, foreign) = (next_v4(), next_v4(), next_v4());
    let put = async |id: String, ip: std::net::Ipv4Addr| {
        let endpoints = [format!("http://{ip}:8000"), format!("grpc://{ip}:9000")];
        let value = json!({"id": id, "name": "echo", "version": "", "metadata": null, "endpoints": endpoints});
        etcd.put_leased(&format!("/microservices/echo/{id}"), &value.to_string(), 600).await
    };
    put(format!("{named}:8000"), named).await?;
    put("0.0.0.0:8000".to_owned(), bound).await?;
    put(format!("{}:8000", next_v4()), foreign).await?;
    let found = resolve(Framework::Kratos, etcd.endpoint(), "echo", None, &[]).await?;
    ensure!(found.iter().any(|instance| instance.address == format!("{named}:9000")), "{found:?}");
    let grpc = |ip| SocketAddr::from((ip, 9000));
    sandbox.imports_become("echo", &[grpc(named), grpc(bound)]).await?;
    // An ID of another host speaks for an address that is not its own.
    eventually("it is counted", SOON, || async {
        let status = sandbox.registered().get("echo").await?.status.unwrap_or_default();
        let skipped: Vec<_> = status.differences.iter().map(|s| (s.instance.clone(), s.reason.as_str())).collect();
        ensure!(skipped.contains(&(grpc(foreign).to_string(), "KeyValueMismatch")), "{skipped:?}");
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}

/// registry-etcd's deprecated constructors leave the prefix empty: services are at the top level, beside everything
/// else in the etcd.
async fn kitex_without_a_prefix(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let etcd = bed.start_registry("registry-kitex-no-prefix").await?;
    etcd.put("/unrelated", "x").await?;
    etcd.put("/config/app/10.0.0.1:80", "not a record").await?;
    let sandbox = sandbox_of(bed, "noprefix", &etcd, Framework::Kitex, json!({"prefix": ""})).await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    let instance = SocketAddr::from((next_v4(), 9000));
    etcd.put_leased(&format!("/echo/{instance}"), &record(instance).to_string(), 600).await?;
    sandbox.imports_become("echo", &[instance]).await?;
    eventually("the pod is exported beside it", SOON, || async {
        let keys: Vec<String> = etcd.dump("/echo/").await?.into_keys().collect();
        ensure!(keys.len() == 2 && keys.contains(&format!("/echo/{}", pod.address())), "{keys:?}");
        Ok(())
    })
    .await?;
    // Another service is another range of the same stream.
    sandbox.register("late", json!({"service": {"name": "echo"}, "direction": "Import"})).await?;
    let second = SocketAddr::from((next_v4(), 9000));
    etcd.put_leased(&format!("/late/{second}"), &record(second).to_string(), 600).await?;
    sandbox.imports_become("echo", &[instance, second]).await?;
    eventually("the status tells the prefix in force, and counts only what is asked about", SOON, || async {
        let status = sandbox.registries().get(&sandbox.name).await?.status.context("a status")?;
        ensure!(status.prefix.as_deref() == Some(""), "prefix {:?}", status.prefix);
        let records = status.records.context("counts")?;
        ensure!((records.own, records.foreign, records.undecodable) == (1, 2, 0), "{records:?}");
        Ok(())
    })
    .await?;
    sandbox.unregister("late").await?;
    sandbox.imports_become("echo", &[instance]).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// Hand-written registrars put a slash before the name; `target` of gRPC's own library then begins with one.
async fn keys_that_begin_with_a_slash(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let etcd = bed.start_registry("registry-leading-slash").await?;
    let with_slash = json!({"prefix": "", "leadingSlash": true});
    let sandbox = sandbox_of(bed, "leadingslash", &etcd, Framework::Grpc, with_slash).await?;
    sandbox.headless_on("greeter", 50051).await?;
    sandbox.register("greeter", json!({})).await?;
    let vm = SocketAddr::from((next_v4(), 50051));
    let value = json!({"Op": 0, "Addr": vm.to_string(), "Metadata": null}).to_string();
    etcd.put_leased(&format!("/greeter/{vm}"), &value, 600).await?;
    // The same name without the slash is another place.
    let other = SocketAddr::from((next_v4(), 50051));
    etcd.put_leased(&format!("greeter/{other}"), &value.replace(&vm.to_string(), &other.to_string()), 600).await?;
    sandbox.imports_become("greeter", &[vm]).await?;
    let pod = pod(&sandbox, Framework::Grpc, "greeter", "pod", 50051).await?;
    eventually("the pod is exported beside it", SOON, || async {
        let keys: Vec<String> = etcd.dump("/greeter/").await?.into_keys().collect();
        let ours = keys
            .iter()
            .filter(|key| key.starts_with("/greeter/twinspan~") && key.ends_with(&pod.address().to_string()));
        ensure!(keys.len() == 2 && ours.count() == 1, "{keys:?}");
        Ok(())
    })
    .await?;
    let object = sandbox.registry_condition("Ready", "True", "Connected").await?;
    ensure!(object.spec.leading_slash && object.status.is_some_and(|status| status.prefix.as_deref() == Some("")));
    sandbox.unregister("greeter").await?;
    eventually("nothing of ours is left", SOON, || async {
        let keys: Vec<String> = etcd.dump("/greeter/").await?.into_keys().collect();
        ensure!(keys == [format!("/greeter/{vm}")], "{keys:?}");
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn hertz_names_are_lower_case(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let etcd = bed.start_registry("registry-hertz-names").await?;
    let sandbox = sandbox_of(bed, "hertznames", &etcd, Framework::Hertz, json!({})).await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({"registryName": "Hertz.Echo"})).await?;
    let object = sandbox.condition("echo", "Accepted", "False", "InvalidName").await?;
    let conditions = object.status.unwrap_or_default().conditions;
    let message = conditions.iter().find(|c| c.type_ == "Accepted").map(|c| c.message.clone()).unwrap_or_default();
    ensure!(message.contains("Hertz.Echo") && message.contains("lower-case"), "{message}");
    sandbox.patch("echo", json!({"registryName": "hertz.echo"})).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;
    sandbox.nothing_foreign_was_touched().await
}

/// One Service is exported to a Kitex and to a go-zero registry in one etcd, and fed from both.
async fn two_registries_in_different_formats(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let etcd = bed.start_registry("registry-two-formats").await?;
    let sandbox = sandbox_of(bed, "twoformats", &etcd, Framework::Kitex, json!({})).await?;
    let second = format!("{}-gozero", sandbox.name);
    let object = serde_json::from_value(json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": second},
        "spec": {"etcd": {"endpoints": [sandbox.registry.endpoint()]}, "format": "GoZero",
            "allowed": [{"namespaceSelector": {"matchLabels": {"story": sandbox.name}}, "registryNames": ["*"]}]},
    }))?;
    sandbox.registries().create(&Default::default(), &object).await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("kitex", json!({"registryName": "echo", "service": {"name": "echo"}})).await?;
    let spec = json!({"registryRef": {"name": second}, "registryName": "echo.rpc", "service": {"name": "echo"}});
    sandbox.register("gozero", spec).await?;
    let ip: IpAddr = next_v4().into();
    sandbox.pods.run("pod", &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[ip]).await?;
    sandbox.pods.set_ready("pod", true).await?;
    let pod = SocketAddr::new(ip, 80);
    let kitex = vm(&sandbox, Framework::Kitex, "echo").await?;
    let gozero = vm(&sandbox, Framework::GoZero, "echo.rpc").await?;
    sandbox.imports_become("echo", &[kitex.address(), gozero.address()]).await?;
    resolves_to(&sandbox, Framework::Kitex, "echo", &[pod, kitex.address()]).await?;
    resolves_to(&sandbox, Framework::GoZero, "echo.rpc", &[pod, gozero.address()]).await?;
    gozero.part().stop().await?;
    sandbox.imports_become("echo", &[kitex.address()]).await?;
    sandbox.nothing_foreign_was_touched().await
}
