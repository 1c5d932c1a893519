//! The other clusters that write into the same etcd, by the epochs of their leaders beside ours.
//!
//! Owns which keys are epochs, and how many are looked at: whoever may write there may write any key. A user that may
//! not read them costs nothing. An epoch is on no lease, so that a cluster that left is named until somebody deletes
//! its epoch. Refuses to know when a leader takes over and when an audit is due, and to believe that a named cluster is
//! one.

use std::collections::BTreeSet;
use std::convert::Infallible;

use tracing::debug;
use twinspan_core::model::RecordKey;

use super::handle::RegistryHandle;
use super::{Registry, RegistryError};

/// The most clusters that are named.
const MOST: usize = 16;
/// The most keys that are looked at: each cluster has one for each ServiceRegistry, and one of its incarnation.
const KEYS: usize = 1000;
/// The longest ID of a cluster.
const ID: usize = 63;

/// Looks whenever it is asked for; never ends.
pub(super) async fn follow(handle: &RegistryHandle) -> Infallible {
    loop {
        handle.neighbours.wanted().await;
        if let Ok(registry) = handle.connection() {
            find(handle, registry.as_ref()).await;
        }
    }
}

/// Looks once.
pub(super) async fn find(handle: &RegistryHandle, registry: &dyn Registry) {
    let Some(fence) = &handle.fence else { return };
    let changed = match registry.keys(fence.place(), KEYS).await {
        Ok(keys) => handle.neighbours.set(others(&keys, fence.place(), &handle.cluster_id)),
        Err(error) => {
            debug!(registry = handle.name, %error, "cannot look for other clusters; the next audit will");
            matches!(error, RegistryError::PermissionDenied(_)) && handle.neighbours.set(Vec::new())
        }
    };
    if changed {
        handle.report();
    }
}

/// The clusters of the keys, but for ours.
fn others(keys: &[RecordKey], place: &str, ours: &str) -> Vec<String> {
    let found: BTreeSet<&str> = keys.iter().filter_map(|key| cluster(key, place)).filter(|id| *id != ours).collect();
    found.into_iter().take(MOST).map(str::to_owned).collect()
}

/// The cluster whose epoch has this key: `<place><cluster ID>/<ServiceRegistry>`. The incarnation of a cluster has an
/// empty name there, and keys of other programs have other forms.
fn cluster<'a>(key: &'a RecordKey, place: &str) -> Option<&'a str> {
    let rest = std::str::from_utf8(key.as_bytes()).ok()?.strip_prefix(place)?;
    let (id, registry) = rest.split_once('/')?;
    let of_id = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let of_name = |byte: u8| of_id(byte) || byte == b'.';
    let is_id = (1..=ID).contains(&id.len()) && id.bytes().all(of_id);
    (is_id && !registry.is_empty() && registry.bytes().all(of_name)).then_some(id)
}

#[cfg(test)]
#[path = "neighbours_tests.rs"]
mod of_a_registry;
#[cfg(test)]
mod tests {
    use super::*;

    fn found(keys: &[String]) -> Vec<String> {
        let keys: Vec<RecordKey> = keys.iter().map(|key| key.as_str().into()).collect();
        others(&keys, "twinspan/", "c1")
    }

    #[test]
    fn others_are_named_by_their_epochs_once_and_in_order() {
        let keys = ["twinspan/c3/main", "twinspan/c1/main", "twinspan/c2/main", "twinspan/c2/a.b-c"];
        assert_eq!(found(&keys.map(str::to_owned)), ["c2", "c3"]);
    }

    #[test]
    fn what_is_no_epoch_names_nobody() {
        let long = "a".repeat(64);
        let keys = [
            "twinspan/c2//incarnation",
            "twinspan/c2",
            "twinspan/c2/",
            "twinspan//main",
            "twinspan/C2/main",
            "twinspan/c 2/main",
            "twinspan/c\u{202e}2/main",
            "twinspan/records/echo/10.0.0.1:80",
            "twinspan/c2/Main",
            "elsewhere/c2/main",
            &format!("twinspan/{long}/main"),
        ];
        assert_eq!(found(&keys.map(str::to_owned)), [""; 0]);
        assert_eq!(cluster(&RecordKey::new(*b"twinspan/c\xff/main"), "twinspan/"), None);
    }

    #[test]
    fn whoever_writes_many_names_fills_no_status() {
        let keys: Vec<String> = (0..100).map(|n| format!("twinspan/c-{n:03}/main")).collect();
        let found = found(&keys);
        assert_eq!((found.len(), found[15].as_str()), (16, "c-015"));
    }
}
