use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Controller;
use super::bench::{Bench, SLICES, STATUS_PACE, bench, key};
use super::observe::observe;
use crate::api::{RegisteredServiceStatus, Unreadable};
use crate::cluster::reach::Reach;
use crate::cluster::view::Kind;

fn unreadable(field: &str) -> Arc<Unreadable> {
    let (fields, problems) = ([field.to_owned()].into(), vec![format!("spec.{field}: unknown variant `New`")]);
    Arc::new(Unreadable { fields, problems, raw: json!({"spec": {}}) })
}

/// One instance each way, written.
async fn both_ways() -> Bench {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    bench.pass().await;
    assert_eq!(bench.keys("main").len(), 2);
    assert_eq!(bench.api.take(SLICES).len(), 1);
    bench.after(STATUS_PACE).await;
    bench
}

/// Others replace the pod and the server: what ended goes, and nothing comes.
async fn everything_is_replaced(bench: &mut Bench) {
    bench.ready(&["10.0.0.2"]);
    bench.etcd().delete(&["p/echo/192.0.2.7:9000"]);
    bench.server_registers("192.0.2.8:9000").await;
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.keys("main"), ["p/echo/192.0.2.8:9000"]);
    let slices = bench.api.take(SLICES);
    assert_eq!((slices.len(), slices[0].method.as_str()), (1, "DELETE"));
}

