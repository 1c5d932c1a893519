//! Watches: creation, catch-up, progress, cancel, compaction.

use std::time::Duration;

use etcd_client::{Error, EventType, Txn, TxnOp, WatchFilterType, WatchOptions, WatchResponse, WatchStream};
use sim_etcd::{Etcd, WatchFaults};
use tokio::time::sleep;
use tonic::Code;

use crate::{client, is_silent, one, refusal, said};

const S: Duration = Duration::from_secs(1);

fn prefix() -> WatchOptions {
    WatchOptions::new().with_prefix()
}

async fn open(etcd: &Etcd, key: &str, options: WatchOptions) -> WatchStream {
    let mut stream = client(etcd, 0).await.watch(key, Some(options)).await.expect("a stream");
    assert!(next(&mut stream).await.created());
    stream
}

async fn next(stream: &mut WatchStream) -> WatchResponse {
    let answer = tokio::time::timeout(700 * S, stream.message()).await.expect("the watch says nothing");
    answer.expect("the watch is well").expect("the stream is open")
}

fn told(answer: &WatchResponse) -> Vec<(String, String, i64)> {
    let told = answer.events().iter().map(|event| {
        let kv = event.kv().expect("a record");
        let kind = if event.event_type() == EventType::Put { "put" } else { "delete" };
        (kind.to_owned(), String::from_utf8_lossy(kv.key()).into_owned(), kv.mod_revision())
    });
    told.collect()
}

fn put(etcd: &Etcd, key: &str) -> i64 {
    etcd.put("test", key, "", 0).expect("put")
}

#[tokio::test(start_paused = true)]
async fn a_watch_gets_its_range_and_each_revision_whole() {
    let etcd = one();
    let mut stream = open(&etcd, "a/", prefix()).await;
    put(&etcd, "a/1");
    put(&etcd, "b");
    put(&etcd, "a/2");
    etcd.delete_prefix("test", b"a/");
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(told(&next(&mut stream).await));
    }
    let event = |kind: &str, key: &str, revision| (kind.to_owned(), key.to_owned(), revision);
    let expected = [
        vec![event("put", "a/1", 2)],
        vec![event("put", "a/2", 4)],
        vec![event("delete", "a/1", 5), event("delete", "a/2", 5)],
    ];
    assert_eq!(all, expected);
    assert!(is_silent(stream.message()).await);
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_former_revision_catches_up() {
    let etcd = one();
    for n in 0..1500 {
        put(&etcd, &format!("a/{n}"));
    }
    let mut stream = open(&etcd, "a/", prefix().with_start_revision(3)).await;
    // A progress request finds the watcher behind, and is never answered.
    stream.request_progress().await.expect("sent");
    let (first, second) = (next(&mut stream).await, next(&mut stream).await);
    assert_eq!((first.events().len(), second.events().len()), (1000, 499));
    assert_eq!(told(&first)[0].2, 3);
    assert_eq!(first.header().expect("a header").revision(), 1501);
    assert!(is_silent(stream.message()).await);
    put(&etcd, "a/next");
    assert_eq!(told(&next(&mut stream).await)[0].2, 1502);
}

