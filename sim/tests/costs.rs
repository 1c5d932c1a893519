//! The requests that one change costs, in a world of several services that is at rest otherwise.
//!
//! Owns the changes, and the comparison with the table in `docs/performance.md`. Refuses to measure time: a count is
//! the same on every machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use twinspan_sim::plan::{Op, Size};
use twinspan_sim::run::{begin, stage};
use twinspan_sim::world::World;

const SIZE: Size = Size { replicas: 1, services: 6, vms: 12, pods: 3, ..Size::SCENE };
/// Statuses and Events follow what they tell of.
const REST: Duration = Duration::from_secs(90);
/// The rows behind this heading: a change, and the number of requests of each column.
const HEADING: &str = "## Requests of one change";
const COLUMNS: [&str; 5] = ["slices", "transactions", "other calls to etcd", "statuses", "Events"];

/// Requests by column.
type Costs = BTreeMap<&'static str, usize>;

fn changes() -> Vec<(&'static str, Op)> {
    vec![
        ("a server deregisters", Op::VmStop { vm: 0 }),
        ("a server registers", Op::VmStart { vm: 0 }),
        ("a server ends without a word, and its lease expires", Op::VmKill { vm: 1 }),
        ("its successor registers", Op::VmStart { vm: 1 }),
        ("a pod becomes ready", Op::PodAdd { cluster: 0, service: 1 }),
        ("a pod is deleted", Op::PodDelete { pod: 0 }),
        ("three pods are deleted, and three others follow", Op::ScaleToZero { cluster: 0, service: 5, seconds: 20 }),
        ("another client deletes a slice of Twinspan", Op::DeleteSlice { cluster: 0, service: 3 }),
        ("the lease of all own records is revoked", Op::LeaseRevoked { pod: 1 }),
        ("every watch of etcd ends", Op::EtcdWatchesCut),
        ("every watch of the API server ends", Op::ApiWatchesCut { cluster: 0 }),
        ("the replica restarts", Op::Crash { replica: 0, polls: 1, seconds: 20 }),
    ]
}

/// The column of a request; `None` for what a replica sends at rest, too.
fn column(what: &str) -> Option<&'static str> {
    let Some((method, path)) = what.split_once(' ') else {
        return match what.rsplit('/').next() {
            Some("Status" | "LeaseTimeToLive") => None,
            Some("Txn") => Some("transactions"),
            _ => Some("other calls to etcd"),
        };
    };
    let path = path.split('?').next().unwrap_or_default();
    match method {
        // Lists and watches; the Lease.
        "GET" => None,
        _ if path.contains("/leases/") => None,
        _ if path.ends_with("/status") => Some("statuses"),
        _ if path.contains("/events") => Some("Events"),
        _ if path.contains("/endpointslices") => Some("slices"),
        _ => Some("something else"),
    }
}

/// The requests of all replicas but for so many messages.
fn costs(world: &World, before: usize) -> Costs {
    let mut costs: Costs = COLUMNS.map(|column| (column, 0)).into();
    for sent in world.wire.log().iter().skip(before).filter(|sent| sent.by.starts_with("a-")) {
        if let Some(column) = column(&sent.what) {
            *costs.entry(column).or_default() += 1;
        }
    }
    costs
}

/// The row of a change, as the document has it.
fn row(change: &str, costs: &Costs) -> String {
    let numbers: Vec<String> = COLUMNS.iter().map(|column| costs[column].to_string()).collect();
    let unknown = costs.iter().filter(|(column, _)| !COLUMNS.contains(column));
    let unknown: Vec<String> = unknown.map(|(column, number)| format!(" {number} {column} |")).collect();
    format!("| {change} | {} |{}", numbers.join(" | "), unknown.concat())
}

#[test]
fn each_change_costs_as_many_requests_as_documented() {
    let rows = Arc::new(Mutex::new(Vec::new()));
    let found = rows.clone();
    let outcome = stage(1, SIZE, json!({}), false, move |world| async move {
        let violations = begin(&world).await;
        sleep(REST).await;
        for (change, op) in changes() {
            let before = world.wire.log().len();
            world.apply(op, &world.etcd.snapshot());
            sleep(REST).await;
            found.lock().unwrap().push(row(change, &costs(&world, before)));
        }
        violations
    });
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
    let rows = rows.lock().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (_, table) = document.split_once(HEADING).unwrap();
    let below = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let documented: Vec<&str> = below.take_while(|line| line.starts_with('|')).collect();
    assert_eq!(*rows, documented, "the table should be:\n{}", rows.join("\n"));
}
