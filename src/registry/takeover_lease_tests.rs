//! The Lease while an epoch is taken over.

use serde_json::json;

use super::*;
use crate::cluster::fake_api::FakeApi;

/// A replica that reads the Lease from this API server.
fn replica_of(api: &FakeApi, server: &FakeEtcd) -> Replica {
    replica_with(server, Leadership::none(), LeaseHistory::new(api.client(), "ns", "a"))
}

fn set_holder(api: &FakeApi, holder: &str) {
    let lease = json!({"metadata": {"name": "twinspan", "namespace": "ns"}, "spec": {"holderIdentity": holder}});
    api.put("/apis/coordination.k8s.io/v1/namespaces/ns/leases/twinspan", lease);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_ends_while_the_lease_is_read_raises_no_epoch() {
    let (server, api) = (FakeEtcd::new(), FakeApi::default());
    set_holder(&api, "a");
    api.delay(Duration::from_secs(2));
    let a = replica_of(&api, &server);
    tokio::time::sleep(Duration::from_secs(5)).await;
    a.lead();
    tokio::time::sleep(Duration::from_secs(1)).await;
    a.leadership.lost();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(server.records().is_empty(), "{:?}", server.records());
    a.lead();
    a.holds_epoch("1/a").await;
    a.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_missing_incarnation_is_not_created_while_the_lease_names_another_holder() {
    let (server, api) = (FakeEtcd::new(), FakeApi::default());
    set_holder(&api, "a");
    let a = replica_of(&api, &server);
    a.lead();
    a.holds_epoch("1/a").await;
    set_holder(&api, "b");
    server.delete(&[INCARNATION]);
    let before = server.records();
    server.cut();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(server.records(), before);
    set_holder(&api, "a");
    server.cut();
    a.until("created again", |fence| fence.is_ok() && text_of(&server, INCARNATION).is_some()).await;
    a.stop.cancel();
}

/// etcd is away as the Lease changes hands, and for longer than the Lease explains a holder by itself.
#[tokio::test(start_paused = true)]
async fn the_epoch_of_the_holder_before_us_is_explained_however_long_etcd_is_away() {
    let (server, api) = (FakeEtcd::new(), FakeApi::default());
    server.put(KEY, "4/b", LeaseId::NONE);
    set_holder(&api, "b");
    let a = replica_of(&api, &server);
    let b_leads = a.lease_history.confirm().await;
    assert!(matches!(b_leads, Ok(false)), "{b_leads:?}");
    server.set_faults(Faults { away: true, ..Faults::default() });
    set_holder(&api, "a");
    a.lead();
    tokio::time::sleep(Duration::from_secs(60)).await;
    server.set_faults(Faults::default());
    a.holds_epoch("5/a").await;
    let fence = a.handle.fence.as_ref().unwrap();
    assert_eq!(fence.orphan_grace_until(), None);
    // Nobody had the Lease since: a higher epoch under the same name is that of a clone.
    server.put(KEY, "6/b", LeaseId::NONE);
    assert_eq!(a.write("10.0.0.1:80").await, Some(RegistryError::Fenced));
    a.until("refused", |fence| matches!(fence, Err(RegistryError::ClusterIdInUse { .. }))).await;
    a.stop.cancel();
}
