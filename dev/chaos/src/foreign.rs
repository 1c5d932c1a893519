//! Foreign changes: writes of Twinspan to what is not its own.
//!
//! Owns the reading of the servers' own logs, which name the author of each request. Refuses to believe Twinspan.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use twinspan_testbed::{Etcd, Request, requests};

use crate::sides::{EPOCHS, History};

const USER: &str = "system:serviceaccount:twinspan-system:twinspan";

/// The findings in the logs.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Foreign changes, in words.
    pub violations: Vec<String>,
    /// Writes of Twinspan that were looked at.
    pub writes: usize,
    /// Writes that compared with a revision that the watch did not see, for it was away then.
    pub unseen: usize,
}

/// Looks at every write of the replicas, whose addresses are these, in the registry and in the cluster.
pub fn look(members: &[Etcd], replicas: &[Ipv4Addr], audit_logs: &[&Path], history: &History) -> Result<Found> {
    let mut found = Found::default();
    for member in members {
        for request in requests(member.part().log())? {
            let by_us =
                request.remote.rsplit_once(':').is_some_and(|(ip, _)| replicas.iter().any(|r| ip == r.to_string()));
            if by_us {
                found.request(&request, history);
            }
        }
    }
    for log in audit_logs {
        let text = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
        let text = String::from_utf8_lossy(&text);
        // The last line may be incomplete.
        for event in text.lines().filter(|l| l.contains(USER)).filter_map(|l| serde_json::from_str::<Value>(l).ok()) {
            found.audited(&event, history);
        }
    }
    Ok(found)
}

impl Found {
    /// A write to a key has to compare that key, with absence or with a revision at which it was Twinspan's.
    fn request(&mut self, request: &Request, history: &History) {
        if request.kind != "Txn" {
            self.violations.push(format!("a {} without a transaction: {}", request.kind, request.content));
            return;
        }
        let compared = compares(&request.content);
        for key in written(&request.content).into_iter().filter(|key| !key.starts_with(EPOCHS)) {
            self.writes += 1;
            let violation = match compared.get(&key) {
                None => Some("no compare of the key"),
                Some(None) => None,
                Some(Some(revision)) => match history.keys.get(&(key.clone(), *revision)) {
                    Some((true, _)) => None,
                    Some((false, _)) => Some("the record was somebody else's"),
                    None => {
                        self.unseen += 1;
                        None
                    }
                },
            };
            if let Some(why) = violation {
                self.violations.push(format!("{key}: {why}: {}", request.content));
            }
        }
    }

    fn audited(&mut self, event: &Value, history: &History) {
        let writes = ["create", "update", "patch", "delete", "deletecollection"];
        let accepted = event["responseStatus"]["code"].as_u64().is_some_and(|code| (200..300).contains(&code));
        let verb = event["verb"].as_str().unwrap_or_default();
        if event["user"]["username"] != USER || !accepted || !writes.contains(&verb) {
            return;
        }
        self.writes += 1;
        let object = &event["objectRef"];
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (resource, name) = (text("resource"), text("name"));
        let foreign = match (resource, text("subresource")) {
            // A new slice touches nothing. One that was never seen came and went between two lists.
            ("endpointslices", "") => {
                verb != "create" && history.slices.get(name).is_some_and(|m| !m.contains("twinspan.dev"))
            }
            ("registeredservices" | "serviceregistries", "status") | ("events", "") => false,
            ("leases", "") => text("namespace") != "twinspan-system",
            _ => true,
        };
        if foreign {
            self.violations.push(format!("{verb} of {resource} {name}"));
        }
    }
}

/// The keys that a transaction compares: with a revision, or with absence.
fn compares(content: &str) -> BTreeMap<String, Option<i64>> {
    let mut found = BTreeMap::new();
    for compare in content.split("compare:<").skip(1) {
        let compare = compare.split(" > ").next().unwrap_or_default();
        let Some(key) = quoted(compare, "key:") else { continue };
        let number = |field: &str| {
            let rest = compare.split(field).nth(1)?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<i64>().ok()
        };
        let revision = number("mod_revision:").or_else(|| number("create_revision:")).filter(|revision| *revision > 0);
        let by_revision = ["target:MOD", "target:CREATE", "target:VERSION"].iter().any(|t| compare.contains(t));
        if by_revision {
            found.insert(key, revision);
        }
    }
    found
}

