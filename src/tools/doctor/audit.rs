//! The audit of the doctor: etcd, slices and own records, compared as an operator that has just started sees them.
//!
//! Owns the time that an operator may take to write a change. Refuses to explain a difference, which `plan` and
//! `parity` do for one service.

use std::collections::BTreeMap;
use std::time::Duration;

use twinspan_core::model::ServiceKey;

use super::finding::{CLUSTER, Finding, Findings, Level};
use super::request::Request;
use crate::tools::preview::{Changes, Preview};
use crate::tools::viewer::{AskError, Viewer};

/// Time until everything is listed.
const LISTED: Duration = Duration::from_secs(20);
/// A running operator writes a change within this time.
const WRITTEN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(200);
/// Differences that are named for each service.
const NAMED: usize = 5;

/// Compares every RegisteredService of the chosen registries.
pub async fn audit(request: &Request<'_>) -> Vec<Finding> {
    let viewer = Viewer::start(&request.client, request.operator_namespace, &request.networks, request.socket);
    match compared(&viewer, request).await {
        Ok(found) => {
            viewer.end().await;
            found
        }
        Err(error) => vec![Finding { about: CLUSTER.to_owned(), level: Level::Fail, text: error.to_string() }],
    }
}

async fn compared(viewer: &Viewer, request: &Request<'_>) -> Result<Vec<Finding>, AskError> {
    viewer.wait_for_sync(LISTED).await?;
    let deadline = tokio::time::Instant::now() + WRITTEN;
    loop {
        let previews = previews(viewer, request).await?;
        let settled = previews.iter().all(|(_, preview)| preview.changes.is_empty() || !preview.writes);
        if settled || tokio::time::Instant::now() >= deadline {
            return Ok(findings(&previews));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn previews(viewer: &Viewer, request: &Request<'_>) -> Result<Vec<(ServiceKey, Preview)>, AskError> {
    let chosen = |preview: &Preview| request.registries.is_empty() || request.registries.contains(&preview.registry);
    let mut all = Vec::new();
    for key in viewer.services().await? {
        all.extend(viewer.preview(&key).await?.filter(chosen).map(|preview| (key, preview)));
    }
    Ok(all)
}

fn findings(previews: &[(ServiceKey, Preview)]) -> Vec<Finding> {
    let mut agree: BTreeMap<&str, usize> = BTreeMap::new();
    let mut all = Vec::new();
    for (key, preview) in previews {
        let mut findings = Findings::about(&preview.registry);
        let unknown = preview.unavailable.clone().or(preview.pending.then(|| "it is not listed in time".to_owned()));
        match unknown {
            Some(why) => findings.add(Level::Fail, format!("{key} cannot be compared: {why}")),
            None if preview.changes.is_empty() || !preview.writes => {
                *agree.entry(&preview.registry).or_default() += 1;
            }
            None => findings.add(Level::Fail, format!("{key} differs: {}", named(&preview.changes))),
        }
        all.extend(findings.all);
    }
    for (registry, count) in agree {
        let mut findings = Findings::about(registry);
        findings.add(Level::Ok, format!("slices and own records of {count} RegisteredServices are as they should be"));
        all.extend(findings.all);
    }
    all
}

fn named(changes: &Changes) -> String {
    let services = changes.services.iter().map(|change| format!("{} Service {}", change.op, change.name));
    let records = changes.records.iter().map(|change| format!("{} record {}", change.op, change.key));
    let slices = changes.slices.iter().map(|change| format!("{} EndpointSlice {}", change.op, change.name));
    let all: Vec<String> = services.chain(records).chain(slices).collect();
    let more = all.len().saturating_sub(NAMED);
    let mut text = all.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