#[tokio::test(start_paused = true)]
async fn a_registered_service_that_cannot_be_read_is_refused_and_only_what_ended_goes() {
    let mut bench = both_ways().await;
    bench.events();
    bench.controller.views.cluster().unreadable_services.insert(key(), unreadable("direction"));
    bench.pass().await;
    assert_eq!((bench.keys("main").len(), bench.api.take(SLICES).len()), (2, 0), "both live");
    everything_is_replaced(&mut bench).await;
    let (accepted, message) = bench.condition("Accepted");
    assert_eq!(accepted, "False NotSupported");
    assert!(message.contains("spec.direction: unknown variant `New`"), "{message}");
    assert!(bench.events()[0].starts_with("NotAccepted: NotSupported: "));
    assert_eq!(bench.metric(r#"twinspan_services{state="rejected"}"#), "1");

    // Once it can be read it is synced.
    bench.controller.views.cluster().unreadable_services.clear();
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.keys("main"), ["p/echo/10.0.0.2:80", "p/echo/192.0.2.8:9000"]);
    assert_eq!(bench.api.take(SLICES).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_whose_names_cannot_be_read_is_told_all_the_same() {
    let bench = both_ways().await;
    bench.events();
    bench.register_unreadable(&json!({"registryRef": "main"}));
    bench.pass().await;
    bench.after(STATUS_PACE).await;
    assert_eq!((bench.keys("main").len(), bench.api.take(SLICES).len()), (2, 0));
    assert_eq!(bench.condition("Accepted").0, "False NotSupported");
    assert!(bench.events()[0].starts_with("NotAccepted: NotSupported: "));
}

#[tokio::test(start_paused = true)]
async fn of_several_releases_only_those_with_a_part_of_it_write_over_what_another_told() {
    for has_part in [true, false] {
        let bench = if has_part { both_ways().await } else { bench(&["main"]).await };
        bench.register_unreadable(&json!({"registryRef": "main"}));
        let observes = || {
            let Controller { views, checkpoints, .. } = &bench.controller;
            observe(views, checkpoints, &key(), None).is_some()
        };
        assert!(observes(), "the only release");
        {
            let mut view = bench.controller.views.cluster();
            view.set_reach(Reach { registries: ["main".to_owned()].into(), ..Reach::default() });
            for kind in Kind::ALL {
                view.set_synced(kind);
            }
        }
        assert!(observes(), "nobody has told of it");
        {
            let mut view = bench.controller.views.cluster();
            let object = Arc::make_mut(view.registered_services.get_mut(&key()).unwrap());
            let (observed_generation, status) = (object.metadata.generation, RegisteredServiceStatus::default());
            object.status = Some(RegisteredServiceStatus { observed_generation, ..status });
        }
        assert_eq!(observes(), has_part);
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_registry_that_cannot_be_read_only_what_ended_goes() {
    let mut bench = both_ways().await;
    bench.allow("main", &[]);
    bench.controller.views.cluster().unreadable_registries.insert("main".to_owned(), unreadable("allowed"));
    bench.pass().await;
    assert_eq!((bench.keys("main").len(), bench.api.take(SLICES).len()), (2, 0), "nobody knows whom it allows");
    everything_is_replaced(&mut bench).await;
    let (accepted, message) = bench.condition("Accepted");
    assert_eq!(accepted, "False NotSupported");
    assert!(message.starts_with("ServiceRegistry main: "), "{message}");

    // A name that is certainly not allowed goes, whatever else cannot be read.
    bench.controller.views.cluster().unreadable_registries.insert("main".to_owned(), unreadable("importPolicy"));
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.condition("Accepted").0, "False NotAllowed");
}

/// Every kind is heard of now, and for so long only the kinds that are not silent.
async fn silence(bench: &Bench, silent: &[Kind]) {
    for _ in 0..10 {
        let now = bench.controller.views.env.now();
        for kind in Kind::ALL.into_iter().filter(|kind| !silent.contains(kind)) {
            bench.controller.views.cluster().heard(kind, now);
        }
        bench.after(Duration::from_secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_record_is_deleted_while_slices_or_pods_are_silent() {
    for kind in [Kind::EndpointSlice, Kind::Pod, Kind::RegisteredService] {
        let mut bench = both_ways().await;
        silence(&bench, &[]).await;
        silence(&bench, &[kind]).await;
        bench.ready(&["10.0.0.2"]);
        bench.pass().await;
        let both = ["p/echo/10.0.0.1:80", "p/echo/10.0.0.2:80", "p/echo/192.0.2.7:9000"];
        assert_eq!(bench.keys("main"), both, "{kind:?}: additions go on");
        let (exported, message) = bench.condition("Exported");
        assert_eq!(exported, "Unknown ClusterUnavailable", "{kind:?}");
        assert!(
            message.starts_with("no news of ") && message.ends_with("nothing is removed because of it"),
            "{message}"
        );
        assert_eq!(bench.condition("Ready").0, "False ClusterUnavailable");

        let now = bench.controller.views.env.now();
        bench.controller.views.cluster().heard(kind, now);
        bench.after(STATUS_PACE).await;
        bench.pass().await;
        assert_eq!(bench.keys("main"), both[1..], "{kind:?}");
        assert_eq!(bench.condition("Ready").0, "True Synced");
    }
}

#[tokio::test(start_paused = true)]
async fn no_endpoint_is_deleted_while_services_are_silent() {
    let mut bench = both_ways().await;
    bench.server_registers("192.0.2.8:9000").await;
    bench.pass().await;
    bench.api.take(SLICES);
    silence(&bench, &[]).await;
    silence(&bench, &[Kind::Service]).await;
    bench.etcd().delete(&["p/echo/192.0.2.8:9000"]);
    bench.ready(&[]);
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.api.take(SLICES), []);
    assert_eq!(bench.condition("Imported").0, "Unknown ClusterUnavailable");
    assert_eq!(bench.keys("main"), ["p/echo/192.0.2.7:9000"], "exports rest on other kinds");
    bench.remove_service();
    bench.pass().await;
    assert_eq!(bench.api.take(SLICES), [], "nor is it believed that the Service is gone");

    let now = bench.controller.views.env.now();
    bench.controller.views.cluster().heard(Kind::Service, now);
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.api.take(SLICES).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_not_allowed_any_more_is_withdrawn_whatever_is_silent() {
    let bench = both_ways().await;
    silence(&bench, &[]).await;
    silence(&bench, &[Kind::EndpointSlice, Kind::Service]).await;
    let mut object = (*bench.controller.views.cluster().service_registries["main"]).clone();
    object.spec.allowed.clear();
    bench.controller.views.cluster().service_registries.insert("main".into(), Arc::new(object));
    bench.pass().await;
    assert_eq!(bench.keys("main"), ["p/echo/192.0.2.7:9000"]);
    assert_eq!(bench.api.take(SLICES).len(), 1, "the slice is deleted");
}
