//! Deletion orders: Service, RegisteredService, ServiceRegistry and namespace are deleted and created again in every
//! order, half of the orders while Twinspan is down. Twinspan leaves nothing behind, and everything is synchronised in
//! the end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use twinspan_testbed::{Bed, TwinspanOptions, eventually, next_v4};

use crate::harness::{Sandbox, Suite, TWINSPAN, record, stories};
use crate::safety::audit::no_denied_requests;

stories![deleted_and_created_again_in_every_order];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    Service,
    RegisteredService,
    ServiceRegistry,
    Namespace,
}

const ALL: [Object; 4] = [Object::Service, Object::RegisteredService, Object::ServiceRegistry, Object::Namespace];

/// An API server that serves 24 stories concurrently is slow; and if a registry was deleted while Twinspan was down,
/// our records end with their lease of 60 s.
const PATIENCE: Duration = Duration::from_secs(120);

fn permutations(of: &[Object]) -> Vec<Vec<Object>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (n, first) in of.iter().enumerate() {
        let rest: Vec<Object> = of.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, o)| *o).collect();
        all.extend(permutations(&rest).into_iter().map(|tail| [&[*first][..], &tail].concat()));
    }
    all
}

struct Case<'a> {
    sandbox: Sandbox<'a>,
    order: Vec<Object>,
    vm: SocketAddr,
}

impl<'a> Case<'a> {
    async fn set_up(bed: &'a Bed, order: Vec<Object>) -> Result<Case<'a>> {
        let sandbox = Sandbox::new(bed, "order").await?;
        let case = Self { sandbox, order, vm: SocketAddr::from((next_v4(), 9000)) };
        case.create_service().await?;
        case.sandbox.register("echo", json!({})).await?;
        bed.registry.put(&case.sandbox.key("echo", case.vm), &record(case.vm).to_string()).await?;
        Ok(case)
    }

    async fn create_service(&self) -> Result<()> {
        self.sandbox.headless("echo").await?;
        let ip = next_v4();
        self.sandbox.pods.run("pod", &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[ip.into()]).await?;
        self.sandbox.pods.set_ready("pod", true).await
    }

    async fn delete(&self, object: Object) -> Result<()> {
        let params = DeleteParams::default();
        let outcome = match object {
            Object::Service => {
                // The pod is deleted with its Service: without a Service there is nothing to export.
                ignore_missing(self.sandbox.pods.remove("pod").await)?;
                self.sandbox.services().delete("echo", &params).await.map(drop)
            }
            Object::RegisteredService => self.sandbox.registered().delete("echo", &params).await.map(drop),
            Object::ServiceRegistry => self.sandbox.registries().delete(&self.sandbox.name, &params).await.map(drop),
            Object::Namespace => self.namespaces().delete(&self.sandbox.name, &params).await.map(drop),
        };
        ignore_missing(outcome.map_err(Into::into))
    }

    /// The namespace first, and the others in the order of their deletion.
    async fn create_again(&self) -> Result<()> {
        eventually("the namespace is gone; nothing of ours holds it up", PATIENCE, || async {
            ensure!(
                self.namespaces().get_opt(&self.sandbox.name).await?.is_none(),
                "{} is still there",
                self.sandbox.name
            );
            Ok(())
        })
        .await?;
        let labels = BTreeMap::from([("story".to_owned(), self.sandbox.name.clone())]);
        self.sandbox.bed.create_namespace(&self.sandbox.name, &labels).await?;
        // The cache of the API server may still have the namespace that ended.
        eventually("the namespace takes objects", PATIENCE, || async {
            let dry = PostParams { dry_run: true, ..PostParams::default() };
            let object = serde_json::from_value(json!({"metadata": {"name": "anything"}}))?;
            Api::<ConfigMap>::namespaced(self.sandbox.client(), &self.sandbox.name).create(&dry, &object).await?;
            Ok(())
        })
        .await?;
        for object in &self.order {
            match object {
                Object::Service => self.create_service().await?,
                Object::RegisteredService => self.sandbox.register("echo", json!({})).await?,
                Object::ServiceRegistry => self.sandbox.create_registry(json!({})).await?,
                Object::Namespace => {}
            }
        }
        Ok(())
    }

    fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.sandbox.client())
    }

    /// Both sides have the pod and the VM, and nothing else.
    async fn is_synced(&self) -> Result<()> {
        let sandbox = &self.sandbox;
        eventually(&format!("synced after {:?}", self.order), PATIENCE, || async {
            let pods = sandbox.slices().list(&ListParams::default().labels("kubernetes.io/service-name=echo")).await?;
            let pods: Vec<String> = pods
                .items
                .iter()
                .filter(|s| s.metadata.name.as_deref().is_some_and(|n| n.starts_with("echo-")))
                .filter(|s| s.ports.iter().flatten().any(|p| p.port == Some(80)))
                .flat_map(|s| s.endpoints.iter().flat_map(|e| e.addresses.clone()))
                .collect();
            let [pod] = pods.as_slice() else { anyhow::bail!("pods {pods:?}") };
            let imported = sandbox.imported("echo").await?;
            ensure!(imported == [self.vm].into(), "imported {imported:?}");
            let registered = sandbox.registered_addresses("echo").await?;
            ensure!(registered == [self.vm.to_string(), format!("{pod}:80")].into(), "registered {registered:?}");
            Ok(())
        })
        .await
    }

    /// Only the foreign record is left, on either side.
    async fn is_clean(&self) -> Result<()> {
        let sandbox = &self.sandbox;
        eventually(&format!("nothing is left after {:?}", self.order), PATIENCE, || async {
            let registered = sandbox.registered_addresses("echo").await?;
            ensure!(registered == [self.vm.to_string()].into(), "registered {registered:?}");
            let slices = sandbox.our_slices("echo").await?;
            ensure!(slices.is_empty(), "{} slices", slices.len());
            Ok(())
        })
        .await
    }
}

