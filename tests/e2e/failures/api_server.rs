//! The connection to the API server and what comes through it: connections that fall silent, objects that cannot be
//! read, and requests that never end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use twinspan_testbed::{Bed, Link, OPERATOR_NAMESPACE, Twinspan, TwinspanOptions, eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![
    a_standby_leads_although_its_connections_are_silent_and_a_half_request_keeps_no_lease,
    one_object_that_cannot_be_read_stops_no_other;
    long: every_watch_lives_again_after_silence,
];

/// The field of a CRD's schema that names the values of `spec.direction`.
const DIRECTION: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/direction/enum";
/// The same for the operator of a namespace selector of `spec.allowed`.
const OPERATOR: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/allowed/items/properties/namespaceSelector/properties/matchExpressions/items/properties/operator/enum";

/// A Twinspan that reaches the API server through a link of its own.
async fn linked(bed: &Bed) -> Result<(Link, Twinspan)> {
    let server: SocketAddr = bed.cluster.server().trim_start_matches("https://").parse()?;
    let link = Link::start(SocketAddr::from((next_v4(), server.port())), server).await?;
    let kubeconfig = Some(bed.operator().through(bed.dir(), link.address())?);
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions { kubeconfig, ..TwinspanOptions::default() })?;
    twinspan.ready().await?;
    Ok((link, twinspan))
}

async fn leads(twinspan: &Twinspan, within: Duration) -> Result<()> {
    eventually("it leads", within, || async {
        ensure!(twinspan.metric("twinspan_leader").await? == Some(1.0));
        Ok(())
    })
    .await
}

async fn a_standby_leads_although_its_connections_are_silent_and_a_half_request_keeps_no_lease(
    suite: Arc<Suite>,
) -> Result<()> {
    let bed = suite.own_bed().await?;
    let (first_link, first) = linked(&bed).await?;
    leads(&first, SOON).await?;
    let (second_link, second) = linked(&bed).await?;
    let sandbox = Sandbox::new(&bed, "silent").await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.records_become("echo", &[pod.address()]).await?;

    first_link.silence();
    second_link.silence();
    first.part().kill().await?;
    leads(&second, SOON).await?;
    // The standby writes through a connection that it opened since.
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", vm).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    sandbox.records_become("echo", &[pod.address(), vm]).await?;

    let mut half = TcpStream::connect(second.admin()).await?;
    half.write_all(b"GET /livez HT").await?;
    let stopping = second.part().stop();
    let leases: Api<Lease> = Api::namespaced(bed.client(), OPERATOR_NAMESPACE);
    let given_back = eventually("the Lease is given back", Duration::from_secs(10), || async {
        let holder = leases.get("twinspan").await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        ensure!(holder.is_empty(), "{holder} has it");
        Ok(())
    });
    let (stopped, given_back) = tokio::join!(stopping, given_back);
    given_back?;
    stopped?;
    sandbox.nothing_foreign_was_touched().await
}

/// The oldest age of a watch that the gauge shows.
async fn oldest(twinspan: &Twinspan) -> Result<f64> {
    let (_, page) = twinspan.get("/metrics").await?;
    let ages = page.lines().filter(|line| line.starts_with("twinspan_watch_age_seconds{"));
    let ages: Vec<f64> = ages.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    ensure!(ages.len() == 9, "{ages:?}");
    ages.into_iter().reduce(f64::max).context("nine")
}

async fn every_watch_lives_again_after_silence(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let (link, twinspan) = linked(&bed).await?;
    leads(&twinspan, SOON).await?;
    let sandbox = Sandbox::new(&bed, "silence").await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", vm).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    sandbox.records_become("echo", &[pod.address(), vm]).await?;
    let slices = sandbox.our_slices("echo").await?;

    link.silence();
    // A change now is not seen yet.
    sandbox.pods.set_ready("pod", false).await?;
    eventually("it tells that it hears nothing", Duration::from_secs(60), || async {
        ensure!(oldest(&twinspan).await? > 20.0);
        let (_, page) = twinspan.get("/readyz?verbose").await?;
        ensure!(page.lines().any(|line| line.starts_with("[i] watch of Pods: heard of ")), "{page}");
        Ok(())
    })
    .await?;
    eventually("every watch lives again", Duration::from_secs(90), || async {
        let oldest = oldest(&twinspan).await?;
        ensure!(oldest < 20.0, "{oldest} s");
        Ok(())
    })
    .await?;
    sandbox.records_become("echo", &[vm]).await?;
    ensure!(sandbox.our_slices("echo").await? == slices, "no slice was written because of it");
    leads(&twinspan, SOON).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// Lets the CRD take a value that this version does not know, as a newer one would.
async fn allow(bed: &Bed, crd: &str, field: &str, value: &str) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(bed.client());
    let operation = json!([{"op": "add", "path": format!("{field}/-"), "value": value}]);
    crds.patch(crd, &PatchParams::default(), &Patch::Json::<()>(serde_json::from_value(operation)?)).await?;
    Ok(())
}

