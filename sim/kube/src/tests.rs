//! The server through `kube::Client`, as a controller uses it.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{Cluster, Failure, Options, Status, Verb};

fn cluster() -> (Cluster, Client) {
    let cluster = Cluster::new(Options { servers: 2, ..Options::default() });
    let client = Client::new(cluster.server(0), "default");
    (cluster, client)
}

fn slice(name: &str, ip: &str) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "echo"}},
        "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}], "ports": []})
}

fn typed(name: &str, ip: &str) -> EndpointSlice {
    serde_json::from_value(slice(name, ip)).unwrap()
}

fn pod(name: &str, node: Option<&str>) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": "echo"}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}})
}

fn api(client: &Client) -> Api<EndpointSlice> {
    Api::namespaced(client.clone(), "default")
}

#[tokio::test(start_paused = true)]
async fn writes_conflict_as_on_a_real_server() {
    let (cluster, client) = cluster();
    let api = api(&client);
    let post = PostParams::default();
    let first = api.create(&post, &typed("a", "10.0.0.1")).await.unwrap();
    assert_eq!((first.metadata.generation, first.metadata.uid.is_some()), (Some(1), true));
    let error = api.create(&post, &typed("a", "10.0.0.1")).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.is_already_exists()), "{error}");

    let mut second = first.clone();
    second.endpoints[0].addresses[0] = "10.0.0.2".to_owned();
    let second = api.replace("a", &post, &second).await.unwrap();
    assert_eq!(second.metadata.generation, Some(2));
    let error = api.replace("a", &post, &first).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.is_conflict()), "{error}");
    let unchanged = api.replace("a", &post, &second).await.unwrap();
    assert_eq!(unchanged.resource_version(), second.resource_version(), "nothing was written");

    let wanted = Preconditions { resource_version: first.resource_version(), uid: None };
    let params = DeleteParams { preconditions: Some(wanted), ..DeleteParams::default() };
    let error = api.delete("a", &params).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.is_conflict()), "{error}");
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());

    let changes = cluster.changes(0);
    let of_slices: Vec<_> = changes.iter().filter(|change| &*change.resource == "endpointslices").collect();
    assert_eq!(of_slices.len(), 3);
    assert!(of_slices[0].before.is_none() && of_slices[2].after.is_none());
    assert_eq!((&*of_slices[0].author, of_slices[2].name.as_str()), ("unknown", "a"));
}

#[tokio::test(start_paused = true)]
async fn a_patch_with_another_uid_changes_nothing() {
    let (cluster, client) = cluster();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"},
        "spec": {"ports": [{"port": 80}]}});
    let service = cluster.create("person", service).unwrap();
    assert_eq!(service["spec"]["ipFamilyPolicy"], "SingleStack");
    let api: Api<Service> = Api::namespaced(client, "default");
    let patch = |uid: &Value| Patch::Merge(json!({"metadata": {"uid": uid}, "spec": {"ports": [{"port": 81}]}}));
    let error = api.patch("s", &PatchParams::default(), &patch(&json!("other"))).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 422), "{error}");
    let patched = api.patch("s", &PatchParams::default(), &patch(&service["metadata"]["uid"])).await.unwrap();
    assert_eq!(patched.spec.unwrap().ports.unwrap()[0].port, 81);
}

