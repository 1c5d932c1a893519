use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;

use super::bench::{Bench, SLICES, bench, key};
use crate::api::RegisteredService;
use crate::controllers::queue::Action;

/// Two servers, imported; returns the bench and the name of the slice.
async fn synced() -> (Bench, String) {
    let bench = bench(&["main"]).await;
    for server in ["192.0.2.7:9000", "192.0.2.8:9000"] {
        bench.server_registers(server).await;
    }
    bench.pass().await;
    let name = bench.api.take(SLICES)[0].body["metadata"]["name"].as_str().unwrap().to_owned();
    (bench, name)
}

/// Somebody edits the owner references of the slice, and the watch shows it.
fn owners(bench: &Bench, name: &str, owners: &Value) {
    let path = format!("{SLICES}/{name}");
    let mut object = bench.api.object(&path).unwrap();
    let version: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    object["metadata"]["resourceVersion"] = json!((version + 100).to_string());
    object["metadata"]["ownerReferences"] = owners.clone();
    bench.api.put(&path, object);
    bench.show_slice(name);
}

#[tokio::test(start_paused = true)]
async fn a_slice_without_its_owner_is_taken_back() {
    let (bench, name) = synced().await;
    owners(&bench, &name, &json!([]));
    bench.pass().await;
    let written = bench.api.take(SLICES);
    assert_eq!((written.len(), written[0].method.as_str()), (1, "PUT"), "nothing else is wrong with it");
    assert_eq!(written[0].body["metadata"]["ownerReferences"][0]["uid"], "uid-1");

    owners(&bench, &name, &json!([]));
    bench.etcd().delete(&["p/echo/192.0.2.7:9000"]);
    bench.after(Duration::from_millis(500)).await;
    bench.pass().await;
    let written = bench.api.take(SLICES);
    assert_eq!((written.len(), written[0].method.as_str()), (1, "PUT"));
    assert_eq!(written[0].body["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    assert_eq!(written[0].body["endpoints"].as_array().unwrap().len(), 1, "it is corrected");
    bench.pass().await;
    assert_eq!(bench.api.take(SLICES), []);
}

#[tokio::test(start_paused = true)]
async fn a_slice_that_another_controller_has_is_left_alone() {
    let (bench, name) = synced().await;
    let other = json!([{"apiVersion": "example.org/v1", "kind": "Mesh", "name": "m", "uid": "m", "controller": true}]);
    owners(&bench, &name, &other);
    bench.unregister();
    bench.pass().await;
    assert_eq!(bench.api.take(SLICES), []);
}

#[tokio::test(start_paused = true)]
async fn a_slice_whose_owner_is_another_one_is_left_to_it() {
    let (bench, name) = synced().await;
    let other = json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
        "metadata": {"name": "other", "namespace": "shop", "uid": "uid-2"}, "spec": {"registryRef": {"name": "main"}},
    });
    let other: RegisteredService = serde_json::from_value(other).unwrap();
    bench.controller.views.cluster().index.put(&ServiceKey::new("shop", "other"), &other);
    // The name in the reference is wrong, and the UID counts.
    let owner = json!([{"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "name": "echo",
        "uid": "uid-2", "controller": true}]);
    owners(&bench, &name, &owner);
    bench.unregister();
    bench.pass().await;
    assert_eq!(bench.api.take(SLICES), []);
}

#[tokio::test(start_paused = true)]
async fn a_slice_without_an_owner_goes_once_nobody_stands_for_it() {
    let (bench, name) = synced().await;
    owners(&bench, &name, &json!([]));
    let stray = slice(&bench);
    assert_eq!(bench.controller.views.cluster().stray("shop", &stray), Some(key()));
    bench.unregister();
    assert_eq!(bench.pass().await.action, Action::Forget);
    let written = bench.api.take(SLICES);
    assert_eq!((written.len(), written[0].method.as_str()), (1, "DELETE"));
    assert_eq!(written[0].body["preconditions"]["resourceVersion"], stray.resource_version);
}

fn slice(bench: &Bench) -> twinspan_core::model::Slice {
    (*bench.controller.views.cluster().slices.of_keeper(&key())[0]).clone()
}

#[tokio::test(start_paused = true)]
async fn a_slice_whose_owner_this_process_never_knew_waits_for_it() {
    let (bench, name) = synced().await;
    let unknown = json!([{"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "name": "echo",
        "uid": "uid-0", "controller": true}]);
    bench.unregister();
    bench.controller.checkpoints.remove(&key());
    owners(&bench, &name, &unknown);
    assert!(matches!(bench.pass().await.action, Action::RequeueAfter(wait) if wait > Duration::from_secs(29)));
    bench.after(Duration::from_secs(20)).await;
    bench.pass().await;
    assert_eq!(bench.api.take(SLICES), [], "the RegisteredService may have been made a moment ago");
    bench.after(Duration::from_secs(11)).await;
    assert_eq!(bench.pass().await.action, Action::Forget);
    assert_eq!(bench.api.take(SLICES)[0].method, "DELETE");
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_a_finalizer_is_gone() {
    let (mut bench, _) = synced().await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    assert_eq!(bench.keys("main").len(), 3);
    {
        let mut view = bench.controller.views.cluster();
        let object = Arc::make_mut(view.registered_services.get_mut(&key()).unwrap());
        object.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    }
    bench.api.take("");
    assert_eq!(bench.pass().await.action, Action::Forget);
    assert_eq!(bench.keys("main").len(), 2, "its own record goes");
    bench.events();
    let written = bench.api.take("");
    assert_eq!((written.len(), written[0].method.as_str()), (1, "DELETE"), "its slice goes, and no status is written");
    bench.pass().await;
    assert_eq!(bench.api.take(SLICES), [], "and none is made again");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_waits_for_a_finalizer_is_gone() {
    let (bench, _) = synced().await;
    {
        let mut view = bench.controller.views.cluster();
        let object = Arc::make_mut(view.service_registries.get_mut("main").unwrap());
        object.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    }
    bench.after(Duration::from_secs(6)).await;
    bench.pass().await;
    assert_eq!(bench.condition("Accepted").0, "False RegistryNotFound");
    assert_eq!(bench.api.take(SLICES)[0].method, "DELETE");
}
