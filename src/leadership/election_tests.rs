use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::cluster::fake_api::FakeApi;
use crate::leadership::RENEW_DEADLINE;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/twinspan";

struct Replica {
    leadership: Leadership,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

fn replica(api: &FakeApi, identity: &str) -> Replica {
    let (leadership, stop) = (Leadership::none(), CancellationToken::new());
    let history = LeaseHistory::new(api.client(), "ns", identity);
    let election = Election::new(api.client(), "ns", history, Env::started_at(Timestamp::now, || 0.5));
    let running = tokio::spawn(election.run(leadership.clone(), stop.clone()));
    Replica { leadership, stop, running }
}

impl Replica {
    /// The time until it leads.
    async fn leads(&self) -> Duration {
        let started = Instant::now();
        let mut changes = self.leadership.changes();
        let _ = changes.wait_for(|leads| *leads).await;
        started.elapsed()
    }

    /// How often it won or lost the Lease within this time.
    async fn changes_within(&self, time: Duration) -> usize {
        let mut changes = self.leadership.changes();
        let mut seen = 0;
        let count = async {
            while changes.changed().await.is_ok() {
                seen += 1;
            }
        };
        let _ = tokio::time::timeout(time, count).await;
        seen
    }
}

fn held_by(api: &FakeApi) -> Value {
    api.object(PATH).unwrap()["spec"]["holderIdentity"].clone()
}

/// The Lease of a leader that is dead.
fn dead_leader() -> Value {
    json!({"metadata": {"name": "twinspan", "namespace": "ns", "resourceVersion": "1"},
        "spec": {"holderIdentity": "dead", "leaseDurationSeconds": 15, "leaseTransitions": 3}})
}

#[tokio::test(start_paused = true)]
async fn a_standby_takes_over_what_it_saw_unchanged_for_as_long_as_it_lasts() {
    let api = FakeApi::default();
    api.put(PATH, dead_leader());
    let standby = replica(&api, "b");
    let took = standby.leads().await;
    assert!((Duration::from_secs(15)..Duration::from_secs(19)).contains(&took), "{took:?}");
    let lease = api.object(PATH).unwrap();
    assert_eq!((&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]), (&json!("b"), &json!(4)));
    assert_eq!(standby.changes_within(Duration::from_secs(60)).await, 0, "it renews");
    assert!(standby.leadership.is_leader());
}

#[tokio::test(start_paused = true)]
async fn one_silent_connection_costs_a_standby_one_attempt() {
    let api = FakeApi::default();
    api.put(PATH, dead_leader());
    let standby = replica(&api, "b");
    tokio::time::sleep(Duration::from_secs(4)).await;
    api.stall_next("leases/twinspan", 1);
    let took = standby.leads().await;
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_unanswered_renewal_costs_a_leader_nothing() {
    let api = FakeApi::default();
    let leader = replica(&api, "a");
    leader.leads().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    api.stall_next("leases/twinspan", 1);
    assert_eq!(leader.changes_within(Duration::from_secs(60)).await, 0);
    assert!(leader.leadership.is_leader());

    // Where nothing is answered the claim ends ten seconds after the last renewal was sent.
    let end = leader.leadership.ends().unwrap();
    api.stall("leases/twinspan");
    tokio::time::sleep_until(end - Duration::from_millis(1)).await;
    assert!(leader.leadership.is_leader());
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(!leader.leadership.is_leader());
}

#[tokio::test(start_paused = true)]
async fn the_claim_begins_when_the_winning_request_was_sent() {
    let api = FakeApi::default();
    api.delay(Duration::from_secs(2));
    let started = Instant::now();
    let leader = replica(&api, "a");
    leader.leads().await;
    assert_eq!(started.elapsed(), Duration::from_secs(4), "a read and a write of two seconds each");
    let end = leader.leadership.ends().unwrap();
    assert_eq!(end, started + Duration::from_secs(2) + RENEW_DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_given_back_and_taken_at_once() {
    let api = FakeApi::default();
    let (first, second) = (replica(&api, "a"), replica(&api, "b"));
    first.leads().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!second.leadership.is_leader());
    first.stop.cancel();
    first.running.await.unwrap();
    assert!(!first.leadership.is_leader());
    assert_eq!(held_by(&api), Value::Null);
    let took = second.leads().await;
    assert!(took < Duration::from_secs(4), "{took:?}");
    // One that does not hold it gives nothing back.
    let third = replica(&api, "c");
    tokio::time::sleep(Duration::from_secs(5)).await;
    third.stop.cancel();
    third.running.await.unwrap();
    assert_eq!(held_by(&api), json!("b"));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_another_took_is_lost_at_once() {
    let api = FakeApi::default();
    let leader = replica(&api, "a");
    leader.leads().await;
    let mut taken = dead_leader();
    taken["spec"]["holderIdentity"] = json!("b");
    api.put(PATH, taken);
    let mut changes = leader.leadership.changes();
    let started = Instant::now();
    changes.wait_for(|leads| !leads).await.unwrap();
    assert!(started.elapsed() <= RETRY_PERIOD, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_holder_tells_its_version_with_the_lease_and_writes_no_more_for_it() {
    let api = FakeApi::default();
    let version = || api.object(PATH).unwrap()["metadata"]["annotations"][VERSION_ANNOTATION].clone();
    let mut old = dead_leader();
    old["metadata"]["annotations"] = json!({VERSION_ANNOTATION: "0.0.1", "kept": "yes"});
    for before in [None, Some(old)] {
        let taken_over = before.is_some();
        if let Some(before) = before {
            api.put(PATH, before);
        }
        let replica = replica(&api, "a");
        replica.leads().await;
        assert_eq!(version(), json!(VERSION));
        let writes = |requests: Vec<crate::cluster::fake_api::Received>| {
            requests.into_iter().filter(|request| request.method.as_str() != "GET").count()
        };
        assert_eq!(writes(api.take("leases")), 1, "taking the Lease is all that is written");
        replica.stop.cancel();
        replica.running.await.unwrap();
        assert_eq!(version(), json!(VERSION), "also of a Lease that was given back");
        assert_eq!(api.object(PATH).unwrap()["metadata"]["annotations"]["kept"] == "yes", taken_over);
        api.take("leases");
    }
}
