//! The check of Service ranges on an API server without ServiceCIDRs.
//!
//! Owns the advice. Refuses to know the running operator's settings: it has those of this command.

use std::collections::BTreeSet;
use std::net::IpAddr;

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
        Ok(_) => match families_in_use(client).await {
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

/// The IP families in which a Service has a ClusterIP; `None` where this account may not list Services.
async fn families_in_use(client: &Client) -> kube::Result<Option<BTreeSet<&'static str>>> {
    if !rbac::may(client, "list", "", "services", "").await? {
        return Ok(None);
    }
    let api: Api<Service> = Api::all(client.clone());
    let (mut params, mut families) = (ListParams::default().limit(PAGE), BTreeSet::new());
    for _ in 0..PAGES {
        let page = api.list(&params).await?;
        families.extend(page.items.iter().flat_map(cluster_ips).map(|ip| family(&ip)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    Ok(Some(families))
}

fn family(ip: &IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// None where the Service is headless.
fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.as_ref();
    let ips = spec.into_iter().flat_map(|spec| spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip));
    ips.filter_map(|ip| ip.parse().ok()).collect()
}

fn without_service_cidrs(named: &NamedNetworks, in_use: Option<BTreeSet<&'static str>>) -> (Level, String) {
    let none = "this API server has no ServiceCIDRs";
    let set = "serviceCIDRs of the chart (--service-cidrs) adds the ranges";
    let Some(mut families) = in_use else {
        return (Level::Warn, not_seen("whether Services have ClusterIPs"));
    };
    if families.is_empty() && named.services.is_empty() {
        families = ["IPv4", "IPv6"].into();
    }
    families.retain(|lacking| !named.services.iter().any(|net| family(&net.range().0) == *lacking));
    if families.is_empty() {
        let text =
            format!("{none}: addresses of Services are known by the ranges that are set, and by ClusterIPs in use");
        return (Level::Ok, text);
    }
    let families = families.into_iter().collect::<Vec<_>>().join(" and ");
    let text = format!(
        "{none}, and no range of {families} ClusterIPs is set: the addresses that Services have now are refused, and a record may be \
         imported whose address a Service gets later; {set}"
    );
    (Level::Warn, text)
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
            (&named, Some([].into()), Level::Ok, "the ranges that are set"),
            (&named, Some(["IPv4"].into()), Level::Ok, "the ranges that are set"),
            (&named, Some(["IPv4", "IPv6"].into()), Level::Warn, "no range of IPv6 ClusterIPs"),
            (&NamedNetworks::default(), Some(["IPv4"].into()), Level::Warn, "no range of IPv4 ClusterIPs"),
            (&NamedNetworks::default(), Some([].into()), Level::Warn, "no range of IPv4 and IPv6 ClusterIPs"),
            (&NamedNetworks::default(), None, Level::Warn, "was not looked at"),
        ] {
            let (found, text) = without_service_cidrs(networks, in_use);
            assert!(found == level && text.contains(says), "{found:?} {text}");
        }
    }

    #[test]
    fn a_headless_service_has_no_cluster_ip() {
        for (spec, families) in [
            (json!({"clusterIP": "10.96.0.1"}), vec!["IPv4"]),
            (json!({"clusterIP": "fd96::1", "clusterIPs": ["fd96::1", "10.96.0.1"]}), vec!["IPv4", "IPv6"]),
            (json!({"clusterIP": "None", "clusterIPs": ["None"]}), vec![]),
            (json!({"clusterIP": ""}), vec![]),
        ] {
            let service = serde_json::from_value(json!({"spec": spec})).unwrap();
            let found: BTreeSet<&str> = cluster_ips(&service).iter().map(family).collect();
            assert_eq!(found.into_iter().collect::<Vec<_>>(), families, "{spec}");
        }
    }
}
