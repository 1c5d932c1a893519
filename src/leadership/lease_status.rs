//! The status of Leases that this process does not hold.
//!
//! Owns the reads that tell who leads (for the CLI), and whether a second release runs. Two releases hold two Leases
//! and would both write. The fence of each registry keeps them apart there, but nothing does in the API server, so the
//! second release does not start. Refuses to take part in the election.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::timeout;
use twinspan_core::Timestamp;

use super::lease_history::LeaseReadError;
use super::{LEASE, LEASE_CALL, LEASE_DURATION, REGISTRIES_ANNOTATION, VERSION_ANNOTATION};

/// The state of a Lease, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The present leader; `None` if there is none.
    pub leader: Option<String>,
    /// The version of the last holder; `None` if it did not tell.
    pub version: Option<String>,
}

/// The namespace of another release that renewed its Lease recently and serves one of these ServiceRegistries; none
/// means all of them.
///
/// # Errors
/// The Leases could not be read.
pub async fn another_release(
    client: Client,
    namespace: &str,
    registries: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Option<String>, LeaseReadError> {
    let leases: Api<Lease> = Api::all(client);
    let ours = ListParams::default().fields(&format!("metadata.name={LEASE}"));
    let found = timeout(LEASE_CALL, leases.list(&ours)).await.map_err(|_| LeaseReadError::Timeout)??;
    let others = found.items.into_iter().filter(|lease| lease.metadata.namespace.as_deref() != Some(namespace));
    let mut rivals = others.filter(|lease| held(lease, now) && shares(lease, registries));
    Ok(rivals.find_map(|lease| lease.metadata.namespace))
}

/// Whether the holder of a Lease serves one of these ServiceRegistries.
fn shares(lease: &Lease, registries: &BTreeSet<String>) -> bool {
    let named = lease.metadata.annotations.as_ref().and_then(|all| all.get(REGISTRIES_ANNOTATION));
    let Some(named) = named.filter(|_| !registries.is_empty()) else { return true };
    named.split(',').any(|name| registries.contains(name))
}

/// The present leader in a namespace, if there is one.
///
/// # Errors
/// The Lease could not be read.
pub async fn leader(client: &Client, namespace: &str, now: Timestamp) -> kube::Result<Option<String>> {
    Ok(holder(client, namespace, now).await?.and_then(|holder| holder.leader))
}

/// The state of the Lease in a namespace, if there is one.
///
/// # Errors
/// The Lease could not be read.
pub async fn holder(client: &Client, namespace: &str, now: Timestamp) -> kube::Result<Option<Holder>> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let Some(lease) = leases.get_opt(LEASE).await? else { return Ok(None) };
    let version = lease.metadata.annotations.as_ref().and_then(|all| all.get(VERSION_ANNOTATION)).cloned();
    let leader = if held(&lease, now) { lease.spec.and_then(|spec| spec.holder_identity) } else { None };
    Ok(Some(Holder { leader, version }))
}

/// True if the Lease has a holder that renewed it recently. Twice the duration allows for clocks that differ.
fn held(lease: &Lease, now: Timestamp) -> bool {
    let Some(spec) = &lease.spec else { return false };
    let holder = spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty());
    let lately = |renewed: Timestamp| {
        let duration = SignedDuration::try_from(2 * LEASE_DURATION).unwrap_or(SignedDuration::ZERO);
        now.duration_since(renewed).abs() < duration
    };
    holder && spec.renew_time.as_ref().is_some_and(|renewed| lately(renewed.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_share_what_both_serve() {
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<String>>();
        let lease = |named: Option<&str>| -> Lease {
            let mut lease = Lease::default();
            lease.metadata.annotations = named.map(|named| [(REGISTRIES_ANNOTATION.into(), named.into())].into());
            lease
        };
        assert!(shares(&lease(None), &set(&[])) && shares(&lease(None), &set(&["a"])), "one that serves all");
        assert!(shares(&lease(Some("a,b")), &set(&[])), "we serve all");
        assert!(shares(&lease(Some("a,b")), &set(&["b", "c"])));
        assert!(!shares(&lease(Some("a,b")), &set(&["c"])));
    }

    #[test]
    fn a_lease_is_held_if_its_holder_renewed_it_recently() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let lease = |holder: &str, ago: i64| -> Lease {
            let renewed = Timestamp::from_second(1_000_000 - ago).unwrap();
            serde_json::from_value(serde_json::json!({
                "spec": {"holderIdentity": holder, "renewTime": format!("{renewed:.6}")}
            }))
            .unwrap()
        };
        assert!(held(&lease("a", 3), now));
        assert!(held(&lease("a", -20), now), "its clock is ahead");
        assert!(!held(&lease("", 3), now), "released");
        assert!(!held(&lease("a", 31), now), "not renewed");
        assert!(!held(&Lease::default(), now));
    }
}
