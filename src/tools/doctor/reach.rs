//! The reach of exports: a connection to every address that this cluster exported, from the machine of the command.
//!
//! Owns the bound on addresses, and the advice where one does not answer. Refuses to judge a server: a connection that
//! opens is all that it asks for.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use twinspan_core::model::{InstanceAddr, Kind, ServiceKey};
use twinspan_core::plan::departure::Answer;

use super::finding::{Finding, Findings, Level};
use super::registries::{chosen, names};
use super::request::Request;
use crate::api::ServiceRegistry;
use crate::causes::of_kube;
use crate::probe::{Prober, TcpProber};
use crate::registry::Connector;
use crate::registry::etcd::EtcdConnector;
use crate::tools::lookup;

/// Connections at a time. Each takes 1.2 s at most.
const AT_ONCE: usize = 64;
/// Addresses of one registry that are tried.
const MOST: usize = 5000;
/// Addresses that are named for each service.
const NAMED: usize = 5;

/// Addresses by the RegisteredService that exports them.
type Exports = BTreeMap<ServiceKey, BTreeSet<InstanceAddr>>;

/// Tries every exported address of the chosen registries.
pub async fn reach(request: &Request<'_>) -> Vec<Finding> {
    let (chosen, mut all) = chosen(request).await;
    for object in &chosen {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let mut findings = Findings::about(name);
        match exports(request, name, object).await {
            Ok(exports) => try_all(&exports, &mut findings).await,
            Err(why) => findings.add(Level::Fail, format!("its exports cannot be read: {why}")),
        }
        all.extend(findings.all);
    }
    all
}

/// The own records under the names that RegisteredServices use.
async fn exports(request: &Request<'_>, registry: &str, object: &ServiceRegistry) -> Result<Exports, String> {
    let settings = lookup::session_settings(&request.client, request.operator_namespace, object).await;
    let settings = settings.map_err(|error| error.to_string())?;
    let (layout, cluster_id) = (settings.identity.layout, settings.identity.cluster_id);
    let etcd = EtcdConnector::new(settings.connection).connect().await.map_err(|error| error.to_string())?;
    let names = names(request, registry)
        .await
        .map_err(|error| format!("cannot list RegisteredServices: {}", of_kube(&error)))?;
    let mut exports = Exports::new();
    for name in names.into_iter().collect::<BTreeSet<_>>() {
        let listing = etcd.list(&layout.service_root(&name)).await.map_err(|error| error.to_string())?;
        for record in listing.records.iter().map(|raw| layout.decode(raw)) {
            if let Kind::Own(owner) = record.kind(&cluster_id) {
                exports.entry(owner.service.clone()).or_default().extend(record.endpoint_addresses());
            }
        }
    }
    Ok(exports)
}

async fn try_all(exports: &Exports, findings: &mut Findings<'_>) {
    let all: Vec<(&ServiceKey, InstanceAddr)> =
        exports.iter().flat_map(|(service, addresses)| addresses.iter().map(move |addr| (service, *addr))).collect();
    if all.is_empty() {
        findings.add(Level::Warn, "this cluster exports nothing to it, so nothing can be tried");
    }
    if all.len() > MOST {
        let more = all.len() - MOST;
        findings
            .add(Level::Warn, format!("{more} more exported addresses are not tried; name fewer ServiceRegistries"));
    }
    let tried =
        all.into_iter().take(MOST).map(|(service, addr)| async move { (service, addr, TcpProber.probe(addr).await) });
    let mut answers: BTreeMap<&ServiceKey, Vec<(InstanceAddr, Answer)>> = BTreeMap::new();
    let mut tried = stream::iter(tried).buffered(AT_ONCE);
    while let Some((service, addr, answer)) = tried.next().await {
        answers.entry(service).or_default().push((addr, answer));
    }
    for (service, answers) in answers {
        let silent: Vec<&(InstanceAddr, Answer)> =
            answers.iter().filter(|(_, answer)| *answer != Answer::Accepted).collect();
        match silent.as_slice() {
            [] => findings.add(Level::Ok, format!("{service}: all of {} exported addresses answer", answers.len())),
            silent => findings.add(Level::Fail, complaint(service, silent, answers.len())),
        }
    }
}

fn complaint(service: &ServiceKey, silent: &[&(InstanceAddr, Answer)], tried: usize) -> String {
    let word = |answer: Answer| match answer {
        Answer::Refused => "refused",
        Answer::Accepted | Answer::NoAnswer => "no answer",
    };
    let named = silent.iter().take(NAMED).map(|(addr, answer)| format!("{addr} ({})", word(*answer)));
    let mut text = named.collect::<Vec<_>>().join(", ");
    if silent.len() > NAMED {
        text += &format!(" and {} more", silent.len() - NAMED);
    }
    let advice = if silent.iter().all(|(_, answer)| *answer == Answer::Refused) {
        "nothing listens there: compare spec.service.ports with the pods"
    } else {
        "clients on this machine cannot call them: route the pods' addresses to it, or let firewalls pass"
    };
    format!("{service}: {} of {tried} exported addresses do not answer from here: {text}; {advice}", silent.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_names_a_few_addresses_and_says_what_to_do() {
        let service = ServiceKey::new("shop", "echo");
        let at = |n: u8, answer| (InstanceAddr::new([10, 0, 0, n].into(), 80).unwrap(), answer);
        let silent: Vec<(InstanceAddr, Answer)> = (1..=7).map(|n| at(n, Answer::NoAnswer)).collect();
        let text = complaint(&service, &silent.iter().collect::<Vec<_>>(), 9);
        assert!(text.starts_with("shop/echo: 7 of 9 exported addresses do not answer"), "{text}");
        assert!(text.contains("10.0.0.5:80 (no answer) and 2 more; clients on this machine"), "{text}");
        let refused = at(1, Answer::Refused);
        assert!(complaint(&service, &[&refused], 1).contains("nothing listens there"));
    }
}
