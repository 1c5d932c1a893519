//! The promises of the watch, on streams of the fake etcd under faults.

use std::time::Duration;

use etcd_client::{WatchOptions, WatchStream};
use sim_etcd::promises::{Message, Promise, WatchRequest, violations};
use sim_etcd::{Etcd, WatchFaults};
use tokio::time::{sleep, timeout};

use crate::{client, one, three};

const S: Duration = Duration::from_secs(1);

/// Opens a watch of all keys below `k/` with former records, and notes the request.
async fn open(etcd: &Etcd, member: usize, start_revision: i64) -> (WatchStream, Vec<Message>) {
    let options = WatchOptions::new().with_prefix().with_prev_key().with_start_revision(start_revision);
    let stream = client(etcd, member).await.watch("k/", Some(options)).await.expect("a stream");
    let (key, range_end) = (b"k/".to_vec(), b"k0".to_vec());
    let request = WatchRequest { key, range_end, start_revision, prev_kv: true, ..WatchRequest::default() };
    (stream, vec![Message::Create(request)])
}

/// Notes all responses until the stream is silent or ends.
async fn record(stream: &mut WatchStream, messages: &mut Vec<Message>) {
    while let Ok(Ok(Some(answer))) = timeout(S, stream.message()).await {
        messages.push(Message::Response(answer.0));
    }
}

fn broken(etcd: &Etcd, messages: &[Message]) -> Vec<Promise> {
    violations(&etcd.history(), messages).into_iter().map(|violation| violation.promise).collect()
}

fn write(etcd: &Etcd, n: usize) {
    let key = format!("k/{}", n % 7);
    if n % 5 == 4 {
        etcd.delete("test", key.as_bytes());
    } else if n % 11 == 10 {
        etcd.delete_prefix("test", b"k/");
    } else {
        etcd.put("test", key, format!("{n}"), 0).expect("put");
    }
}

#[tokio::test(start_paused = true)]
async fn every_stream_keeps_them_under_faults() {
    let etcd = three();
    let mut events = 0;
    for round in 0..30_usize {
        let member = round % 3;
        let from = if round % 4 == 0 { 0 } else { (etcd.revision() - 20 + round as i64).max(1) };
        let (mut stream, mut messages) = open(&etcd, member, from).await;
        etcd.set_lag(member, Duration::from_millis(if round % 2 == 0 { 0 } else { 70 }));
        for n in 0..40 {
            write(&etcd, round * 40 + n);
            if n == 13 {
                stream.request_progress().await.expect("sent");
            }
            match (round % 6, n) {
                (1, 20) => etcd.stall_watches(true),
                (1, 30) => etcd.stall_watches(false),
                (2, 20) => etcd.set_frozen(member, true),
                (2, 30) => etcd.set_frozen(member, false),
                (3, 20) => etcd.compact(None),
                (4, 20) => etcd.cut_watches(),
                _ => sleep(Duration::from_millis(9)).await,
            }
        }
        stream.request_progress().await.ok();
        record(&mut stream, &mut messages).await;
        assert_eq!(broken(&etcd, &messages), [], "round {round}");
        events += messages.len();
    }
    assert!(events > 500, "hardly anything was told: {events}");
}

#[tokio::test(start_paused = true)]
async fn faults_of_former_versions_break_them() {
    let etcd = one();
    for n in 0..20 {
        etcd.put("test", format!("k/{n}"), "", 0).expect("put");
    }
    etcd.set_watch_faults(WatchFaults { progress_before_events: true, no_delete_at_compaction: false });
    let (mut stream, mut messages) = open(&etcd, 0, 5).await;
    stream.request_progress().await.expect("sent");
    record(&mut stream, &mut messages).await;
    assert!(broken(&etcd, &messages).contains(&Promise::Bookmarkable));

    etcd.set_watch_faults(WatchFaults { progress_before_events: false, no_delete_at_compaction: true });
    etcd.delete("test", b"k/1");
    etcd.compact(None);
    let (mut stream, mut messages) = open(&etcd, 0, etcd.revision()).await;
    etcd.put("test", "k/1", "", 0).expect("put");
    record(&mut stream, &mut messages).await;
    assert_eq!(broken(&etcd, &messages), [Promise::Resumable]);
}
