//! The check of Service ranges on an API server without ServiceCIDRs.
//!
//! Owns the advice. Refuses to know the running operator's settings: it has those of this command.

use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::{Api, Client};

use super::cluster::not_seen;
use super::finding::{CLUSTER, Finding, Findings, Level};
use super::rbac;
use super::request::Request;
use crate::causes::of_kube;
use crate::cluster::networks::NamedNetworks;

/// Services that are looked at for a ClusterIP, by pages.
const PAGE: u32 = 500;
const PAGES: usize = 40;

/// Says nothing where the API server has ServiceCIDRs.
pub(super) async fn examine(request: &Request<'_>) -> Vec<Finding> {
    let (client, mut findings) = (&request.client, Findings::about(CLUSTER));
    match client.list_api_group_resources("networking.k8s.io/v1").await {
        Ok(group) if group.resources.iter().any(|resource| resource.name == "servicecidrs") => {}
        Ok(_) => match uses_cluster_ips(client).await {
            Ok(in_use) => {
                let (level, text) = without_service_cidrs(&request.networks, in_use);
                findings.add(level, text);
            }
            Err(error) => findings.add(Level::Warn, format!("cannot list Services: {}", of_kube(&error))),
        },
        Err(error) => {
            let text = format!("cannot see whether this API server has ServiceCIDRs: {}", of_kube(&error));
            findings.add(Level::Warn, text);
        }
    }
    findings.all
}

/// Whether a Service has a ClusterIP; `None` where this account may not list Services.
async fn uses_cluster_ips(client: &Client) -> kube::Result<Option<bool>> {
    if !rbac::may(client, "list", "", "services", "").await? {
        return Ok(None);
    }
    let api: Api<Service> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    for _ in 0..PAGES {
        let page = api.list(&params).await?;
        if page.items.iter().any(has_cluster_ip) {
            return Ok(Some(true));
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    Ok(Some(false))
}

fn has_cluster_ip(service: &Service) -> bool {
    let ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    ip.is_some_and(|ip| !ip.is_empty() && ip != "None")
}

fn without_service_cidrs(named: &NamedNetworks, in_use: Option<bool>) -> (Level, String) {
    let none = "this API server has no ServiceCIDRs";
    let set = "serviceCIDRs of the chart (--service-cidrs) adds the ranges";
    match in_use {
        _ if !named.services.is_empty() => (
            Level::Ok,
            format!("{none}: addresses of Services are known by the ranges that are set, and by ClusterIPs in use"),
        ),
        Some(true) => (Level::Ok, format!("{none}: addresses of Services are known by ClusterIPs in use; {set}")),
        Some(false) => (
            Level::Warn,
            format!(
                "{none}, and no Service has a ClusterIP: a record may be imported whose address a Service gets later; {set}"
            ),
        ),
        None => (Level::Warn, not_seen("whether Services have ClusterIPs")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use twinspan_core::model::Cidr;

    use super::*;

    #[test]
    fn a_range_that_nothing_shows_is_told() {
        let named = NamedNetworks { services: vec![Cidr::parse("10.96.0.0/16").unwrap()] };
        for (networks, in_use, level, says) in [
            (&named, Some(false), Level::Ok, "the ranges that are set"),
            (&NamedNetworks::default(), Some(true), Level::Ok, "ClusterIPs in use; serviceCIDRs"),
            (&NamedNetworks::default(), Some(false), Level::Warn, "no Service has a ClusterIP"),
            (&NamedNetworks::default(), None, Level::Warn, "was not looked at"),
        ] {
            let (found, text) = without_service_cidrs(networks, in_use);
            assert!(found == level && text.contains(says), "{found:?} {text}");
        }
    }

    #[test]
    fn a_headless_service_has_no_cluster_ip() {
        for (ip, has) in [("10.96.0.1", true), ("None", false), ("", false)] {
            let service = serde_json::from_value(json!({"spec": {"clusterIP": ip}})).unwrap();
            assert_eq!(has_cluster_ip(&service), has, "{ip:?}");
        }
    }
}