/// The keys that a transaction puts or deletes.
fn written(content: &str) -> Vec<String> {
    ["request_put:<", "request_delete_range:<"]
        .iter()
        .flat_map(|op| content.split(op).skip(1))
        .filter_map(|rest| quoted(rest, "key:"))
        .collect()
}

fn quoted(text: &str, field: &str) -> Option<String> {
    let rest = text.split(field).nth(1)?.strip_prefix('"')?;
    Some(rest.split('"').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    const KEY: &str = "kitex/registry-etcd/user/10.77.3.1:9000";

    /// A batch as etcd v3.7 logs it: the epoch outside, and one transaction inside for each key.
    fn batch(compare: &str, operation: &str) -> Request {
        let content = format!(
            "compare:<target:VALUE key:\"twinspan/c/main\" value_size:21 > success:<request_txn:<{compare}\
             success:<{operation}:<key:\"{KEY}\" value_size:135 lease:4545 >> failure:<request_range:{{key:\"{KEY}\"}}>>> failure:<>"
        );
        Request { kind: "Txn".to_owned(), remote: "10.77.1.10:60490".to_owned(), content }
    }

    fn compare(revision: i64) -> String {
        format!("compare:<target:MOD  key:\"{KEY}\"  mod_revision:{revision}> ")
    }

    /// Revision 7 was Twinspan's, 8 was somebody else's.
    fn found(request: &Request) -> Found {
        let at = |revision| (KEY.to_owned(), revision);
        let keys = BTreeMap::from([(at(7), (true, false)), (at(8), (false, true))]);
        let mut found = Found::default();
        found.request(request, &History { keys, ..History::default() });
        found
    }

    #[test]
    fn own_and_absent_records_may_be_written() {
        for revision in [0, 7] {
            let found = found(&batch(&compare(revision), "request_put"));
            assert_eq!((found.violations.len(), found.writes, found.unseen), (0, 1, 0), "{revision}");
        }
        assert_eq!(found(&batch(&compare(99), "request_delete_range")).unseen, 1);
    }

    #[test]
    fn the_record_of_somebody_else_may_not_be_written() {
        for operation in ["request_put", "request_delete_range"] {
            assert_eq!(found(&batch(&compare(8), operation)).violations.len(), 1, "{operation}");
            assert_eq!(found(&batch("compare:<> ", operation)).violations.len(), 1, "{operation}");
        }
        let put = Request { kind: "Put".to_owned(), ..batch(&compare(7), "request_put") };
        assert_eq!(found(&put).violations.len(), 1);
    }

    #[test]
    fn only_own_objects_of_the_cluster_may_be_written() {
        let manager = |name: &str| BTreeSet::from([name.to_owned()]);
        let slices = BTreeMap::from([
            ("own".to_owned(), manager("twinspan.dev")),
            ("bystander".to_owned(), manager("somebody-else.example")),
        ]);
        let history = History { slices, ..History::default() };
        let violations = |verb: &str, resource: &str, name: &str, code: u64| {
            let mut found = Found::default();
            let object = json!({"resource": resource, "name": name, "namespace": "shop"});
            let event = json!({"verb": verb, "objectRef": object, "user": {"username": USER}, "responseStatus": {"code": code}});
            found.audited(&event, &history);
            found.violations.len()
        };
        assert_eq!(violations("update", "endpointslices", "own", 200), 0);
        assert_eq!(violations("update", "endpointslices", "bystander", 200), 1);
        assert_eq!(violations("update", "endpointslices", "bystander", 403), 0);
        assert_eq!(violations("delete", "services", "user", 200), 1);
        assert_eq!(violations("get", "services", "user", 200), 0);
        assert_eq!(violations("update", "leases", "other", 200), 1);
    }
}
