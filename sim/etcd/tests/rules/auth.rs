//! Users, tokens and permissions.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, ConnectOptions, GetOptions, PutOptions, Txn, TxnOp, WatchOptions};
use sim_etcd::{Auth, Etcd, ROOT};
use tokio::time::sleep;
use tonic::Code;

use crate::{connect, one, refusal};

fn auth(password: &str) -> Auth {
    Auth::default().with_user("root", "r", &[ROOT]).with_user("one", password, &["a"]).with_prefix("a", "a/")
}

fn secured() -> Etcd {
    let etcd = one();
    etcd.set_auth(Some(auth("1")));
    etcd
}

async fn user(etcd: &Etcd, password: &str) -> Result<Client, etcd_client::Error> {
    connect(etcd, 0, ConnectOptions::new().with_user("one", password)).await
}

fn denied() -> (Code, String) {
    (Code::PermissionDenied, "etcdserver: permission denied".to_owned())
}

fn invalid_token() -> (Code, String) {
    (Code::Unauthenticated, "etcdserver: invalid auth token".to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_refused() {
    let wrong = user(&secured(), "2").await;
    let failed = "etcdserver: authentication failed, invalid user ID or password";
    assert_eq!(refusal(wrong), (Code::InvalidArgument, failed.to_owned()));
    assert_eq!(refusal(user(&one(), "1").await).1, "etcdserver: authentication is not enabled");
    let mut anonymous = connect(&secured(), 0, ConnectOptions::new()).await.expect("a client");
    let empty = (Code::InvalidArgument, "etcdserver: user name is empty".to_owned());
    assert_eq!(refusal(anonymous.get("a/1", None).await), empty);
    assert_eq!(refusal(anonymous.lease_client().grant(60, None).await), empty);
    assert_eq!(refusal(anonymous.lease_client().leases().await), empty);
}

#[tokio::test(start_paused = true)]
async fn permissions_hold_for_ranges_puts_transactions_and_watches() {
    let etcd = secured();
    let mut client = user(&etcd, "1").await.expect("a client");
    client.put("a/1", "", None).await.expect("put");
    assert_eq!(refusal(client.put("b", "", None).await), denied());
    assert_eq!(refusal(client.get("a", Some(GetOptions::new().with_prefix())).await), denied());
    client.get("a/", Some(GetOptions::new().with_prefix())).await.expect("get");
    assert_eq!(refusal(client.delete("b", None).await), denied());
    let never = Compare::mod_revision("a/1", CompareOp::Equal, -1);
    let elsewhere = Txn::new().when([never]).and_then([TxnOp::put("b", "", None)]);
    assert_eq!(refusal(client.txn(elsewhere).await), denied(), "both branches count");
    assert_eq!(refusal(client.compact(1, None).await), denied());
    let mut stream = client.watch("b", Some(WatchOptions::new())).await.expect("a stream");
    let refused = stream.message().await.expect("an answer").expect("open");
    assert!(refused.created() && refused.canceled() && refused.watch_id() == -1);
    assert_eq!(refused.cancel_reason(), "rpc error: code = PermissionDenied desc = etcdserver: permission denied");
    stream.watch("a/1", None).await.expect("the stream stays open");
    assert!(!stream.message().await.expect("an answer").expect("open").canceled());
}

#[tokio::test(start_paused = true)]
async fn a_lease_with_a_foreign_key_is_out_of_reach() {
    let etcd = secured();
    let mut client = user(&etcd, "1").await.expect("a client");
    etcd.grant(7, 60).expect("granted");
    assert_eq!(client.lease_client().leases().await.expect("leases").leases().len(), 1);
    etcd.put("other", "b", "", 7).expect("put");
    assert_eq!(refusal(client.lease_client().leases().await), denied());
    assert_eq!(refusal(client.put("a/1", "", Some(PutOptions::new().with_lease(7))).await), denied());
    assert_eq!(refusal(client.lease_client().revoke(7).await), denied());
    assert_eq!(client.lease_client().time_to_live(7, None).await.expect("without keys").granted_ttl(), 60);
    let (_, keys) = (
        client.lease_client().keep_alive(7).await.expect_err("a key is not ours"),
        client.lease_client().time_to_live(7, Some(etcd_client::LeaseTimeToLiveOptions::new().with_keys())).await,
    );
    assert_eq!(refusal(keys), denied());
}

#[tokio::test(start_paused = true)]
async fn tokens_end_by_time_by_password_and_by_restart() {
    let etcd = secured();
    let mut client = user(&etcd, "1").await.expect("a client");
    for _ in 0..4 {
        sleep(Duration::from_secs(200)).await;
        client.get("a/1", None).await.expect("a token in use lives");
    }
    sleep(Duration::from_secs(301)).await;
    assert_eq!(refusal(client.get("a/1", None).await), invalid_token());
    let mut client = user(&etcd, "1").await.expect("a client");
    etcd.set_auth(Some(auth("2")));
    assert_eq!(refusal(client.get("a/1", None).await), invalid_token());
    assert!(user(&etcd, "1").await.is_err());
    let mut client = user(&etcd, "2").await.expect("a client");
    etcd.set_auth(Some(auth("2").with_prefix("a", "b/")));
    client.get("b/1", None).await.expect("another permission keeps the tokens");
    etcd.set_down(0, true);
    etcd.set_down(0, false);
    let mut stream = client.watch("a/1", None).await.expect("a stream");
    let refused = stream.message().await.expect("an answer").expect("open");
    assert_eq!(refused.cancel_reason(), "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token");
    assert_eq!(refusal(client.get("a/1", None).await), invalid_token());
    etcd.set_auth(None);
    client.get("a/1", None).await.expect("nobody asks any more");
}