#[tokio::test(start_paused = true)]
async fn a_watch_in_the_future_waits() {
    let etcd = one();
    let mut stream = open(&etcd, "a", WatchOptions::new().with_start_revision(4)).await;
    stream.request_progress().await.expect("sent");
    put(&etcd, "a");
    put(&etcd, "a");
    put(&etcd, "a");
    assert_eq!(told(&next(&mut stream).await)[0].2, 4, "no progress before the start, and no event either");
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_on_request_once_all_are_in_sync() {
    let etcd = one();
    put(&etcd, "a");
    let mut stream = open(&etcd, "a", WatchOptions::new().with_watch_id(5)).await;
    stream.request_progress().await.expect("sent");
    let progress = next(&mut stream).await;
    assert_eq!((progress.watch_id(), progress.header().expect("a header").revision()), (-1, 2));
    assert!(progress.events().is_empty());
    stream.watch("b", Some(WatchOptions::new().with_watch_id(6).with_start_revision(1))).await.expect("sent");
    stream.request_progress().await.expect("sent");
    assert!(next(&mut stream).await.created());
    assert!(is_silent(stream.message()).await);
    stream.request_progress().await.expect("sent");
    assert_eq!(next(&mut stream).await.watch_id(), -1);
}

#[tokio::test(start_paused = true)]
async fn progress_comes_by_itself_every_ten_minutes() {
    let etcd = one();
    let mut stream = open(&etcd, "a", WatchOptions::new().with_progress_notify().with_watch_id(5)).await;
    let progress = next(&mut stream).await;
    assert_eq!((progress.watch_id(), progress.events().len()), (5, 0));
    put(&etcd, "a");
    assert_eq!(next(&mut stream).await.events().len(), 1);
    sleep(601 * S).await;
    assert!(is_silent(stream.message()).await, "an event took its place");
    assert!(next(&mut stream).await.events().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_compacted_revision_ends_a_watch_after_created() {
    let etcd = one();
    for _ in 0..4 {
        put(&etcd, "a");
    }
    etcd.compact(Some(4));
    let mut stream = open(&etcd, "a", WatchOptions::new().with_start_revision(3)).await;
    let end = next(&mut stream).await;
    assert!(end.canceled() && end.cancel_reason().is_empty());
    assert_eq!((end.compact_revision(), end.header().expect("a header").revision()), (4, 0));
    // The watcher keeps its ID until it is cancelled, and progress is never told again.
    stream.request_progress().await.expect("sent");
    assert!(is_silent(stream.message()).await, "the stream stays open");
    let mut stream = open(&etcd, "a", WatchOptions::new().with_start_revision(4)).await;
    assert_eq!(told(&next(&mut stream).await).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_in_sync_survives_a_compaction() {
    let etcd = one();
    put(&etcd, "a");
    let mut stream = open(&etcd, "a", WatchOptions::new().with_start_revision(2)).await;
    assert_eq!(told(&next(&mut stream).await)[0].2, 2);
    for _ in 0..5 {
        put(&etcd, "b");
    }
    etcd.compact(None);
    sleep(S).await;
    put(&etcd, "a");
    assert_eq!(told(&next(&mut stream).await)[0].2, 8);
}

#[tokio::test(start_paused = true)]
async fn several_watches_share_a_stream() {
    let etcd = one();
    let mut stream = open(&etcd, "a", WatchOptions::new().with_watch_id(1)).await;
    stream.watch("b", Some(WatchOptions::new().with_watch_id(2))).await.expect("sent");
    assert_eq!(next(&mut stream).await.watch_id(), 2);
    stream.watch("c", Some(WatchOptions::new().with_watch_id(2))).await.expect("sent");
    let refused = next(&mut stream).await;
    assert!(refused.created() && refused.canceled() && refused.watch_id() == -1);
    assert!(refused.cancel_reason().contains("duplicate watch ID"), "{}", refused.cancel_reason());
    stream.watch("d", Some(WatchOptions::new().with_range("c"))).await.expect("sent");
    assert_eq!(next(&mut stream).await.cancel_reason(), "mvcc: watcher range is empty");
    stream.cancel(1).await.expect("sent");
    let end = next(&mut stream).await;
    assert_eq!((end.canceled(), end.watch_id(), end.compact_revision()), (true, 1, 0));
    stream.cancel(1).await.expect("sent");
    put(&etcd, "a");
    put(&etcd, "b");
    let answer = next(&mut stream).await;
    assert_eq!((answer.watch_id(), told(&answer)[0].1.as_str()), (2, "b"));
}

#[tokio::test(start_paused = true)]
async fn former_records_are_told_if_asked_for_and_not_compacted() {
    let etcd = one();
    etcd.put("test", "a", "1", 0).expect("put");
    etcd.put("test", "a", "2", 0).expect("put");
    etcd.delete("test", b"a");
    let from = |revision| WatchOptions::new().with_prev_key().with_start_revision(revision);
    let mut stream = open(&etcd, "a", from(2)).await;
    let before = |answer: &WatchResponse| -> Vec<Option<Vec<u8>>> {
        answer.events().iter().map(|event| event.prev_kv().map(|kv| kv.value().to_vec())).collect()
    };
    assert_eq!(before(&next(&mut stream).await), [None, Some(b"1".to_vec()), Some(b"2".to_vec())]);
    etcd.compact(Some(4));
    let mut stream = open(&etcd, "a", from(4)).await;
    let answer = next(&mut stream).await;
    assert_eq!((before(&answer), told(&answer)[0].0.as_str()), (vec![None], "delete"));
}

#[tokio::test(start_paused = true)]
async fn a_large_revision_comes_in_fragments_if_asked_for() {
    let etcd = one();
    let mut whole = open(&etcd, "a/", prefix()).await;
    let mut pieces = open(&etcd, "a/", prefix().with_fragment()).await;
    let mut client = client(&etcd, 0).await;
    let put = |n| TxnOp::put(format!("a/{n}"), vec![0; 500_000], None);
    client.txn(Txn::new().and_then([put(0), put(1)])).await.expect("txn");
    assert_eq!(next(&mut whole).await.events().len(), 2);
    assert_eq!(next(&mut pieces).await.events().len(), 2, "small enough for one");
    for key in ["a/2", "a/3", "a/4"] {
        etcd.put("test", key, vec![0; 1_000_000], 0).expect("put");
    }
    let from = prefix().with_fragment().with_start_revision(3);
    let opened = client.watch_client().max_decoding_message_size(usize::MAX).watch("a/", Some(from)).await;
    let mut late = opened.expect("a stream");
    let mut flags = Vec::new();
    for _ in 0..4 {
        let answer = next(&mut late).await;
        flags.push((answer.created(), answer.0.fragment, answer.events().len()));
    }
    assert_eq!(flags, [(true, false, 0), (false, true, 1), (false, true, 1), (false, false, 1)]);
}

#[tokio::test(start_paused = true)]
async fn filters_keep_events_back() {
    let etcd = one();
    let mut deletes = open(&etcd, "a", WatchOptions::new().with_filters([WatchFilterType::NoPut])).await;
    let mut puts = open(&etcd, "a", WatchOptions::new().with_filters([WatchFilterType::NoDelete])).await;
    put(&etcd, "a");
    etcd.delete("test", b"a");
    assert_eq!(told(&next(&mut deletes).await)[0].0, "delete");
    assert_eq!(told(&next(&mut puts).await)[0].0, "put");
    assert!(is_silent(puts.message()).await);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_open_once_the_first_watch_is_answered() {
    let etcd = one();
    etcd.set_frozen(0, true);
    let mut client = client(&etcd, 0).await;
    let opening = tokio::spawn(async move { client.watch("a", None).await });
    sleep(60 * S).await;
    assert!(!opening.is_finished());
    etcd.set_frozen(0, false);
    let mut stream = opening.await.expect("the task ends").expect("a stream");
    // A watch begins where the member took the request, though nobody has read its answer yet.
    put(&etcd, "a");
    assert!(next(&mut stream).await.created());
    assert_eq!(told(&next(&mut stream).await)[0].2, 2);
}

#[tokio::test(start_paused = true)]
async fn watches_can_be_cut_and_stalled() {
    let etcd = one();
    let mut stream = open(&etcd, "a", WatchOptions::new()).await;
    etcd.stall_watches(true);
    put(&etcd, "a");
    etcd.compact(None);
    assert!(is_silent(stream.message()).await);
    etcd.stall_watches(false);
    assert_eq!(told(&next(&mut stream).await)[0].2, 2, "what was said meanwhile is not lost");
    etcd.cut_watches();
    assert_eq!(refusal(stream.message().await).0, Code::Unavailable);
    let mut client = client(&etcd, 0).await;
    assert!(client.get("a", None).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn faults_of_former_versions_can_be_switched_on() {
    let etcd = one();
    put(&etcd, "a");
    etcd.delete("test", b"a");
    etcd.compact(Some(3));
    let from = |revision| WatchOptions::new().with_start_revision(revision);
    etcd.set_watch_faults(WatchFaults { progress_before_events: true, no_delete_at_compaction: true });
    let mut stream = open(&etcd, "a", from(3)).await;
    stream.request_progress().await.expect("sent");
    let progress = next(&mut stream).await;
    assert_eq!((progress.watch_id(), progress.events().len()), (-1, 0), "the delete is still to come");
    assert!(is_silent(stream.message()).await, "and never comes");
    etcd.set_watch_faults(WatchFaults::default());
    let mut stream = open(&etcd, "a", from(3)).await;
    assert_eq!(told(&next(&mut stream).await)[0].0, "delete");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_requires_a_leader_ends_without_one() {
    let etcd = one();
    let mut stream = open(&etcd, "a", WatchOptions::new()).await;
    etcd.set_no_leader(true);
    let at_once = client(&etcd, 0).await.watch("a", None).await;
    let no_leader = (Code::Unavailable, "etcdserver: no leader".to_owned());
    assert_eq!(refusal(at_once), no_leader);
    sleep(2 * S).await;
    assert!(tokio::time::timeout(S / 2, stream.message()).await.is_err());
    match stream.message().await {
        Err(Error::GRpcStatus(status)) => assert_eq!(said(&status), no_leader),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_spins_when_nothing_is_to_be_done() {
    let etcd = one();
    let mut stream = open(&etcd, "a", WatchOptions::new()).await;
    etcd.grant(7, 3_600).expect("granted");
    let (year, before) = (365 * 24 * 3600 * S, tokio::time::Instant::now());
    let nothing = tokio::time::timeout(year, stream.message()).await;
    assert!(nothing.is_err() && before.elapsed() >= year);
    assert!(etcd.leases().is_empty());
}
