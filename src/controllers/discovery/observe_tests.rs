//! Objects of other releases, and how long the names of a registry count as those of one life.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use twinspan_core::model::{LeaseId, RegistryName, ServiceKey};
use twinspan_core::plan::discovery::facts::{Names, Wanted, Wants};
use twinspan_core::plan::discovery::history::History;
use twinspan_core::plan::discovery::refusals::Why;
use twinspan_core::plan::discovery::{Memory, plan};

use super::super::objects::made;
use super::super::report;
use super::super::tests::{stored, views};
use super::observe;
use crate::api::conditions::Reason;
use crate::api::{RegisteredService, ServiceRegistry, Stored};
use crate::cluster::kinds::Watched;
use crate::cluster::reach::{Limits, Reach};
use crate::cluster::view::{ClusterEvent, Kind};
use crate::controllers::service_registry::bench::{self, RECONNECT, bench, etcd};
use crate::controllers::views::Views;
use crate::registry::guards::Swept;

/// Another reach has other parts to list.
fn all_synced(views: &Views) {
    let mut view = views.cluster();
    for kind in Kind::ALL {
        for part in view.reach().parts(kind) {
            view.watching.set_listed(kind, &part);
        }
    }
}

/// Events of the watch of the API server.
fn shown(views: &Views, object: &RegisteredService) -> Vec<ClusterEvent> {
    let object: Stored<RegisteredService> = serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap();
    let key = object.object.key();
    Watched::put(&mut views.cluster(), key, object)
}

#[test]
fn an_object_of_another_release_takes_the_name_and_one_of_ours_that_was_moved_there_comes_back() {
    let views = views(&json!({"policy": "Sync", "export": {"namespaceSelector": {}, "serviceSelector": {}}}));
    let other: ServiceRegistry = serde_json::from_value(json!({
        "metadata": {"name": "other", "uid": "o"}, "spec": {"etcd": {"endpoints": []}, "format": "Kitex", "allowed": []},
    }))
    .unwrap();
    views.cluster().unserved_registries.insert("other".into(), Arc::new(other));
    views.cluster().set_reach(Reach { registries: ["main".to_owned()].into(), ..Reach::default() });
    all_synced(&views);
    let object = |name: &str, registry: &str, uid: &str| {
        let kind = Wants::Export { service_uid: name.into(), port: None, weight: None };
        let wanted =
            Wanted { key: ServiceKey::new("shop", name), registry_name: RegistryName::new(name).unwrap(), kind };
        stored(made(&wanted, registry, uid))
    };
    let planned = |memory: &Memory| {
        let sight = observe(&views, "main").unwrap();
        let found = plan(&sight.facts(), memory, views.env.now());
        let taken = found.refusals.told.iter().map(|(subject, refusal)| (subject.clone(), refusal.why)).collect();
        let restored = found.updates.iter().map(|update| (update.wanted.key.name.clone(), update.restores)).collect();
        let right = found.updates.iter().all(|update| sight.object(&update.wanted.key).is_some());
        (found.creates.len(), taken, restored, right, found.memory)
    };
    let changes = |object: &RegisteredService| {
        let before = views.cluster().discoverable;
        let events = shown(&views, object);
        (views.cluster().discoverable != before, events.contains(&ClusterEvent::Selects("shop".into())))
    };
    let none: Vec<(String, Why)> = Vec::new();
    let nothing: Vec<(String, bool)> = Vec::new();
    // The other release discovers the same Service, and had it first.
    assert_eq!(changes(&object("a", "other", "o")), (true, true));
    assert_eq!(changes(&object("a", "other", "o")), (false, false));
    shown(&views, &object("b", "main", "r"));
    let (created, taken, restored, _, memory) = planned(&Memory::default());
    assert_eq!((created, taken, restored), (0, vec![("Service shop/a".to_owned(), Why::NameTaken)], nothing));
    // An edit of the reference takes an object of ours away, and another one is made in place of one that is gone.
    assert!(changes(&object("b", "other", "r")).0);
    Stored::<RegisteredService>::remove(&mut views.cluster(), &ServiceKey::new("shop", "a"));
    let (created, taken, restored, right, _) = planned(&memory);
    assert_eq!((created, taken, restored, right), (1, none, vec![("b".to_owned(), true)], true));
    // No ServiceRegistry of that name may want it, and no status tells what it has.
    views.cluster().unserved_registries.clear();
    let mut without = views.cluster().service_registries["main"].as_ref().clone();
    without.spec.discovery = None;
    views.cluster().service_registries.insert("main".into(), Arc::new(without));
    assert!(super::registries(&views, std::iter::empty()).contains("main"), "its label names it");
    let sight = observe(&views, "main").unwrap();
    let swept = plan(&sight.facts(), &Memory::default(), views.env.now()).sweeps;
    assert_eq!(swept.iter().map(|sweep| (sweep.key.name.as_str(), sweep.idle)).collect::<Vec<_>>(), [("b", false)]);
}

