//! Snapshots, restores, and a cluster that lost everything.

use std::time::Duration;

use etcd_client::GetOptions;
use sim_etcd::Restore;
use tokio::time::sleep;
use tonic::Code;

use crate::{client, one, refusal};

const S: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_restore_goes_back_and_breaks_streams() {
    let etcd = one();
    let mut client = client(&etcd, 0).await;
    etcd.grant(7, 10).expect("granted");
    etcd.put("test", "a", "1", 7).expect("put");
    let snapshot = etcd.snapshot();
    etcd.put("test", "a", "2", 7).expect("put");
    etcd.put("test", "b", "", 0).expect("put");
    let mut stream = client.watch("a", None).await.expect("a stream");
    stream.message().await.expect("created");
    sleep(8 * S).await;
    let cluster = etcd.cluster_id();
    etcd.restore(snapshot, Restore::default());
    assert_eq!(refusal(stream.message().await).0, Code::Unavailable);
    let answer = client.get("a", None).await.expect("get");
    assert_eq!((answer.kvs()[0].value(), answer.header().expect("a header").revision()), (&b"1"[..], 2));
    assert_eq!(answer.header().expect("a header").cluster_id(), cluster);
    assert!(etcd.leases()[&7].remaining >= 10 * S, "a lease lives for another TTL");
    assert_eq!(etcd.put("test", "c", "", 0), Ok(3));
    let incarnations: Vec<(u32, i64)> = etcd.history().iter().map(|c| (c.incarnation, c.revision)).collect();
    assert_eq!(incarnations, [(0, 2), (0, 3), (0, 4), (1, 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_restore_can_bump_the_revision() {
    let etcd = one();
    etcd.put("test", "a", "1", 0).expect("put");
    let (snapshot, cluster) = (etcd.snapshot(), etcd.cluster_id());
    etcd.restore(snapshot, Restore { new_cluster_id: true, bump_revision: Some(1_000) });
    assert_ne!(etcd.cluster_id(), cluster);
    let mut client = client(&etcd, 0).await;
    let answer = client.get("a", None).await.expect("get");
    assert_eq!((answer.header().expect("a header").revision(), answer.kvs()[0].mod_revision()), (1_002, 2));
    let old = client.get("a", Some(GetOptions::new().with_revision(1_001))).await;
    assert_eq!(refusal(old).1, "etcdserver: mvcc: required revision has been compacted");
}

#[tokio::test(start_paused = true)]
async fn an_emptied_cluster_begins_at_revision_one() {
    let etcd = one();
    etcd.grant(7, 10).expect("granted");
    etcd.put("test", "a", "1", 7).expect("put");
    let cluster = etcd.cluster_id();
    etcd.empty(false);
    assert_eq!((etcd.revision(), etcd.records().len(), etcd.leases().len()), (1, 0, 0));
    assert_eq!((etcd.cluster_id(), etcd.incarnation()), (cluster, 1));
    etcd.empty(true);
    assert_ne!(etcd.cluster_id(), cluster);
    assert_eq!(etcd.put("test", "a", "1", 0), Ok(2));
}
