//! Reading and waiting: endpoints, records, DNS answers, conditions and Events of a sandbox.
//!
//! Owns the deadlines. Refuses to change anything.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use twinspan::api::{Counts, RegisteredService, ServiceRegistry};
use twinspan_testbed::eventually;

use super::{SOON, Sandbox};

impl Sandbox<'_> {
    /// Slices of a Service that Twinspan manages, by name.
    pub async fn our_slices(&self, service: &str) -> Result<Vec<EndpointSlice>> {
        let labels =
            format!("kubernetes.io/service-name={service},endpointslice.kubernetes.io/managed-by=twinspan.dev");
        Ok(self.slices().list(&ListParams::default().labels(&labels)).await?.items)
    }

    /// `ip:port` of every endpoint that Twinspan imported for a Service.
    pub async fn imported(&self, service: &str) -> Result<BTreeSet<SocketAddr>> {
        let mut found = BTreeSet::new();
        for slice in self.our_slices(service).await? {
            for port in slice.ports.iter().flatten().filter_map(|p| p.port) {
                for address in slice.endpoints.iter().flat_map(|e| &e.addresses) {
                    let new = found.insert(SocketAddr::new(address.parse()?, u16::try_from(port)?));
                    ensure!(new, "{address}:{port} is in two slices");
                }
            }
        }
        Ok(found)
    }

    pub async fn imports_become(&self, service: &str, expected: &[SocketAddr]) -> Result<()> {
        self.imports_become_within(service, expected, SOON).await
    }

    /// Waits longer, for a change that Twinspan delays on purpose.
    pub async fn imports_become_within(&self, service: &str, expected: &[SocketAddr], within: Duration) -> Result<()> {
        let expected: BTreeSet<SocketAddr> = expected.iter().map(|addr| self.in_services(*addr)).collect();
        eventually("the imported endpoints", within, || async {
            let found = self.imported(service).await?;
            ensure!(found == expected, "imported {found:?}, want {expected:?}");
            Ok(())
        })
        .await
    }

    pub async fn records_become(&self, service: &str, expected: &[SocketAddr]) -> Result<()> {
        self.records_become_within(service, expected, SOON).await
    }

    pub async fn records_become_within(&self, service: &str, expected: &[SocketAddr], within: Duration) -> Result<()> {
        let expected: BTreeSet<String> = expected.iter().map(|addr| self.exported(*addr).to_string()).collect();
        eventually("the registered addresses", within, || async {
            let found = self.registered_addresses(service).await?;
            ensure!(found == expected, "registered {found:?}, want {expected:?}");
            Ok(())
        })
        .await
    }

    /// The name of a Service in DNS.
    pub fn dns_name(&self, service: &str) -> String {
        format!("{service}.{}.svc.cluster.local.", self.name)
    }

    pub fn srv_name(&self, service: &str) -> String {
        format!("_rpc._tcp.{}", self.dns_name(service))
    }

    /// The SRV answers of a headless Service become these addresses.
    pub async fn dns_becomes(&self, service: &str, expected: &[SocketAddr]) -> Result<()> {
        let expected: BTreeSet<SocketAddr> = expected.iter().map(|addr| self.in_services(*addr)).collect();
        eventually("the SRV answers", SOON, || async {
            let found = self.bed.dns.srv_addresses(&self.srv_name(service)).await?;
            ensure!(found == expected, "DNS answers {found:?}, want {expected:?}");
            Ok(())
        })
        .await
    }

    /// `status.instances` of a RegisteredService.
    pub async fn counts(&self, name: &str) -> Result<Counts> {
        Ok(self.registered().get(name).await?.status.unwrap_or_default().instances)
    }

    /// Waits for a condition of a RegisteredService with status and reason.
    pub async fn condition(&self, name: &str, kind: &str, status: &str, reason: &str) -> Result<RegisteredService> {
        eventually(&format!("RegisteredService {name}: {kind}={status} {reason}"), SOON, || async {
            let object = self.registered().get(name).await?;
            let conditions = object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
            let found = conditions
                .iter()
                .find(|c| c.type_ == kind)
                .with_context(|| format!("no condition {kind}: {conditions:?}"))?;
            ensure!(found.status == status && found.reason == reason, "{found:?}");
            Ok(object)
        })
        .await
    }

    /// Waits until a pass has processed the current spec.
    pub async fn seen(&self, name: &str) -> Result<()> {
        eventually(&format!("RegisteredService {name} is seen"), SOON, || async {
            let object = self.registered().get(name).await?;
            let seen = object.status.as_ref().and_then(|status| status.observed_generation);
            ensure!(seen.is_some() && seen == object.metadata.generation, "{seen:?}");
            Ok(())
        })
        .await
    }

    /// Waits for a condition of the sandbox's ServiceRegistry.
    pub async fn registry_condition(&self, kind: &str, status: &str, reason: &str) -> Result<ServiceRegistry> {
        eventually(&format!("ServiceRegistry {}: {kind}={status} {reason}", self.name), SOON, || async {
            let object = self.registries().get(&self.name).await?;
            let conditions = object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
            let found = conditions
                .iter()
                .find(|c| c.type_ == kind)
                .with_context(|| format!("no condition {kind}: {conditions:?}"))?;
            ensure!(found.status == status && found.reason == reason, "{found:?}");
            Ok(object)
        })
        .await
    }

    /// Reasons and notes of the Events about a RegisteredService.
    pub async fn events(&self, name: &str) -> Result<BTreeSet<(String, String)>> {
        let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(self.client(), &self.name);
        let all = events.list(&ListParams::default()).await?;
        Ok(all
            .items
            .into_iter()
            .filter(|e| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(name))
            .map(|e| (e.reason.unwrap_or_default(), e.note.unwrap_or_default()))
            .collect())
    }
}