/// The names of `main`, and what tells their life.
fn names(views: &Views) -> (Vec<String>, String) {
    match observe(views, "main").unwrap().names() {
        Names::Complete { foreign, basis } => (foreign.iter().map(ToString::to_string).collect(), basis.clone()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn names_are_of_one_life_as_long_as_the_incarnation_is_and_without_one_for_a_session() {
    for (mode, is_same) in [("Epoch", true), ("None", false)] {
        let (bench, endpoint) = (bench(), format!("http://{mode}:2379"));
        let discovery = json!({"policy": "Sync", "import": {"namespace": "vms"}});
        let spec = json!({"etcd": {"endpoints": [endpoint]}, "fence": {"mode": mode}, "discovery": discovery});
        etcd(&endpoint).put("p/echo/10.0.0.1:80", r#"{"network":"tcp","address":"10.0.0.1:80"}"#, LeaseId(0));
        bench.put(bench::registry("main", 1, &json!({"spec": spec}))).await;
        bench.after(RECONNECT).await;
        let before = names(&bench.views);
        assert_eq!(before.0, ["echo"], "{mode}");
        let seen = super::seen(&bench.views, bench.views.env.now());
        etcd(&endpoint).cut();
        bench.after(Duration::from_millis(1)).await;
        assert_eq!(observe(&bench.views, "main").unwrap().names(), &Names::Unknown);
        assert_ne!(super::seen(&bench.views, bench.views.env.now()), seen, "it is looked at");
        bench.after(RECONNECT).await;
        let after = names(&bench.views);
        assert_eq!((after.0, after.1 == before.1), (before.0, is_same), "{mode}");
    }
}

#[test]
fn a_namespace_that_this_release_does_not_look_at_is_not_one_to_create() {
    for (namespaces, says) in [(["shop", "other"], "create it"), (["shop", "vms"], "namespaced.namespaces")] {
        let views = views(&json!({"policy": "Sync", "import": {"namespace": "other"}}));
        let limits = Limits { namespaces: namespaces.map(str::to_owned).into(), ..Limits::default() };
        views.cluster().set_reach(Reach { release: Some("team".into()), limits: Some(limits), ..Reach::default() });
        let mut held = views.cluster().service_registries["main"].as_ref().clone();
        held.status = serde_json::from_value(json!({"holder": "team"})).unwrap();
        views.cluster().service_registries.insert("main".into(), Arc::new(held));
        all_synced(&views);
        let sight = observe(&views, "main").unwrap();
        let found = plan(&sight.facts(), &Memory::default(), views.env.now());
        let status = report::found(&sight, &found, &Swept::default(), &History::default(), views.env.now());
        assert_eq!(status.condition.reason, Reason::NamespaceMissing);
        assert!(status.condition.message.contains(says), "{}", status.condition.message);
    }
}
