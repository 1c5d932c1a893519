//! Members that are down, frozen, late or removed.

use std::time::Duration;

use etcd_client::{ConnectOptions, GetOptions, WatchOptions};
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::{client, connect, is_silent, one, refusal, three};

const S: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_member_that_is_down_refuses_and_breaks_its_streams() {
    let etcd = three();
    let mut client = client(&etcd, 2).await;
    let mut stream = client.watch("a", None).await.expect("a stream");
    stream.message().await.expect("created");
    let (mut keeper, mut answers) = {
        etcd.grant(7, 60).expect("granted");
        client.lease_client().keep_alive(7).await.expect("a stream")
    };
    etcd.set_down(2, true);
    assert_eq!(refusal(stream.message().await).0, Code::Unavailable);
    assert_eq!(refusal(answers.message().await).0, Code::Unavailable);
    drop(keeper.keep_alive().await);
    assert_eq!(refusal(client.get("a", None).await).0, Code::Unavailable);
    etcd.put("test", "a", "1", 0).expect("the others are a quorum");
    etcd.set_down(2, false);
    let serializable = GetOptions::new().with_serializable();
    assert_eq!(client.get("a", Some(serializable)).await.expect("get").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_member_answers_when_it_thaws() {
    let etcd = one();
    let mut client = client(&etcd, 0).await;
    let mut stream = client.watch("a", None).await.expect("a stream");
    stream.message().await.expect("created");
    etcd.set_frozen(0, true);
    let mut writer = client.clone();
    let put = tokio::spawn(async move { writer.put("a", "1", None).await });
    assert!(is_silent(stream.message()).await);
    assert!(!put.is_finished() && etcd.records().is_empty());
    etcd.set_frozen(0, false);
    put.await.expect("the task ends").expect("put");
    let told = stream.message().await.expect("an answer").expect("the stream is open");
    assert_eq!(told.events().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn leases_run_out_while_their_leader_is_frozen() {
    let etcd = one();
    etcd.grant(7, 10).expect("granted");
    etcd.set_frozen(0, true);
    sleep(Duration::from_millis(12_100)).await;
    assert!(etcd.leases().contains_key(&7), "nobody looks");
    etcd.set_frozen(0, false);
    assert!(etcd.keep_alive(7).is_err());
    sleep(S / 2).await;
    assert!(etcd.leases().is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_member_leads_when_the_leader_is_lost() {
    let etcd = three();
    etcd.grant(7, 10).expect("granted");
    let mut client = client(&etcd, 1).await;
    etcd.set_frozen(0, true);
    let before = Instant::now();
    client.put("a", "1", None).await.expect("the put waits for the new leader");
    assert_eq!((before.elapsed(), etcd.leader()), (S, Some(1)));
    assert_eq!(etcd.leases()[&7].remaining, 11 * S);
    etcd.set_down(1, true);
    assert!(etcd.put("test", "b", "", 0).is_err(), "one of three is no quorum");
    assert!(etcd.grant(8, 10).is_err() && etcd.delete("test", b"a").is_none());
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_the_election() {
    let etcd = three();
    let mut client = client(&etcd, 1).await;
    let mut stream = client.watch("a", None).await.expect("a stream");
    stream.message().await.expect("created");
    etcd.set_down(0, true);
    let before = Instant::now();
    client.put("a", "1", None).await.expect("put");
    assert_eq!(before.elapsed(), S);
    assert_eq!(stream.message().await.expect("an answer").expect("the stream lives on").events().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_a_request_times_out_after_seven_seconds() {
    let etcd = one();
    let mut client = connect(&etcd, 0, ConnectOptions::new()).await.expect("a client");
    etcd.put("test", "a", "1", 0).expect("put");
    etcd.set_no_leader(true);
    let before = Instant::now();
    let timed_out = (Code::Unavailable, "etcdserver: request timed out".to_owned());
    assert_eq!(refusal(client.put("a", "2", None).await), timed_out);
    assert_eq!(before.elapsed(), 7 * S);
    assert_eq!(refusal(client.get("a", None).await), timed_out);
    let serializable = GetOptions::new().with_serializable();
    assert_eq!(client.get("a", Some(serializable)).await.expect("get").count(), 1);
    assert_eq!(client.status().await.expect("status").errors(), ["etcdserver: no leader"]);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lags_is_old_and_never_wrong() {
    let etcd = three();
    etcd.set_lag(2, 5 * S);
    let mut client = client(&etcd, 2).await;
    let mut stream = client.watch("a", Some(WatchOptions::new())).await.expect("a stream");
    stream.message().await.expect("created");
    etcd.put("test", "a", "1", 0).expect("put");
    let old = client.get("a", Some(GetOptions::new().with_serializable())).await.expect("get");
    assert_eq!((old.count(), old.header().expect("a header").revision()), (0, 1));
    let before = Instant::now();
    assert_eq!(client.get("a", None).await.expect("get").count(), 1);
    assert_eq!(before.elapsed(), 5 * S);
    let told = stream.message().await.expect("an answer").expect("the stream is open");
    assert_eq!(told.events().len(), 1);
    client.put("a", "2", None).await.expect("put");
    assert_eq!(before.elapsed(), 10 * S, "a member answers once it has applied the write");
    etcd.compact(None);
    etcd.put("test", "a", "3", 0).expect("put");
    etcd.set_lag(2, Duration::ZERO);
    let now = client.get("a", Some(GetOptions::new().with_serializable())).await.expect("get");
    assert_eq!(now.kvs()[0].value(), b"3");
}

#[tokio::test(start_paused = true)]
async fn a_removed_member_is_not_listed() {
    let etcd = three();
    let mut other = client(&etcd, 1).await;
    assert_eq!(other.member_list().await.expect("members").members().len(), 3);
    etcd.set_removed(0, true);
    assert_eq!(refusal(client(&etcd, 0).await.get("a", None).await).0, Code::Unavailable);
    sleep(S).await;
    assert_eq!(other.member_list().await.expect("members").members().len(), 2);
    let status = other.status().await.expect("status");
    assert!(status.leader() != 0 && status.raft_term() == 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_has_its_effect_though_nobody_waits_for_it() {
    let etcd = three();
    etcd.set_frozen(0, true);
    let mut client = client(&etcd, 1).await;
    let put = tokio::spawn(async move { client.put("a", "1", None).await });
    sleep(Duration::from_millis(1)).await;
    assert!(etcd.records().is_empty());
    sleep(S).await;
    assert!(put.is_finished() && etcd.records().len() == 1);
}
