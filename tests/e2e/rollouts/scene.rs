//! The scene of rollouts: a control plane whose operator may open readiness gates, and gated pods.
//!
//! Owns the operator, and the reading of gates. Refuses to judge them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::Value;
use tokio::sync::Mutex;
use twinspan_testbed::{Bed, Twinspan, TwinspanOptions, apply_file, eventually, holds, next_v4, rollouts_manifest};

use crate::harness::{SOON, Sandbox, TWINSPAN};

pub const GATE: &str = "twinspan.dev/registered";

pub struct Scene<'a> {
    pub sandbox: Sandbox<'a>,
    options: TwinspanOptions,
    twinspan: Mutex<Twinspan>,
}

impl<'a> Scene<'a> {
    pub async fn new(bed: &'a Bed) -> Result<Scene<'a>> {
        apply_file(&bed.client(), &rollouts_manifest()).await?;
        let env = vec![("TWINSPAN_ROLLOUTS".to_owned(), "true".to_owned())];
        Self::without_permission(bed, &TwinspanOptions { env, ..TwinspanOptions::default() }).await
    }

    pub async fn without_permission(bed: &'a Bed, options: &TwinspanOptions) -> Result<Scene<'a>> {
        let twinspan = bed.start_twinspan(TWINSPAN, options)?;
        twinspan.ready().await?;
        let sandbox = Sandbox::new(bed, "rollouts").await?;
        Ok(Self { sandbox, options: options.clone(), twinspan: Mutex::new(twinspan) })
    }

    /// Stops the operator and starts another one.
    pub async fn restart(&self) -> Result<()> {
        let mut twinspan = self.twinspan.lock().await;
        twinspan.part().stop().await?;
        *twinspan = self.sandbox.bed.start_twinspan(TWINSPAN, &self.options)?;
        twinspan.ready().await
    }

    pub async fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.twinspan.lock().await.part().log())?)
    }

    /// A pod of a Service whose containers are ready, with our gate.
    pub async fn pod(&self, service: &str, name: &str) -> Result<SocketAddr> {
        self.pod_with(service, name, &[], Value::Null).await
    }

    /// The same with further gates, and with annotations.
    pub async fn pod_with(&self, service: &str, name: &str, gates: &[&str], annotations: Value) -> Result<SocketAddr> {
        self.pod_at(service, name, next_v4(), gates, annotations).await
    }

    pub async fn pod_at(
        &self,
        service: &str,
        name: &str,
        ip: Ipv4Addr,
        gates: &[&str],
        annotations: Value,
    ) -> Result<SocketAddr> {
        let labels = BTreeMap::from([("app".to_owned(), service.to_owned())]);
        let gates: Vec<&str> = gates.iter().copied().chain([GATE]).collect();
        self.sandbox.pods.run_gated(name, &labels, IpAddr::V4(ip), &gates, annotations).await?;
        Ok(SocketAddr::from((ip, 80)))
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.sandbox.client(), &self.sandbox.name)
    }

    /// The condition of the gate of a pod.
    pub async fn gate(&self, pod: &str) -> Result<Option<PodCondition>> {
        let conditions = self.pods().get(pod).await?.status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(conditions.into_iter().find(|condition| condition.type_ == GATE))
    }

    /// Waits until the gate of a pod is open.
    pub async fn opened(&self, pod: &str, reason: &str) -> Result<PodCondition> {
        eventually(&format!("the gate of {pod} is open: {reason}"), SOON * 2, || async {
            let gate = self.gate(pod).await?.context("no condition")?;
            ensure!(gate.status == "True" && gate.reason.as_deref() == Some(reason), "{gate:?}");
            ensure!(gate.last_transition_time.is_some() && gate.message.is_some(), "{gate:?}");
            Ok(gate)
        })
        .await
    }

    pub async fn stays_closed(&self, pod: &str, time: Duration) -> Result<()> {
        holds(&format!("the gate of {pod} is closed"), time, || async {
            let gate = self.gate(pod).await?;
            ensure!(gate.is_none(), "{gate:?}");
            Ok(())
        })
        .await
    }

    /// Waits for an Event about a pod.
    pub async fn event(&self, pod: &str, reason: &str) -> Result<()> {
        let events: Api<Event> = Api::namespaced(self.sandbox.client(), &self.sandbox.name);
        eventually(&format!("{reason} about {pod}"), SOON, || async {
            let all = events.list(&ListParams::default()).await?.items;
            let about =
                all.iter().filter(|event| event.regarding.as_ref().is_some_and(|r| r.name.as_deref() == Some(pod)));
            let reasons: Vec<_> = about.filter_map(|event| event.reason.clone()).collect();
            ensure!(reasons.iter().any(|found| found == reason), "{reasons:?}");
            Ok(())
        })
        .await
    }
}
