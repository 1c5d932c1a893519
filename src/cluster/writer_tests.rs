use std::time::Duration;

use tokio::time::Instant;
use twinspan_core::model::{Family, SlicePort};
use twinspan_core::plan::slices::SliceSpec;

use super::*;
use crate::cluster::fake_api::FakeApi;
use crate::leadership::Leadership;

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";

fn writer(api: &FakeApi) -> (ClusterWriter, Leadership) {
    let leadership = Leadership::none();
    leadership.acquired();
    (
        ClusterWriter::new(
            Calls::new(api.client(), leadership.clone()),
            Arc::default(),
            Arc::default(),
            mpsc::unbounded_channel().0,
        ),
        leadership,
    )
}

async fn create(writer: &ClusterWriter, name: String) -> Result<()> {
    let port = SlicePort { name: "rpc".into(), protocol: "TCP".into(), number: Some(80), app_protocol: None };
    let (endpoints, labels, annotations) = Default::default();
    let spec = SliceSpec { name, family: Family::V4, port, endpoints, labels, annotations };
    let key = ServiceKey::new("shop", "echo");
    writer.slice(&Owner { key: &key, uid: "u" }, &SliceOp::Create(spec)).await
}

#[tokio::test(start_paused = true)]
async fn sixteen_calls_are_under_way_and_a_wait_for_ones_turn_is_no_failure() {
    let api = FakeApi::default();
    api.delay(Duration::from_secs(4));
    let (writer, _) = writer(&api);
    let started = Instant::now();
    let calls = (0..200).map(|number| {
        let writer = writer.clone();
        tokio::spawn(async move { create(&writer, format!("s-{number}")).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert_eq!(api.most_at_once(), 16);
    assert_eq!(started.elapsed(), Duration::from_secs(13 * 4), "longer than the deadline of a call");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_put_off_is_sent_again_and_a_lost_lease_ends_it() {
    let api = FakeApi::default();
    let (writer, leadership) = writer(&api);
    api.refuse(SLICES, 429);
    let (waiting, writing) = (writer.clone(), api.clone());
    let call = tokio::spawn(async move { create(&waiting, "a".to_owned()).await });
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(writing.take(SLICES).len(), 3, "once a second");
    writing.accept();
    call.await.unwrap().unwrap();
    assert!(api.object(&format!("{SLICES}/a")).is_some());

    // For longer than a minute it is a failure.
    api.refuse(SLICES, 429);
    let started = Instant::now();
    let error = create(&writer, "b".to_owned()).await.unwrap_err();
    assert_eq!((error.label(), started.elapsed().as_secs()), ("unreachable", 60));

    let waiting = writer.clone();
    let call = tokio::spawn(async move { create(&waiting, "c".to_owned()).await });
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    leadership.lost();
    api.accept();
    assert_eq!(call.await.unwrap().unwrap_err().label(), "not_leader");
    assert!(api.object(&format!("{SLICES}/c")).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_answered_ends_after_ten_seconds() {
    let api = FakeApi::default();
    api.stall("/endpointslices");
    let (writer, _) = writer(&api);
    let started = Instant::now();
    let error = create(&writer, "s".to_owned()).await.unwrap_err();
    assert!(matches!(error, ClusterError::Timeout { .. }), "{error}");
    assert_eq!(started.elapsed(), Duration::from_secs(10));
}
