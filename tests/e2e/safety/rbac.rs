//! Twinspan's roles: they grant exactly the requests that it makes. After a whole run, the audit logs of every API
//! server are compared with the roles.
//!
//! The comparison is not a story, because it judges all of them. A verb that no story used is a needless grant or a
//! missing story; a request that was denied is a missing grant.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;
use twinspan::tools::doctor::{Grant, Place, granted, granted_to_discover, granted_to_open_gates};
use twinspan_testbed::OPERATOR_NAMESPACE;

use crate::harness::{Suite, stories};

stories![the_comparison_finds_what_is_planted];

/// The API server itself. It reads its roles from the beginning only once, when it starts.
const API_SERVER: &str = "system:apiserver";
/// For how long before and after that start it may deny granted requests.
const STARTING: SignedDuration = SignedDuration::from_secs(15);

/// A request in the audit log.
#[derive(Debug, Deserialize)]
struct Event {
    verb: String,
    user: User,
    #[serde(rename = "objectRef", default)]
    object: Object,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(rename = "requestURI", default)]
    uri: String,
    #[serde(rename = "requestReceivedTimestamp")]
    at: Timestamp,
}

#[derive(Debug, Deserialize)]
struct User {
    username: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Object {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

impl Event {
    fn resource(&self) -> String {
        match self.object.subresource.as_str() {
            "" => self.object.resource.clone(),
            sub => format!("{}/{sub}", self.object.resource),
        }
    }

    fn begins_to_read_roles(&self) -> bool {
        self.user.username == API_SERVER
            && self.verb == "watch"
            && self.object.resource == "clusterroles"
            && self.uri.contains("sendInitialEvents=true")
    }

    fn uses(&self, grant: &Grant) -> bool {
        self.verb == grant.verb
            && self.object.api_group == grant.group
            && self.resource() == grant.resource
            && (grant.place == Place::Cluster || self.object.namespace == OPERATOR_NAMESPACE)
            && (grant.name.is_empty() || grant.name == self.object.name)
    }
}

/// Compares the roles with the audit logs under a directory; returns the number of grants and of requests.
pub fn exactly_sufficient(dir: &Path) -> Result<(usize, usize)> {
    // A unit test keeps these lists equal to the roles of the manifests.
    let (granted, to_discover) = (granted(), granted_to_discover());
    let to_open_gates = granted_to_open_gates();
    let (mut unused, mut unused_to_discover) = (granted.clone(), to_discover.clone());
    let mut opens_gates = false;
    let mut denied = BTreeSet::new();
    let mut requests = 0;
    let us = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:twinspan");
    for log in audit_logs(dir)? {
        let mut forbidden = Vec::new();
        let mut starts = Vec::new();
        for line in BufReader::new(std::fs::File::open(&log)?).lines() {
            // The last line of an API server that was killed may be cut off.
            let Ok(event) = serde_json::from_str::<Event>(&line?) else { continue };
            let forbids = event.annotations.get("authorization.k8s.io/decision").is_some_and(|d| d == "forbid");
            if event.begins_to_read_roles() {
                starts.push(event.at);
            }
            if event.user.username != us || event.object.resource.is_empty() {
                continue;
            }
            requests += 1;
            unused.retain(|grant| !event.uses(grant));
            unused_to_discover.retain(|grant| !event.uses(grant));
            opens_gates |= event.uses(&to_open_gates);
            if forbids {
                forbidden.push(event);
            }
        }
        // An API server that has just started knows no roles yet and denies every request.
        forbidden.retain(|event| !starts.iter().any(|at| event.at.duration_since(*at).abs() < STARTING));
        denied.extend(forbidden.iter().map(|e| format!("{} {} {}", e.verb, e.object.api_group, e.resource())));
    }
    ensure!(denied.is_empty(), "requests that were denied: {denied:#?}");
    // A run without a story of discovery uses none of its grants.
    if unused_to_discover.len() < to_discover.len() {
        unused.append(&mut unused_to_discover);
    }
    // A verb alone is used, or its whole manifest is not applied.
    let gates = usize::from(opens_gates);
    ensure!(unused.is_empty(), "granted, and used by no story: {unused:#?}");
    Ok((granted.len() + to_discover.len() + gates, requests))
}

fn audit_logs(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(audit_logs(&path)?);
        } else if path.file_name().is_some_and(|name| name == "audit.log") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Without a request every grant is unused. A denial is found, unless the API server was just starting.
async fn the_comparison_finds_what_is_planted(suite: Arc<Suite>) -> Result<()> {
    let dir = suite.dir().join("planted");
    std::fs::create_dir_all(&dir)?;
    let write = |starts: &[&str]| {
        let us = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:twinspan");
        let denied = json!({
            "verb": "list", "user": {"username": us}, "objectRef": {"resource": "pods"},
            "annotations": {"authorization.k8s.io/decision": "forbid"}, "requestReceivedTimestamp": "2026-01-01T00:00:30Z",
        });
        let start = |at: &&str| {
            json!({
                "verb": "watch", "user": {"username": API_SERVER}, "objectRef": {"resource": "clusterroles"},
                "requestURI": "/apis/rbac.authorization.k8s.io/v1/clusterroles?sendInitialEvents=true", "requestReceivedTimestamp": at,
            })
        };
        let lines: Vec<String> = starts.iter().map(start).chain([denied]).map(|event| event.to_string()).collect();
        std::fs::write(dir.join("audit.log"), lines.join("\n"))
    };
    let verdict = || exactly_sufficient(&dir).err().map(|error| error.to_string()).unwrap_or_default();
    write(&[])?;
    let denied = verdict();
    write(&["2026-01-01T00:00:01Z"])?;
    let later = verdict();
    write(&["2026-01-01T00:00:01Z", "2026-01-01T00:00:31Z"])?;
    let starting = verdict();
    let us = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:twinspan");
    let makes = json!({
        "verb": "create", "user": {"username": us}, "requestReceivedTimestamp": "2026-01-01T00:00:30Z",
        "objectRef": {"apiGroup": "twinspan.dev", "resource": "registeredservices"},
    });
    std::fs::write(dir.join("audit.log"), makes.to_string())?;
    let discovering = verdict();
    std::fs::remove_dir_all(&dir)?;
    for denied in [denied, later] {
        ensure!(denied.contains("denied") && denied.contains("list  pods"), "{denied}");
    }
    ensure!(starting.contains("used by no story") && starting.contains("secrets"), "{starting}");
    let of_discovery = |verdict: &str| {
        let rest = verdict.split("resource: \"registeredservices\",").skip(1).map(|grant| grant.split('}').next());
        rest.flatten().filter_map(|grant| grant.split("verb: ").nth(1)).filter(|verb| verb.contains("update")).count()
    };
    ensure!((of_discovery(&starting), of_discovery(&discovering)) == (0, 1), "{discovering}");
    Ok(())
}
