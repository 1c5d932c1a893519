//! Puts, deletes, ranges, transactions and compaction.

use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse};
use sim_etcd::Error;
use tonic::Code;

use crate::{client, named, one, refusal};

fn create(key: &str, lease: i64) -> TxnOp {
    let put = TxnOp::put(key, "1", Some(PutOptions::new().with_lease(lease)));
    let absent = Compare::mod_revision(key, CompareOp::Equal, 0);
    TxnOp::txn(Txn::new().when([absent]).and_then([put]).or_else([TxnOp::get(key, None)]))
}

fn put(key: &str) -> TxnOp {
    TxnOp::put(key, "1", None)
}

fn delete(key: &str) -> TxnOp {
    TxnOp::delete(key, None)
}

#[tokio::test(start_paused = true)]
async fn a_transaction_has_one_revision_and_a_lost_race_spoils_no_other() {
    let mut client = client(&one(), 0).await;
    client.put("b", "x", None).await.expect("put");
    let answer = client.txn(Txn::new().and_then([create("a", 0), create("b", 0), create("c", 0)])).await.expect("txn");
    let outcomes: Vec<bool> = answer
        .op_responses()
        .iter()
        .map(|response| matches!(response, TxnOpResponse::Txn(nested) if nested.succeeded()))
        .collect();
    assert_eq!(outcomes, [true, false, true]);
    assert_eq!(answer.header().expect("a header").revision(), 3);
    let records = client.get("", Some(GetOptions::new().with_all_keys())).await.expect("get");
    let revisions: Vec<i64> = records.kvs().iter().map(|kv| kv.mod_revision()).collect();
    assert_eq!(revisions, [3, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn compares_see_the_state_before_the_transaction() {
    let mut client = client(&one(), 0).await;
    // The second one is created as well: both compares are evaluated before either write.
    let nested = |value: &str| {
        let absent = Compare::version("a", CompareOp::Equal, 0);
        TxnOp::txn(Txn::new().when([absent]).and_then([TxnOp::put(format!("made/{value}"), value, None)]))
    };
    let answer = client.txn(Txn::new().and_then([put("a"), nested("1"), nested("2")])).await.expect("txn");
    assert_eq!(answer.op_responses().len(), 3);
    let made = client.get("made/", Some(GetOptions::new().with_prefix().with_count_only())).await.expect("get");
    assert_eq!(made.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_lease_fails_a_request_only_on_the_path_taken() {
    let mut client = client(&one(), 0).await;
    client.put("b", "x", None).await.expect("put");
    let lost = client.txn(Txn::new().and_then([create("b", 99)])).await;
    assert!(lost.is_ok(), "{lost:?}");
    let failed = client.txn(Txn::new().and_then([create("a", 99), put("c")])).await;
    assert_eq!(refusal(failed), (Code::NotFound, "etcdserver: requested lease not found".to_owned()));
    assert_eq!(client.get("c", None).await.expect("get").count(), 0, "nothing is written");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_put_once_in_a_transaction() {
    let mut client = client(&one(), 0).await;
    let duplicate = (Code::InvalidArgument, "etcdserver: duplicate key given in txn request".to_owned());
    let either = TxnOp::txn(Txn::new().and_then([put("a")]).or_else([put("a")]));
    for refused in [
        vec![put("a"), put("a")],
        vec![delete("a"), put("a")],
        vec![create("a", 0), create("a", 0)],
        vec![create("a", 0), put("a")],
        vec![TxnOp::txn(Txn::new().and_then([delete("a")])), create("a", 0)],
        vec![TxnOp::delete("a", Some(DeleteOptions::new().with_prefix())), create("a/1", 0)],
    ] {
        assert_eq!(refusal(client.txn(Txn::new().and_then(refused)).await), duplicate);
    }
    for allowed in [vec![either, put("b")], vec![create("c", 0), TxnOp::txn(Txn::new().and_then([delete("c")]))]] {
        let answer = client.txn(Txn::new().and_then(allowed)).await;
        assert!(answer.is_ok(), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn operations_and_bytes_are_limited() {
    let mut client = client(&one(), 0).await;
    let mut many = async |count: usize| {
        client.txn(Txn::new().and_then((0..count).map(|n| create(&format!("k/{n}"), 0)).collect::<Vec<_>>())).await
    };
    // Each nested transaction takes one more operation than those around it.
    assert!(many(127).await.is_ok());
    let too_many = (Code::InvalidArgument, "etcdserver: too many operations in txn request".to_owned());
    assert_eq!(refusal(many(128).await), too_many);
    let too_large = (Code::InvalidArgument, "etcdserver: request is too large".to_owned());
    assert!(client.put("large", vec![0; 1536 * 1024 - 100], None).await.is_ok());
    assert_eq!(refusal(client.put("large", vec![0; 1536 * 1024], None).await), too_large);
    let (code, text) = refusal(client.put("huge", vec![0; 3 * 1024 * 1024], None).await);
    assert_eq!(code, Code::ResourceExhausted, "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_value_and_a_lease_can_be_kept() {
    let etcd = one();
    let mut client = client(&etcd, 0).await;
    etcd.grant(7, 60).expect("granted");
    let keep_value = || Some(PutOptions::new().with_ignore_value());
    assert_eq!(refusal(client.put("a", "", keep_value()).await).1, "etcdserver: key not found");
    etcd.put("test", "a", "1", 7).expect("put");
    client.put("a", "2", Some(PutOptions::new().with_ignore_lease())).await.expect("put");
    assert_eq!(etcd.records()[&b"a"[..]].lease, 7);
    client.put("a", "", keep_value()).await.expect("put");
    let record = &etcd.records()[&b"a"[..]];
    assert_eq!((record.lease, record.value.as_slice(), record.version), (0, &b"2"[..], 3), "a put detaches");
    assert!(etcd.leases()[&7].keys.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_compacted_cannot_be_read() {
    let etcd = one();
    let mut client = client(&etcd, 0).await;
    for value in ["1", "2", "3"] {
        client.put("a", value, None).await.expect("put");
    }
    client.compact(3, None).await.expect("compact");
    let mut at = async |revision| client.get("a", Some(GetOptions::new().with_revision(revision))).await;
    assert_eq!(at(3).await.expect("get").kvs()[0].value(), b"2");
    assert_eq!(refusal(at(2).await).1, "etcdserver: mvcc: required revision has been compacted");
    assert_eq!(refusal(at(9).await).1, "etcdserver: mvcc: required revision is a future revision");
    assert_eq!(refusal(client.compact(3, None).await).0, Code::OutOfRange);
    assert_eq!(refusal(client.compact(5, None).await).0, Code::OutOfRange);
    assert_eq!(etcd.history().len(), 3, "the history stays");
}

#[tokio::test(start_paused = true)]
async fn the_history_names_authors_and_what_was_before() {
    let etcd = one();
    etcd.put("kitex", "a", "1", 0).expect("put");
    named(&etcd, "replica").await.put("a", "2", None).await.expect("put");
    assert_eq!(etcd.put("kitex", "a", "3", 99), Err(Error::LeaseNotFound));
    assert_eq!(etcd.delete("person", b"a"), Some(4));
    assert_eq!(etcd.delete("person", b"a"), None);
    let told: Vec<_> = etcd
        .history()
        .into_iter()
        .map(|change| (change.revision, change.author, change.before.map(|r| r.value), change.after.map(|r| r.value)))
        .collect();
    let bytes = |value: &str| Some(value.as_bytes().to_vec());
    assert_eq!(
        told,
        [
            (2, "kitex".to_owned(), None, bytes("1")),
            (3, "replica".to_owned(), bytes("1"), bytes("2")),
            (4, "person".to_owned(), bytes("2"), None),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn several_keys_go_at_one_revision() {
    let etcd = one();
    for key in ["a/1", "a/2", "b"] {
        etcd.put("test", key, "", 0).expect("put");
    }
    assert_eq!(etcd.delete_all("test", &["a/1", "b", "none"]), 2);
    assert_eq!(etcd.revision(), 5);
    assert_eq!(etcd.delete_prefix("test", b"a/"), 1);
    assert_eq!(etcd.delete_prefix("test", b"a/"), 0);
    assert_eq!((etcd.revision(), etcd.records().len()), (6, 0));
}
