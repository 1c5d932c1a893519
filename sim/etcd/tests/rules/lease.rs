//! Leases: grants, renewals, expiry.

use std::time::Duration;

use etcd_client::{LeaseGrantOptions, LeaseTimeToLiveOptions};
use tokio::time::{advance, sleep};
use tonic::Code;

use crate::{client, one, refusal, three};

const S: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_lease_is_granted_once_and_for_two_seconds_at_least() {
    let etcd = one();
    let client = client(&etcd, 0).await;
    let seven = || Some(LeaseGrantOptions::new().with_id(7));
    assert_eq!(client.lease_client().grant(1, seven()).await.expect("granted").ttl(), 2);
    let exists = (Code::FailedPrecondition, "etcdserver: lease already exists".to_owned());
    assert_eq!(refusal(client.lease_client().grant(1, seven()).await), exists);
    let chosen = client.lease_client().grant(60, None).await.expect("granted");
    assert!(chosen.id() > 0 && etcd.leases().contains_key(&chosen.id()));
    let all: Vec<i64> =
        client.lease_client().leases().await.expect("leases").leases().iter().map(|lease| lease.id()).collect();
    assert_eq!(all, [7, chosen.id()], "the first to expire first");
}

#[tokio::test(start_paused = true)]
async fn each_lease_expires_at_a_revision_of_its_own() {
    let etcd = one();
    for (id, key) in [(1, "a"), (2, "b"), (3, "none")] {
        etcd.grant(id, 10).expect("granted");
        if key != "none" {
            etcd.put("kitex", key, "", id).expect("put");
        }
    }
    etcd.put("kitex", "c", "", 1).expect("put");
    sleep(Duration::from_millis(9_999)).await;
    assert_eq!(etcd.records().len(), 3);
    sleep(Duration::from_millis(2)).await;
    assert!(etcd.records().is_empty() && etcd.leases().is_empty());
    let gone: Vec<_> = etcd.changes(3).into_iter().map(|c| (c.revision, c.key, c.expired_lease, c.time)).collect();
    let expected = [(5, "a", 1), (5, "c", 1), (6, "b", 2)];
    assert_eq!(gone, expected.map(|(revision, key, lease)| (revision, key.into(), Some(lease), 10 * S)));
}

#[tokio::test(start_paused = true)]
async fn keepalives_are_answered_with_the_ttl_and_zero_once_it_is_gone() {
    let etcd = one();
    etcd.grant(7, 10).expect("granted");
    let client = client(&etcd, 0).await;
    let (mut keeper, mut answers) = client.lease_client().keep_alive(7).await.expect("a stream");
    for _ in 0..5 {
        sleep(8 * S).await;
        keeper.keep_alive().await.expect("sent");
        let answer = answers.message().await.expect("an answer").expect("the stream is open");
        assert_eq!((answer.id(), answer.ttl()), (7, 10));
    }
    // The lease has expired, and its revocation is due at the next tick: the answer waits for it.
    sleep(Duration::from_millis(10_000) - Duration::from_millis(1)).await;
    advance(Duration::from_millis(1)).await;
    keeper.keep_alive().await.expect("sent");
    assert_eq!(answers.message().await.expect("an answer").expect("open").ttl(), 0);
    assert!(etcd.leases().is_empty());
    assert!(client.lease_client().keep_alive(7).await.is_err(), "the client takes the first answer for a refusal");
}

#[tokio::test(start_paused = true)]
async fn a_keepalive_has_its_effect_though_nobody_reads_the_answer() {
    let etcd = one();
    etcd.grant(7, 10).expect("granted");
    let (mut keeper, answers) = client(&etcd, 0).await.lease_client().keep_alive(7).await.expect("a stream");
    sleep(9 * S).await;
    keeper.keep_alive().await.expect("sent");
    sleep(S).await;
    assert_eq!(etcd.leases()[&7].remaining, 9 * S);
    drop(answers);
}

#[tokio::test(start_paused = true)]
async fn time_to_live_tells_keys_if_asked() {
    let etcd = one();
    etcd.grant(7, 10).expect("granted");
    etcd.put("test", "a", "", 7).expect("put");
    let client = client(&etcd, 0).await;
    sleep(Duration::from_millis(2_500)).await;
    let seen = client
        .lease_client()
        .time_to_live(7, Some(LeaseTimeToLiveOptions::new().with_keys()))
        .await
        .expect("an answer");
    assert_eq!((seen.ttl(), seen.granted_ttl(), seen.keys()), (7, 10, &[b"a".to_vec()][..]));
    let none = client.lease_client().time_to_live(8, None).await.expect("an answer");
    assert_eq!((none.id(), none.ttl(), none.granted_ttl()), (8, -1, 0));
    assert_eq!(refusal(client.lease_client().revoke(8).await).0, Code::NotFound);
    let header = client.lease_client().revoke(7).await.expect("revoked").take_header().expect("a header");
    assert_eq!(header.revision(), 3);
    assert!(etcd.records().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_prolongs_every_lease() {
    let etcd = three();
    etcd.grant(7, 10).expect("granted");
    sleep(9 * S).await;
    etcd.move_leader();
    assert_eq!(etcd.leader(), Some(1));
    assert_eq!(etcd.leases()[&7].remaining, 11 * S);
    sleep(10 * S).await;
    assert!(etcd.leases().contains_key(&7));
    sleep(2 * S).await;
    assert!(etcd.leases().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_expires_without_a_leader() {
    let etcd = three();
    etcd.grant(7, 10).expect("granted");
    etcd.set_no_leader(true);
    sleep(60 * S).await;
    assert!(etcd.leases().contains_key(&7));
    etcd.set_no_leader(false);
    assert_eq!(etcd.leases()[&7].remaining, 11 * S);
}

#[tokio::test(start_paused = true)]
async fn a_full_database_grants_nothing() {
    let etcd = one();
    etcd.put("test", "a", "", 0).expect("put");
    etcd.set_quota_full(true);
    let mut client = client(&etcd, 0).await;
    let full = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded".to_owned());
    assert_eq!(refusal(client.lease_client().grant(60, None).await), full);
    assert_eq!(refusal(client.put("b", "", None).await), full);
    assert!(client.delete("a", None).await.is_ok());
    etcd.set_quota_full(false);
    assert!(client.put("b", "", None).await.is_ok());
}