#[tokio::test(start_paused = true)]
async fn pages_show_one_state() {
    let (cluster, client) = cluster();
    for number in 0..5 {
        cluster.create("person", slice(&format!("s{number}"), "10.0.0.1")).unwrap();
    }
    let api = api(&client);
    let mut params = ListParams::default().limit(2);
    let page = api.list(&params).await.unwrap();
    assert_eq!((page.items.len(), page.metadata.remaining_item_count), (2, Some(3)));
    cluster.delete("person", "endpointslices", "default", "s3").unwrap();
    params.continue_token = page.metadata.continue_;
    let page = api.list(&params).await.unwrap();
    assert_eq!(page.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["s2", "s3"]);
    params.continue_token = page.metadata.continue_;
    cluster.compact();
    let error = api.list(&params).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 410), "{error}");
    let chosen = api.list(&ListParams::default().fields("metadata.name=s4")).await.unwrap();
    assert_eq!(chosen.items.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_shows_changes_bookmarks_and_its_end() {
    let (cluster, client) = cluster();
    let began = Instant::now();
    let version = cluster.revision().to_string();
    let params = WatchParams::default().labels("kubernetes.io/service-name=echo").timeout(100);
    let api = api(&client);
    let mut events = api.watch(&params, &version).await.unwrap().boxed();
    cluster.create("person", slice("a", "10.0.0.1")).unwrap();
    cluster.apply("person", slice("a", "10.0.0.2")).unwrap();
    let labels = json!({"metadata": {"labels": {"kubernetes.io/service-name": "other"}}});
    cluster.patch("person", "endpointslices", "default", "a", labels).unwrap();
    cluster.delete("person", "endpointslices", "default", "a").unwrap();
    let mut seen = Vec::new();
    while let Some(event) = events.try_next().await.unwrap() {
        seen.push(match event {
            WatchEvent::Added(slice) => format!("added {}", slice.endpoints[0].addresses[0]),
            WatchEvent::Modified(slice) => format!("modified {}", slice.endpoints[0].addresses[0]),
            WatchEvent::Deleted(slice) => format!("deleted {}", slice.endpoints[0].addresses[0]),
            WatchEvent::Bookmark(bookmark) => {
                assert_eq!(bookmark.metadata.resource_version, cluster.revision().to_string());
                format!("bookmark {}", began.elapsed().as_secs())
            }
            WatchEvent::Error(status) => status.message,
        });
    }
    assert_eq!(seen, ["added 10.0.0.1", "modified 10.0.0.2", "deleted 10.0.0.2", "bookmark 60", "bookmark 98"]);
    assert_eq!(began.elapsed(), Duration::from_secs(100));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_lists_again_after_the_window_is_gone() {
    let (cluster, client) = cluster();
    cluster.create("person", slice("a", "10.0.0.1")).unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut events = watcher(api(&client), config).boxed();
        let first =
            [events.next().await, events.next().await, events.next().await].map(|event| event.unwrap().unwrap());
        assert!(matches!(first, [watcher::Event::Init, watcher::Event::InitApply(_), watcher::Event::InitDone]));
    }
    let mut events = watcher(api(&client), watcher::Config::default()).boxed();
    let next = async |events: &mut futures::stream::BoxStream<
        '_,
        Result<watcher::Event<EndpointSlice>, watcher::Error>,
    >| { timeout(Duration::from_secs(60), events.next()).await.unwrap().unwrap() };
    assert!(matches!(next(&mut events).await, Ok(watcher::Event::Init)));
    assert!(matches!(next(&mut events).await, Ok(watcher::Event::InitApply(_))));
    assert!(matches!(next(&mut events).await, Ok(watcher::Event::InitDone)));
    cluster.create("person", slice("b", "10.0.0.1")).unwrap();
    assert!(matches!(next(&mut events).await, Ok(watcher::Event::Apply(_))));
    cluster.delete("person", "endpointslices", "default", "a").unwrap();
    cluster.compact();
    let error = next(&mut events).await.unwrap_err();
    assert!(error.to_string().contains("too old resource version"), "{error}");
    assert!(matches!(next(&mut events).await, Ok(watcher::Event::Init)));
    assert!(matches!(next(&mut events).await, Ok(watcher::Event::InitApply(slice)) if slice.name_any() == "b"));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_lags_shows_an_older_state_and_consistent_lists_wait() {
    let (cluster, client) = cluster();
    let api = api(&client);
    cluster.create("person", slice("a", "10.0.0.1")).unwrap();
    let old = cluster.revision();
    sleep(Duration::from_secs(1)).await;
    cluster.set_lag(0, Duration::from_secs(2));
    cluster.create("person", slice("b", "10.0.0.1")).unwrap();
    let began = Instant::now();
    let any = ListParams::default().match_any();
    assert_eq!(api.list(&any).await.unwrap().items.len(), 1);
    assert_eq!(api.get_opt("b").await.unwrap().map(|slice| slice.name_any()).as_deref(), Some("b"));
    let mut events = api.watch(&WatchParams::default(), &old.to_string()).await.unwrap().boxed();
    assert!(matches!(events.next().await.unwrap().unwrap(), WatchEvent::Added(_)));
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    cluster.create("person", slice("c", "10.0.0.1")).unwrap();
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 3);
    assert_eq!(began.elapsed(), Duration::from_secs(4));
    let later = ListParams::default().at(&(cluster.revision() + 5).to_string());
    let later = later.matching(kube::api::VersionMatch::NotOlderThan);
    let error = api.list(&later).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 504), "{error}");
}