fn ignore_missing(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.downcast_ref::<kube::Error>().is_some_and(is_missing) => Ok(()),
        other => other,
    }
}

fn is_missing(error: &kube::Error) -> bool {
    // Deleting a namespace that is already being deleted is not an error.
    matches!(error, kube::Error::Api(status) if status.is_not_found() || status.is_conflict())
}

async fn deleted_and_created_again_in_every_order(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let mut twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let orders = permutations(&ALL);
    ensure!(orders.len() == 24);
    let cases = try_join_all(orders.into_iter().map(|order| Case::set_up(&bed, order))).await?;
    try_join_all(cases.iter().map(Case::is_synced)).await?;

    // Every other order, so that each object is first, and last, in both halves.
    let (up, down): (Vec<(usize, &Case<'_>)>, _) = cases.iter().enumerate().partition(|(n, _)| n % 2 == 0);
    for (half, while_down) in [(up, false), (down, true)] {
        if while_down {
            twinspan.part().stop().await?;
        }
        try_join_all(half.iter().map(|(_, case)| async {
            for object in &case.order {
                case.delete(*object).await.with_context(|| format!("{object:?} of {:?}", case.order))?;
            }
            Ok::<_, anyhow::Error>(())
        }))
        .await?;
        // Half of the objects that are deleted while Twinspan is down exist again when it starts.
        let (early, late): (Vec<_>, Vec<_>) =
            half.iter().map(|(_, case)| case).enumerate().partition(|(n, _)| n % 2 == 0);
        if while_down {
            try_join_all(early.iter().map(|(_, case)| case.create_again())).await?;
            twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
            twinspan.ready().await?;
        } else {
            try_join_all(early.iter().map(|(_, case)| case.is_clean())).await?;
            try_join_all(early.iter().map(|(_, case)| case.create_again())).await?;
        }
        try_join_all(late.iter().map(|(_, case)| case.is_clean())).await?;
        try_join_all(late.iter().map(|(_, case)| case.create_again())).await?;
        try_join_all(half.iter().map(|(_, case)| case.is_synced())).await?;
    }
    // Finally all are deleted together, for good.
    try_join_all(cases.iter().map(|case| async {
        for object in case.order.iter().rev() {
            case.delete(*object).await?;
        }
        case.is_clean().await
    }))
    .await?;
    twinspan.part().check_running()?;
    no_denied_requests(&bed)
}
