use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use twinspan_core::Timestamp;

use super::calls::Calls;
use super::events::{About, Events, Note, Reason};
use super::fake_api::FakeApi;
use crate::api::RegisteredService;
use crate::env::Env;
use crate::leadership::Leadership;

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";
const REASONS: [Reason; 7] = [
    Reason::Exported,
    Reason::Imported,
    Reason::NotAccepted,
    Reason::InstanceSkipped,
    Reason::LostRegistration,
    Reason::DeletionsHeld,
    Reason::ApprovalRefused,
];

struct Bench {
    api: FakeApi,
    leadership: Leadership,
    events: Events,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn bench() -> Bench {
    let (api, leadership, stop) = (FakeApi::default(), Leadership::none(), CancellationToken::new());
    leadership.acquired();
    let noon = Timestamp::from_second(1_767_268_800).unwrap();
    let env = Env::started_at(|| noon, || 0.5);
    let (events, publisher) = Events::new(Calls::new(api.client(), leadership.clone()), env, "a", false);
    tokio::spawn(publisher.run(stop.clone()));
    Bench { api, leadership, events, stop }
}

fn about(name: &str) -> About {
    let object: RegisteredService = serde_json::from_value(json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-of-{name}")},
        "spec": {"registryRef": {"name": "main"}},
    }))
    .unwrap();
    About::RegisteredService(Arc::new(object))
}

impl Bench {
    fn publish(&self, name: &str, reason: Reason, note: &str) {
        self.events.publish(about(name), reason, Note::Text(note.to_owned()));
    }

    /// Methods and bodies of the requests of so many seconds.
    async fn requests(&self, seconds: u64) -> Vec<(String, Value)> {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        self.api.take("/events").into_iter().map(|request| (request.method.to_string(), request.body)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_reason_is_told_at_once_and_then_every_half_minute_with_the_latest_note() {
    let bench = bench();
    for n in 0..50 {
        bench.publish("echo", Reason::NotAccepted, &format!("note {n}"));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let told: Vec<Value> = bench.requests(60).await.into_iter().map(|(_, body)| body["note"].clone()).collect();
    assert_eq!((told.len(), &told[0], &told[2]), (3, &json!("note 0"), &json!("note 49")));
}

#[tokio::test(start_paused = true)]
async fn an_object_has_a_budget_and_others_have_theirs() {
    let bench = bench();
    let mut told = 0;
    for round in 0..120 {
        for reason in REASONS {
            bench.publish("noisy", reason, &format!("round {round}"));
        }
        told += bench.requests(30).await.len();
    }
    assert!((25..=25 + 12).contains(&told), "{told} in an hour");
    bench.publish("quiet", Reason::Exported, "told at once");
    let requests = bench.requests(1).await;
    assert!(requests.iter().any(|(_, body)| body["regarding"]["name"] == "quiet"), "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn ten_a_second_are_told_and_a_warning_waits_for_none_of_the_others() {
    let bench = bench();
    for n in 0..2000 {
        bench.publish(&format!("echo-{n}"), Reason::Imported, "news");
    }
    let told = bench.requests(10).await.len();
    assert!((100..=111).contains(&told), "{told} in 10 s");
    for n in 0..200 {
        bench.publish(&format!("more-{n}"), Reason::Imported, "news");
    }
    // The queue is full.
    bench.publish("broken", Reason::NotAccepted, "a warning");
    let next = bench.requests(1).await;
    assert_eq!(next[0].1["regarding"]["name"], "broken", "{next:?}");
    assert!((800..1000).contains(&bench.requests(200).await.len()), "the rest of a thousand");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_repeats_counts_up_its_series_and_one_whose_answer_was_lost_is_not_doubled() {
    let bench = bench();
    bench.api.delay(Duration::from_secs(10));
    bench.publish("echo", Reason::Exported, "the same");
    assert_eq!(bench.requests(20).await.len(), 1);
    bench.api.delay(Duration::ZERO);
    let again = bench.requests(30).await;
    let methods: Vec<&str> = again.iter().map(|(method, _)| method.as_str()).collect();
    assert_eq!(methods, ["POST", "PATCH"], "it is there already");
    bench.publish("echo", Reason::Exported, "the same");
    let third = bench.requests(31).await;
    assert_eq!((third.len(), &third[0].1["series"]["count"]), (1, &json!(3)));
    let name = again[0].1["metadata"]["name"].as_str().unwrap();
    let event = bench.api.object(&format!("{EVENTS}/{name}")).unwrap();
    assert_eq!((&event["type"], &event["reportingInstance"]), (&json!("Normal"), &json!("a")));
    assert!(name.starts_with("echo."), "{name}");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_fails_is_tried_three_times_and_without_the_lease_not_at_all() {
    let bench = bench();
    bench.api.refuse("/events", 500);
    bench.publish("echo", Reason::Exported, "in vain");
    assert_eq!(bench.requests(600).await.len(), 3);
    bench.publish("echo", Reason::Imported, "waits");
    assert_eq!(bench.requests(1).await.len(), 1);
    bench.leadership.lost();
    bench.api.accept();
    bench.publish("echo", Reason::NotAccepted, "not ours to tell");
    assert_eq!(bench.requests(600).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_note_is_cut_where_the_api_server_would_refuse_it() {
    let bench = bench();
    bench.publish("echo", Reason::NotAccepted, &"é".repeat(2000));
    assert_eq!(bench.requests(1).await[0].1["note"].as_str().unwrap().len(), 1024);
}
