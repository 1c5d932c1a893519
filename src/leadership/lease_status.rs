//! Who leads, from outside: in our own namespace, for people who ask, and in another one, where another release runs.
//!
//! Two releases hold two Leases and would both write. The fence of each registry keeps them apart there, and nothing does in the API
//! server, so the one that comes second does not start.

use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::timeout;
use twinspan_core::Timestamp;

use super::lease_history::{CALL, LeaseReadError};
use super::{LEASE, LEASE_DURATION};

/// The namespace of another release that renewed its Lease lately.
///
/// # Errors
/// Why the Leases could not be read.
pub async fn another_release(
    client: Client,
    namespace: &str,
    now: Timestamp,
) -> Result<Option<String>, LeaseReadError> {
    let leases: Api<Lease> = Api::all(client);
    let ours = ListParams::default().fields(&format!("metadata.name={LEASE}"));
    let found = timeout(CALL, leases.list(&ours)).await.map_err(|_| LeaseReadError::Timeout)??;
    let others = found.items.into_iter().filter(|lease| lease.metadata.namespace.as_deref() != Some(namespace));
    Ok(others.filter(|lease| held(lease, now)).find_map(|lease| lease.metadata.namespace))
}

/// Who leads in a namespace now; `None` where nobody does.
///
/// # Errors
/// Why the Lease could not be read.
pub async fn leader(client: &Client, namespace: &str, now: Timestamp) -> kube::Result<Option<String>> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease = leases.get_opt(LEASE).await?.filter(|lease| held(lease, now));
    Ok(lease.and_then(|lease| lease.spec?.holder_identity))
}

/// A Lease that was given back has no holder, and one whose holder ended is not renewed. Twice its duration allows for clocks that differ.
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
    fn held_is_what_somebody_renewed_lately() {
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
        assert!(!held(&lease("", 3), now), "given back");
        assert!(!held(&lease("a", 31), now), "not renewed");
        assert!(!held(&Lease::default(), now));
    }
}
