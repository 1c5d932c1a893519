//! Requests to the API server, read from its audit log.
//!
//! Owns the reading of the log, and the check that no request was denied. Refuses to know the roles.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::Value;
use twinspan_testbed::Bed;

/// Every request of Twinspan's ServiceAccount in the audit log.
pub fn audited(bed: &Bed) -> Result<Vec<Value>> {
    audited_as(bed, "system:serviceaccount:twinspan-system:twinspan")
}

/// Every request of a user in the audit log.
pub fn audited_as(bed: &Bed, user: &str) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(&bed.cluster.audit_log)?;
    let lines = text.lines().filter(|line| line.contains(user));
    // The last line may be incomplete.
    let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(events.filter(|event| event["user"]["username"] == user).collect())
}

/// No request of Twinspan was denied, and none was about `Endpoints`.
pub fn no_denied_requests(bed: &Bed) -> Result<()> {
    let asked = audited(bed)?;
    let endpoints = asked.iter().find(|event| event["objectRef"]["resource"] == "endpoints");
    ensure!(endpoints.is_none(), "Twinspan asked for Endpoints: {endpoints:?}");
    nothing_is_denied(&asked)
}

/// An API server that has just started denies every request until it has read the roles, so a denial does not count if
/// the same request was granted at another time.
pub fn nothing_is_denied(asked: &[Value]) -> Result<()> {
    let (mut granted, mut denied) = (BTreeSet::new(), BTreeSet::new());
    for event in asked {
        let object = &event["objectRef"];
        let what = format!("{} {}/{}", event["verb"], object["resource"], object["subresource"]);
        if event["responseStatus"]["code"] == 403 {
            denied.insert(what)
        } else {
            granted.insert(what)
        };
    }
    ensure!(!granted.is_empty(), "the audit log shows what was asked for");
    let never: Vec<_> = denied.difference(&granted).collect();
    ensure!(never.is_empty(), "denied: {never:?}");
    Ok(())
}