#[tokio::test(start_paused = true)]
async fn servers_fail_as_they_are_told() {
    let (cluster, client) = cluster();
    let api = api(&client);
    let other: Api<EndpointSlice> = Api::namespaced(Client::new(cluster.server(1), "default"), "default");
    cluster.set_down(0, true);
    assert!(matches!(api.list(&ListParams::default()).await.unwrap_err(), kube::Error::Service(_)));
    assert!(other.list(&ListParams::default()).await.is_ok());
    cluster.set_down(0, false);

    let post = PostParams::default();
    let failure = |status, after_applying| Failure {
        verb: Some(Verb::Create),
        resource: Some("endpointslices".to_owned()),
        status,
        after_applying,
    };
    cluster.fail_next(0, 1, failure(Status::too_many_requests(7), false));
    let error = api.create(&post, &typed("a", "10.0.0.1")).await.unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(status) if status.code == 429 && status.details.as_ref().unwrap().retry_after_seconds == 7),
        "{error}"
    );
    assert!(cluster.get("endpointslices", "default", "a").is_none());
    cluster.fail_next(0, 1, failure(Status::unavailable(), true));
    api.create(&post, &typed("a", "10.0.0.1")).await.unwrap_err();
    assert!(cluster.get("endpointslices", "default", "a").is_some());

    cluster.refuse_list("endpointslices", true);
    let error = other.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.is_forbidden()), "{error}");

    cluster.set_frozen(0, true);
    let creating = tokio::spawn({
        let api = api.clone();
        async move { api.create(&PostParams::default(), &typed("late", "10.0.0.1")).await }
    });
    sleep(Duration::from_secs(30)).await;
    assert!(cluster.get("endpointslices", "default", "late").is_none());
    cluster.set_frozen(0, false);
    creating.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn watches_break_stall_and_leave_events_out() {
    let (cluster, client) = cluster();
    let api = api(&client);
    let watch = async || api.watch(&WatchParams::default(), &cluster.revision().to_string()).await.unwrap().boxed();
    let mut broken = watch().await;
    cluster.cut_watches(0);
    broken.next().await.unwrap().unwrap_err();

    let mut stalled = watch().await;
    cluster.stall_watches(0, true);
    cluster.create("person", slice("a", "10.0.0.1")).unwrap();
    assert!(timeout(Duration::from_secs(1000), stalled.next()).await.is_err());
    cluster.stall_watches(0, false);

    let mut skipping = watch().await;
    cluster.skip_events(0, "endpointslices", 1);
    cluster.create("person", slice("b", "10.0.0.1")).unwrap();
    cluster.create("person", slice("c", "10.0.0.1")).unwrap();
    let event = skipping.next().await.unwrap().unwrap();
    assert!(matches!(&event, WatchEvent::Added(slice) if slice.name_any() == "c"), "{event:?}");

    let old = cluster.revision().to_string();
    cluster.create("person", slice("d", "10.0.0.1")).unwrap();
    cluster.restart(0);
    let mut expired = api.watch(&WatchParams::default(), &old).await.unwrap().boxed();
    let event = expired.next().await.unwrap().unwrap();
    assert!(matches!(&event, WatchEvent::Error(status) if status.code == 410), "{event:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restored_control_plane_has_the_objects_of_its_backup() {
    for goes_back in [false, true] {
        let (cluster, client) = cluster();
        let api = api(&client);
        cluster.create("person", slice("a", "10.0.0.1")).unwrap();
        let snapshot = cluster.snapshot();
        cluster.apply("person", slice("a", "10.0.0.2")).unwrap();
        cluster.create("person", slice("b", "10.0.0.1")).unwrap();
        let before = cluster.revision();
        let mut open = api.watch(&WatchParams::default(), &before.to_string()).await.unwrap().boxed();
        cluster.restore(if goes_back { snapshot.going_back() } else { snapshot });
        open.next().await.unwrap().unwrap_err();
        assert_eq!(cluster.revision() < before, goes_back);
        let list = api.list(&ListParams::default()).await.unwrap();
        assert_eq!(list.metadata.resource_version, Some(cluster.revision().to_string()));
        assert_eq!((list.items.len(), list.items[0].endpoints[0].addresses[0].as_str()), (1, "10.0.0.1"));
        let mut events = api.watch(&WatchParams::default(), &before.to_string()).await.unwrap().boxed();
        cluster.create("person", slice("c", "10.0.0.1")).unwrap();
        if goes_back {
            // The version from before lies in the future.
            assert!(timeout(Duration::from_secs(10), events.next()).await.is_err());
        } else {
            let event = events.next().await.unwrap().unwrap();
            assert!(matches!(&event, WatchEvent::Error(status) if status.code == 410), "{event:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pods_terminate_gracefully() {
    let (cluster, client) = cluster();
    let pods: Api<Pod> = Api::namespaced(client, "default");
    cluster.create("person", pod("waits", Some("node"))).unwrap();
    cluster.create("person", pod("unscheduled", None)).unwrap();
    pods.delete("unscheduled", &DeleteParams::default()).await.unwrap();
    assert!(cluster.get("pods", "default", "unscheduled").is_none());
    pods.delete("waits", &DeleteParams::default()).await.unwrap();
    let waiting = cluster.get("pods", "default", "waits").unwrap();
    assert_eq!(waiting["metadata"]["deletionGracePeriodSeconds"], 30);
    sleep(Duration::from_secs(10)).await;
    let shorter = |seconds: u64| {
        let options = json!({"gracePeriodSeconds": seconds});
        cluster.delete_with("person", "pods", "default", "waits", &options).unwrap()["metadata"].clone()
    };
    assert_eq!(shorter(40), waiting["metadata"], "never longer");
    assert_eq!(shorter(20)["deletionTimestamp"], "2026-01-01T00:00:20Z");
    let over = shorter(5);
    assert_eq!(
        (&over["deletionTimestamp"], &over["deletionGracePeriodSeconds"]),
        (&json!("2026-01-01T00:00:10Z"), &json!(1))
    );
    cluster.delete_with("kubelet", "pods", "default", "waits", &json!({"gracePeriodSeconds": 0})).unwrap();
    assert!(cluster.get("pods", "default", "waits").is_none());
}

#[tokio::test(start_paused = true)]
async fn controllers_fill_slices_collect_garbage_and_empty_namespaces() {
    let (cluster, _) = cluster();
    let wait = Duration::from_millis(100);
    tokio::spawn(cluster.garbage_collector(wait));
    tokio::spawn(cluster.endpoint_slice_controller(wait, 7));
    tokio::spawn(cluster.namespace_controller(wait));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    cluster.create("person", namespace).unwrap();
    let place = |mut object: Value| {
        object["metadata"]["namespace"] = json!("shop");
        object
    };
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo"},
        "spec": {"clusterIP": "None", "selector": {"app": "echo"}, "ports": [{"port": 80}]}});
    cluster.create("person", place(service)).unwrap();
    cluster.create("person", place(pod("a", Some("node")))).unwrap();
    let status = json!({"status": {"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}],
        "conditions": [{"type": "Ready", "status": "True"}]}});
    cluster.patch_status("kubelet", "pods", "shop", "a", status).unwrap();
    sleep(Duration::from_secs(1)).await;
    let endpoints = |cluster: &Cluster| -> usize {
        cluster.all("endpointslices").iter().filter_map(|slice| slice["endpoints"].as_array()).map(Vec::len).sum()
    };
    assert_eq!(endpoints(&cluster), 1);
    let still = cluster.revision();
    cluster.restart(0);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.revision(), still, "nothing changed");

    cluster.delete("person", "services", "shop", "echo").unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(cluster.all("endpointslices").is_empty());

    cluster.delete("person", "namespaces", "", "shop").unwrap();
    let refused = cluster.create("person", place(pod("b", None))).unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (403, "Forbidden"));
    sleep(Duration::from_secs(1)).await;
    assert!(cluster.get("namespaces", "", "shop").is_some(), "a pod terminates in it");
    cluster.delete_with("kubelet", "pods", "shop", "a", &json!({"gracePeriodSeconds": 0})).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(cluster.get("namespaces", "", "shop").is_none());
}
