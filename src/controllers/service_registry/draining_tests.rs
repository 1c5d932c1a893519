use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use twinspan_core::model::{LeaseId, ObjectKey};

use super::bench::{Bench, bench, echo, etcd, put_own, registry};
use crate::api::ServiceRegistry;
use crate::cluster::convert::SecretView;
use crate::cluster::view::ClusterEvent;
use crate::registry::phase::Phase;
use crate::registry::sessions::Running;

const MAIN: &str = "http://main:2379";

#[tokio::test(start_paused = true)]
async fn a_deleted_registry_is_followed_until_its_records_are_withdrawn() {
    put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", LeaseId::NONE);
    let mut bench = bench();
    bench.put(registry("main", 1, &json!({}))).await;
    let handle = bench.handle("main").unwrap();
    bench.queue.take_enqueued();
    bench.delete("main").await;
    assert!(bench.handle("main").is_none());
    assert_eq!(bench.views.registries.all().len(), 1, "its records can still be withdrawn");
    assert!(bench.queue.take_enqueued().contains(&echo()), "by their owner");
    assert_eq!(bench.metric(r#"twinspan_registry_ready{registry="main"}"#), None);
    assert_eq!(handle.status().phase, Phase::Watching);
    etcd(MAIN).delete(&["p/echo/10.0.0.1:80"]);
    bench.after(Duration::from_secs(1)).await;
    assert!(bench.views.registries.all().is_empty());
    assert!(handle.connection().is_err());
}

#[tokio::test(start_paused = true)]
async fn records_that_nobody_withdraws_do_not_keep_a_deleted_registry_for_ever() {
    put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", LeaseId::NONE);
    let bench = bench();
    bench.put(registry("main", 1, &json!({}))).await;
    bench.delete("main").await;
    bench.after(Duration::from_secs(31)).await;
    assert!(bench.views.registries.all().is_empty());
    assert!(etcd(MAIN).records().contains_key("p/echo/10.0.0.1:80"), "they expire with their lease");

    // One that comes back within that time finds its records again.
    bench.put(registry("main", 1, &json!({}))).await;
    bench.delete("main").await;
    bench.put(registry("main", 1, &json!({}))).await;
    assert_eq!(bench.views.registries.all().len(), 1);
    assert_eq!(bench.handle("main").unwrap().view().counts().own, 1);
}

/// Without a prefix another ServiceRegistry sees the same records.
#[tokio::test(start_paused = true)]
async fn what_a_deleted_registry_left_behind_is_withdrawn_through_another_one_that_sees_it() {
    let mut bench = bench();
    let spec = json!({"spec": {"prefix": "", "etcd": {"endpoints": [MAIN]}}});
    bench.put(registry("main", 1, &spec)).await;
    bench.put(registry("other", 2, &spec)).await;
    let (main, other) = (bench.handle("main").unwrap(), bench.handle("other").unwrap());
    for (handle, key) in [(&main, "/echo/10.0.0.1:80"), (&other, "/echo/10.0.0.2:80")] {
        etcd(MAIN).grant_for(handle.leases.id(0), Duration::from_secs(3600));
        put_own(&etcd(MAIN), key, handle.leases.id(0));
        handle.find_orphans.notify_one();
        bench.after(Duration::from_secs(1)).await;
    }
    assert_eq!((main.view().counts().own, other.view().counts().own), (2, 2));
    bench.delete("other").await;
    bench.after(Duration::from_secs(20)).await;
    assert_eq!(bench.views.registries.all().len(), 2);
    bench.queue.take_enqueued();
    bench.after(Duration::from_secs(11)).await;
    assert_eq!(bench.views.registries.all().len(), 1);
    assert!(bench.queue.take_enqueued().contains(&echo()));
    // Nothing waits for what is not its own.
    bench.put(registry("other", 3, &spec)).await;
    etcd(MAIN).delete(&["/echo/10.0.0.2:80"]);
    bench.delete("other").await;
    bench.after(Duration::from_secs(1)).await;
    assert_eq!(bench.views.registries.all().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_replaced_at_once_withdraws_its_old_place() {
    put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", LeaseId::NONE);
    let mut bench = bench();
    bench.put(registry("main", 1, &json!({}))).await;
    bench.queue.take_enqueued();
    let other = json!({"metadata": {"uid": "another"}, "spec": {"prefix": "q"}});
    bench.put(registry("main", 2, &other)).await;
    assert!(bench.handle("main").is_none());
    assert_eq!(bench.views.registries.all()[0].layout.prefix(), "p");
    assert!(bench.queue.take_enqueued().contains(&echo()), "the owner withdraws its record");
    etcd(MAIN).delete(&["p/echo/10.0.0.1:80"]);
    bench.after(Duration::from_secs(1)).await;
    assert_eq!(bench.handle("main").unwrap().layout.prefix(), "q");
    assert_eq!(bench.views.registries.all().len(), 1);
}

fn fenced(prefix: &str, ttl: u32) -> ServiceRegistry {
    let fence = json!({"mode": "Epoch", "keyPrefix": "twinspan/"});
    registry("main", 1, &json!({"spec": {"prefix": prefix, "fence": fence, "lease": {"ttlSeconds": ttl}}}))
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_was_refused_in_the_former_place_stays_refused_whether_or_not_a_status_told_so() {
    for created_again in [false, true] {
        put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", LeaseId::NONE);
        let bench = bench();
        bench.put(fenced("p", 300)).await;
        let former = bench.handle("main").unwrap();
        if created_again {
            bench.delete("main").await;
        }
        bench.put(fenced("q", 300)).await;
        assert!(bench.handle("main").is_none(), "it waits for the withdrawal");
        former.fence.as_ref().unwrap().refuse("7/clone");
        etcd(MAIN).delete(&["p/echo/10.0.0.1:80"]);
        bench.after(Duration::from_secs(1)).await;
        let refused = || bench.handle("main").unwrap().fence.as_ref().unwrap().refused();
        assert_eq!(refused().as_deref(), Some("7/clone"));
        // Another TTL is another session of the same place.
        bench.put(fenced("q", 90)).await;
        assert_eq!(refused().as_deref(), Some("7/clone"));
    }
}

/// The status of the new object says nothing yet, and the former object is gone.
#[tokio::test(start_paused = true)]
async fn the_epoch_of_the_former_place_counts_in_the_next_one() {
    for (exported, created_again) in [(true, false), (true, true), (false, true)] {
        if exported {
            put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", LeaseId::NONE);
        }
        let bench = bench();
        bench.put(fenced("p", 300)).await;
        let former = bench.handle("main").unwrap();
        if created_again {
            bench.delete("main").await;
            // A session without records of ours is gone at once.
            assert_eq!(bench.views.registries.all().is_empty(), !exported);
        }
        former.fence.as_ref().unwrap().know(7);
        bench.put(fenced("q", 300)).await;
        etcd(MAIN).delete(&["p/echo/10.0.0.1:80"]);
        bench.after(Duration::from_secs(1)).await;
        let highest = || bench.handle("main").unwrap().fence.as_ref().unwrap().highest();
        assert_eq!(highest(), 7, "exported: {exported}, created again: {created_again}");
        bench.put(fenced("q", 90)).await;
        assert_eq!(highest(), 7, "with another TTL");
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_only_a_list_lacks_goes_on_until_it_is_there_again() {
    put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", LeaseId::NONE);
    let bench = bench();
    bench.put(registry("main", 1, &json!({}))).await;
    let handle = bench.handle("main").unwrap();
    bench.views.cluster().vanished_registries.insert("main".into());
    bench.delete("main").await;
    bench.after(Duration::from_secs(200)).await;
    assert!(handle.kept.hold().is_some() && handle.status().phase == Phase::Watching);
    let again = registry("main", 2, &json!({"metadata": {"uid": "another"}}));
    bench.put(again.clone()).await;
    assert!(Arc::ptr_eq(&handle, &bench.handle("main").unwrap()), "the session serves the new object");
    assert_eq!((handle.kept.hold(), bench.views.registries.all().len()), (None, 1));
    bench.after(Duration::from_secs(400)).await;
    assert!(handle.connection().is_ok(), "nothing ends it later");
    // Created again within one event, it is the same session too.
    bench.put(registry("main", 3, &json!({"metadata": {"uid": "third"}}))).await;
    assert!(Arc::ptr_eq(&handle, &bench.handle("main").unwrap()));

    bench.views.cluster().vanished_registries.insert("main".into());
    bench.delete("main").await;
    bench.after(Duration::from_secs(301)).await;
    assert_eq!(handle.kept.hold(), None, "its owners withdraw now");
    bench.after(Duration::from_secs(31)).await;
    assert!(bench.views.registries.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_being_adopted_as_its_time_ends_goes_on() {
    put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", LeaseId::NONE);
    let bench = bench();
    bench.put(registry("main", 1, &json!({}))).await;
    bench.delete("main").await;
    // Between the two steps of an adoption the session is on neither list.
    let adopted = bench.views.registries.draining().pop().unwrap();
    bench.after(Duration::from_secs(31)).await;
    assert!(!adopted.running.stop.is_cancelled() && adopted.running.handle.connection().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_goes_with_its_services_is_kept_and_one_that_goes_alone_is_not() {
    for with_services in [true, false] {
        let bench = bench();
        for n in 0..12 {
            let owner = format!("c1/shop/s-{n:02}");
            let value = json!({"network": "tcp", "address": format!("10.0.1.{n}:80"), "weight": 10,
                "tags": {"twinspan.dev/owner": owner}});
            etcd(MAIN).put(&format!("p/s-{n:02}/10.0.1.{n}:80"), &value.to_string(), LeaseId::NONE);
            if !with_services {
                let key = twinspan_core::model::ServiceKey::new("shop", format!("s-{n:02}"));
                let object: crate::api::RegisteredService = serde_json::from_value(json!({
                    "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
                    "metadata": {"name": key.name, "namespace": "shop", "uid": key.name},
                    "spec": {"registryRef": {"name": "main"}},
                }))
                .unwrap();
                let mut view = bench.views.cluster();
                view.index.put(&key, &object);
                view.registered_services.insert(key, Arc::new(object));
            }
        }
        bench.put(registry("main", 1, &json!({}))).await;
        let handle = bench.handle("main").unwrap();
        bench.delete("main").await;
        bench.after(Duration::from_secs(60)).await;
        assert_eq!(handle.kept.hold().is_some(), with_services);
        assert_eq!(bench.views.registries.all().is_empty(), !with_services);
    }
}

/// The Secret `etcd-user` has this password; an empty one means that it is gone.
async fn password_is(bench: &Bench, password: &str) {
    let key = ObjectKey::new("twinspan-system", "etcd-user");
    let data = ["username", "password"].map(|key| (key.to_owned(), password.as_bytes().to_vec()));
    let secret = Arc::new(SecretView { data: data.into_iter().collect() });
    if password.is_empty() {
        bench.views.cluster().secrets.remove(&key);
    } else {
        bench.views.cluster().secrets.insert(key, secret);
    }
    bench.cluster_shows(ClusterEvent::Secret).await;
}

fn password_of(running: &Running) -> String {
    running.settings.connection.user.clone().unwrap().1
}

#[tokio::test(start_paused = true)]
async fn a_session_that_drains_follows_the_secrets_of_its_registry() {
    put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", LeaseId::NONE);
    let bench = bench();
    password_is(&bench, "former").await;
    let auth = json!({"spec": {"etcd": {"auth": {"secretRef": {"name": "etcd-user"}}}}});
    bench.put(registry("main", 1, &auth)).await;
    let handle = bench.handle("main").unwrap();
    bench.views.cluster().vanished_registries.insert("main".into());
    bench.delete("main").await;
    let drains = || bench.views.registries.draining()[0].running.clone();
    let before = handle.connection().unwrap();
    password_is(&bench, "former").await;
    assert!(Arc::ptr_eq(&before, &handle.connection().unwrap()), "nothing changed");
    password_is(&bench, "new").await;
    assert!(Arc::ptr_eq(&handle, &drains().handle) && password_of(&drains()) == "new");
    let renewed = handle.connection().unwrap();
    assert!(!Arc::ptr_eq(&before, &renewed) && handle.kept.hold().is_some(), "the hold goes on");
    assert_eq!((handle.status().phase, handle.view().counts().own), (Phase::Watching, 1));
    password_is(&bench, "").await;
    assert!(Arc::ptr_eq(&renewed, &handle.connection().unwrap()), "nothing says that it should end");
    bench.after(Duration::from_secs(331)).await;
    assert!(bench.views.registries.all().is_empty() && handle.connection().is_err(), "the renewed session ends too");
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_registry_asks_for_a_secret_that_is_missing_follows_the_one_it_has() {
    let bench = bench();
    password_is(&bench, "former").await;
    let auth = |secret: &str| json!({"spec": {"etcd": {"auth": {"secretRef": {"name": secret}}}}});
    bench.put(registry("main", 1, &auth("etcd-user"))).await;
    let handle = bench.handle("main").unwrap();
    bench.put(registry("main", 1, &auth("missing"))).await;
    assert_eq!(bench.conditions("main")[0], "False SecretNotFound");
    let before = handle.connection().unwrap();
    password_is(&bench, "new").await;
    assert!(Arc::ptr_eq(&handle, &bench.handle("main").unwrap()));
    assert_eq!(password_of(&bench.views.registries.running()["main"]), "new");
    assert!(!Arc::ptr_eq(&before, &handle.connection().unwrap()));
    assert_eq!(bench.conditions("main")[0], "False SecretNotFound", "the status still says so");
}