/// Writes it once the API server has the new schema.
async fn write(api: &Api<DynamicObject>, name: &str, spec: &Value) -> Result<()> {
    eventually("the API server takes the value", SOON, || async {
        api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await?;
        Ok(())
    })
    .await
}

/// Status, reason and message of a condition.
async fn says(api: &Api<DynamicObject>, name: &str, kind: &str, wanted: [&str; 2]) -> Result<String> {
    eventually(&format!("{name}: {kind}={wanted:?}"), SOON, || async {
        let object = api.get(name).await?;
        let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition["type"] == kind).context("no condition yet")?;
        ensure!(found["status"] == wanted[0] && found["reason"] == wanted[1], "{found}");
        Ok(found["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

/// When the lease of a record ends unless it is kept alive.
async fn lease_ends(sandbox: &Sandbox<'_>, key: &str) -> Result<Instant> {
    let (_, _, lease) = sandbox.registry.dump(key).await?.remove(key).context("the record")?;
    let left = sandbox.registry.client().await?.lease_time_to_live(lease, None).await?.ttl();
    Ok(Instant::now() + Duration::from_secs(u64::try_from(left)?))
}

/// Waits until the lease of a record was kept alive since.
async fn is_kept_alive(sandbox: &Sandbox<'_>, key: &str, before: Instant) -> Result<()> {
    eventually("its lease is kept alive", SOON, || async {
        let later = lease_ends(sandbox, key).await?;
        // The time that is left has whole seconds.
        ensure!(later > before + Duration::from_secs(2), "it ends {:?} later", later - before);
        Ok(())
    })
    .await
}

async fn one_object_that_cannot_be_read_stops_no_other(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let (sandbox, other) = (Sandbox::new(&bed, "readable").await?, Sandbox::new(&bed, "newer").await?);
    let mut pods = Vec::new();
    for name in ["a", "b", "c", "d"] {
        sandbox.selector_service(name, 80).await?;
        sandbox.register(name, json!({})).await?;
        let pod = sandbox.pod(name, name, 80).await?;
        sandbox.pods.set_ready(name, true).await?;
        sandbox.records_become(name, &[pod.address()]).await?;
        pods.push(pod);
    }
    other.selector_service("e", 80).await?;
    other.register("e", json!({})).await?;
    let kept = other.pod("e", "e", 80).await?;
    other.pods.set_ready("e", true).await?;
    other.records_become("e", &[kept.address()]).await?;

    first.part().stop().await?;
    let (own, others_own) = (sandbox.key("d", pods[3].address()), other.key("e", kept.address()));
    let ends = (lease_ends(&sandbox, &own).await?, lease_ends(&other, &others_own).await?);
    allow(&bed, "registeredservices.twinspan.dev", DIRECTION, "Sideways").await?;
    allow(&bed, "serviceregistries.twinspan.dev", OPERATOR, "Perhaps").await?;
    let kind = ApiResource::erase::<twinspan::api::RegisteredService>(&());
    let services: Api<DynamicObject> = Api::namespaced_with(bed.client(), &sandbox.name, &kind);
    let others: Api<DynamicObject> = Api::namespaced_with(bed.client(), &other.name, &kind);
    let kind = ApiResource::erase::<twinspan::api::ServiceRegistry>(&());
    let registries: Api<DynamicObject> = Api::all_with(bed.client(), &kind);
    write(&services, "d", &json!({"direction": "Sideways"})).await?;
    let selector = json!({"matchExpressions": [{"key": "story", "operator": "Perhaps"}]});
    write(&registries, &other.name, &json!({"allowed": [{"namespaceSelector": selector, "registryNames": ["*"]}]}))
        .await?;

    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;
    for name in ["a", "b", "c"] {
        sandbox.condition(name, "Ready", "True", "Synced").await?;
    }
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("a", vm).await?;
    sandbox.imports_become("a", &[vm]).await?;
    let message = says(&services, "d", "Accepted", ["False", "NotSupported"]).await?;
    ensure!(message.contains("spec.direction: unknown variant `Sideways`"), "{message}");
    let message = says(&registries, &other.name, "Ready", ["False", "NotSupported"]).await?;
    ensure!(message.contains("spec.allowed"), "{message}");
    says(&registries, &other.name, "Connected", ["True", "Connected"]).await?;
    says(&others, "e", "Accepted", ["False", "NotSupported"]).await?;
    is_kept_alive(&sandbox, &own, ends.0).await?;
    is_kept_alive(&other, &others_own, ends.1).await?;
    sandbox.records_become("d", &[pods[3].address()]).await?;
    other.records_become("e", &[kept.address()]).await?;

    // Once it is corrected it is synced.
    write(&services, "d", &json!({"direction": "Both"})).await?;
    sandbox.condition("d", "Ready", "True", "Synced").await?;
    sandbox.nothing_foreign_was_touched().await?;
    other.nothing_foreign_was_touched().await
}
