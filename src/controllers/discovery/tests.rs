//! Objects of discovery both ways, what the views show of them, and the condition.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use twinspan_core::model::{RegistryName, ServiceKey};
use twinspan_core::plan::discovery::facts::{Origin, Wanted, Wants};
use twinspan_core::plan::discovery::history::{Failure, History, Kind as FailureKind, Op};
use twinspan_core::plan::discovery::{Memory, plan};

use super::objects::{Known, Registries, made, put_right, reduce};
use super::{Controller, observe, report};
use crate::api::conditions::Reason;
use crate::api::discovered::DISCOVERED_BY;
use crate::api::{RegisteredService, ServiceRegistry, Unreadable};
use crate::cluster::convert::{self, NamespaceView};
use crate::cluster::fake_api::FakeApi;
use crate::cluster::reach::{Limits, Reach};
use crate::cluster::view::Kind;
use crate::controllers::views::Views;
use crate::controllers::writers::Writers;
use crate::env::Env;
use crate::leadership::Leadership;
use crate::registry::guards::Swept;

fn wanted(name: &str, kind: Wants) -> Wanted {
    Wanted { key: ServiceKey::new("shop", "echo"), registry_name: RegistryName::new(name).unwrap(), kind }
}

fn export(port: Option<&str>, weight: Option<u32>) -> Wants {
    Wants::Export { service_uid: "s".into(), port: port.map(Into::into), weight }
}

/// As the API server keeps it.
pub(super) fn stored(mut object: RegisteredService) -> RegisteredService {
    object.metadata.uid = Some("u".into());
    object.metadata.resource_version = Some("7".into());
    object
}

#[test]
fn an_object_is_read_as_it_was_made_and_an_edit_is_seen() {
    let registries = Registries { names: ["main".to_owned()].into(), uids: ["r".to_owned()].into() };
    let known = Known { registry: "main", uid: "r", registries: &registries };
    let read = |object: &RegisteredService| reduce(known, &object.key(), object, false).unwrap();
    for kind in [export(None, None), export(Some("rpc"), Some(7)), Wants::Import] {
        let wanted = wanted("Echo.v1", kind);
        let object = stored(made(&wanted, "main", "r"));
        let found = read(&object);
        assert_eq!((found.origin, found.made_as.as_ref()), (Origin::Ours, Some(&wanted)));
        assert_eq!(found.imports, wanted.imports());
        // The API server fills in defaults, and other fields of the metadata are nobody's business.
        let mut kept: Value = serde_json::to_value(&object).unwrap();
        kept["metadata"]["annotations"] = json!({"twinspan.dev/approve-deletions": "abc"});
        kept["metadata"]["labels"]["team"] = json!("a");
        let kept: RegisteredService = serde_json::from_value(kept).unwrap();
        assert_eq!(read(&kept).made_as.as_ref(), Some(&wanted));
        for (pointer, value) in [
            ("/spec/suspend", json!(true)),
            ("/spec/registryName", json!("a%b")),
            ("/spec/registryRef/name", json!("other")),
            ("/spec/export/tags", json!({"a": "b"})),
            ("/spec/policy", json!("Observe")),
        ] {
            let mut edited: Value = serde_json::to_value(&kept).unwrap();
            if let Some(place) = edited.pointer_mut(pointer) {
                *place = value;
            } else {
                edited["spec"]["export"]["tags"] = value;
            }
            let edited: RegisteredService = serde_json::from_value(edited).unwrap();
            assert_eq!(read(&edited).made_as, None, "{pointer}");
            let right = put_right(&edited, &wanted, "main", "r");
            assert_eq!(right.spec, object.spec);
            assert_eq!(right.metadata.annotations, kept.metadata.annotations);
            assert_eq!(
                (&right.metadata.labels, &right.metadata.resource_version),
                (&kept.metadata.labels, &Some("7".into()))
            );
            assert_eq!(right.metadata.owner_references, object.metadata.owner_references);
        }
    }
}

#[test]
fn an_export_is_owned_by_its_service_an_import_by_nobody_and_labels_tell_whose_it_is() {
    let object = made(&wanted("echo", export(None, None)), "main", "r");
    let owners = object.metadata.owner_references.clone().unwrap();
    assert_eq!((owners.len(), owners[0].kind.as_str(), owners[0].controller), (1, "Service", Some(false)));
    assert_eq!(owners[0].block_owner_deletion, Some(false));
    assert_eq!(made(&wanted("echo", Wants::Import), "main", "r").metadata.owner_references, None);
    assert_eq!(object.metadata.labels.as_ref().unwrap().len(), 1);

    let names = ["main", "another"].map(str::to_owned).into();
    let registries = Registries { names, uids: ["r", "s"].map(str::to_owned).into() };
    let origin = |label: Option<&str>, registry: &str| {
        let mut object = stored(object.clone());
        object.metadata.labels = label.map(|label| [(DISCOVERED_BY.to_owned(), label.to_owned())].into());
        reduce(Known { registry, uid: "r", registries: &registries }, &object.key(), &object, false).unwrap().origin
    };
    assert_eq!(origin(Some("r"), "main"), Origin::Ours);
    assert_eq!(origin(Some("r"), "another"), Origin::Moved, "an edited reference");
    assert_eq!(origin(Some("s"), "main"), Origin::Relabelled, "an edited label");
    assert_eq!(origin(Some("s"), "another"), Origin::Others);
    assert_eq!(origin(Some("gone"), "main"), Origin::Orphan);
    assert_eq!(origin(Some("gone"), "another"), Origin::Others);
    assert_eq!(origin(None, "main"), Origin::Written);
}

pub(super) fn views(discovery: &Value) -> Views {
    let views = Views::new(Env::real());
    let mut view = views.cluster();
    for kind in Kind::ALL {
        view.set_synced(kind);
        view.heard(kind, views.env.now());
    }
    let registry: ServiceRegistry = serde_json::from_value(json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": "main", "uid": "r"},
        "spec": {"etcd": {"endpoints": ["http://a:2379"]}, "format": "Kitex", "allowed": [], "discovery": discovery},
    }))
    .unwrap();
    view.service_registries.insert("main".into(), Arc::new(registry));
    for name in ["shop", "vms"] {
        let labels = [("name".to_owned(), name.to_owned())].into();
        let namespace = NamespaceView { uid: name.into(), labels, export: None, deleting: false };
        view.namespaces.insert(name.into(), Arc::new(namespace));
    }
    for name in ["a", "b"] {
        let object =
            json!({"metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": {"ports": [{"port": 80}]}});
        let service = convert::service(&serde_json::from_value(object).unwrap());
        view.services.put(ServiceKey::new("shop", name), service);
    }
    drop(view);
    views
}

#[test]
fn the_views_are_the_facts_and_what_cannot_be_read_is_left_alone() {
    let views =
        views(&json!({"export": {"namespaceSelector": {"matchLabels": {"name": "shop"}}, "serviceSelector": {}}}));
    let sight = observe::observe(&views, "main").unwrap();
    assert!(!sight.writes() && sight.is_whole(), "policy Observe is the default");
    let found = plan(&sight.facts(), &Memory::default(), views.env.now());
    assert_eq!(found.creates.len(), 2);
    let status = report::found(&sight, &found, &Swept::default(), &History::default(), views.env.now());
    assert_eq!((status.status.pending, status.condition.reason), (2, Reason::Observing));

    // A stand-in has no discovery, which must not sweep.
    let unreadable =
        Unreadable { fields: ["discovery".to_owned()].into(), problems: Vec::new(), raw: json!({"spec": {}}) };
    views.cluster().unreadable_registries.insert("main".into(), Arc::new(unreadable));
    assert!(observe::observe(&views, "main").is_none());
    views.cluster().unreadable_registries.clear();
    let without = views.cluster().service_registries["main"].as_ref().clone();
    let without =
        ServiceRegistry { spec: crate::api::ServiceRegistrySpec { discovery: None, ..without.spec }, ..without };
    views.cluster().service_registries.insert("main".into(), Arc::new(without));
    assert!(observe::observe(&views, "main").is_none(), "nothing was made");
}

#[test]
fn a_missing_verb_names_the_value_of_the_chart() {
    let views = views(&json!({"policy": "Sync", "export": {"namespaceSelector": {}}}));
    let sight = observe::observe(&views, "main").unwrap();
    let found = plan(&sight.facts(), &Memory::default(), views.env.now());
    let (mut history, now) = (History::default(), views.env.now());
    let forbidden = Failure { kind: FailureKind::Forbidden, message: "not permitted".into() };
    history.note(&Op::Create(wanted("echo", Wants::Import)), Some(forbidden), now);
    let status = report::found(&sight, &found, &Swept::default(), &history, now);
    assert_eq!(status.condition.reason, Reason::DiscoveryForbidden);
    assert!(status.condition.message.contains("discovery.enabled"), "{}", status.condition.message);
    let status = report::found(&sight, &found, &Swept::default(), &History::default(), views.env.now());
    assert_eq!(status.condition.reason, Reason::AllDiscovered, "without a selector nothing is selected");
}

#[test]
fn names_count_only_while_all_are_known_and_silence_concludes_nothing() {
    let views = views(&json!({"policy": "Sync", "import": {"namespace": "vms"}}));
    let sight = observe::observe(&views, "main").unwrap();
    let found = plan(&sight.facts(), &Memory::default(), views.env.now());
    let status = report::found(&sight, &found, &Swept::default(), &History::default(), views.env.now());
    assert_eq!(status.condition.reason, Reason::RegistryUnavailable);
    let long_ago = views.env.now() - jiff::SignedDuration::from_secs(91);
    views.cluster().heard(Kind::Service, long_ago);
    let sight = observe::observe(&views, "main").unwrap();
    let status = report::found(&sight, &found, &Swept::default(), &History::default(), views.env.now());
    assert_eq!((sight.is_whole(), status.condition.reason), (false, Reason::ClusterUnavailable));
}

#[test]
fn what_another_release_holds_is_left_to_its_discovery() {
    for (is_limited, holder, acts) in [
        (true, Some("team-a"), true),
        (true, Some("team-b"), false),
        (true, None, false),
        (false, Some("team-a"), true),
        (false, None, true),
    ] {
        let views = views(&json!({"policy": "Sync", "export": {"namespaceSelector": {}, "serviceSelector": {}}}));
        let mut view = views.cluster();
        view.set_reach(Reach {
            release: Some("team-a".into()),
            limits: is_limited.then(Limits::default),
            ..Reach::default()
        });
        Kind::ALL.into_iter().for_each(|kind| {
            view.set_synced(kind);
        });
        let mut object = view.service_registries["main"].as_ref().clone();
        object.status = serde_json::from_value(json!({"holder": holder})).unwrap();
        view.service_registries.insert("main".into(), Arc::new(object));
        drop(view);
        assert_eq!(observe::observe(&views, "main").is_some(), acts, "{is_limited} {holder:?}");
    }
}

/// A RegisteredService that somebody labelled, which the view shows.
fn labelled(views: &Views, name: &str, by: &str, registry: &str, status: &Value) -> ServiceKey {
    let mut object = stored(made(&wanted("echo", Wants::Import), registry, by));
    object.metadata.name = Some(name.into());
    object.metadata.generation = Some(1);
    object.status = serde_json::from_value(status.clone()).unwrap();
    let (mut view, key) = (views.cluster(), object.key());
    view.index.put(&key, &object);
    view.registered_services.insert(key.clone(), Arc::new(object));
    key
}

/// The RegisteredServices are gone.
fn forget(views: &Views, keys: &[ServiceKey]) {
    let mut view = views.cluster();
    for key in keys {
        view.index.remove(key);
        view.registered_services.remove(key);
    }
    view.discoverable += 1;
}

fn denied(generation: i64) -> Value {
    let accepted = json!({
        "type": "Accepted", "status": "False", "reason": "NotAllowed", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    json!({"observedGeneration": generation, "conditions": [accepted]})
}

#[test]
fn a_label_costs_only_the_service_registry_that_it_names() {
    let views = views(&Value::Null);
    let asked = || observe::registries(&views, std::iter::empty()).into_iter().collect::<Vec<_>>();
    labelled(&views, "a", "nobody", "other", &Value::Null);
    assert!(asked().is_empty(), "it names another");
    let key = labelled(&views, "b", "nobody", "main", &Value::Null);
    assert_eq!(asked(), ["main"]);
    views.cluster().index.remove(&key);
    labelled(&views, "c", "r", "other", &Value::Null);
    assert_eq!(asked(), ["main"], "an edited reference");
}

#[test]
fn an_object_without_a_grant_is_swept_without_the_guard() {
    let views = views(&Value::Null);
    let swept = |status: &Value| {
        labelled(&views, "a", "nobody", "main", status);
        let sight = observe::observe(&views, "main").unwrap();
        let found = plan(&sight.facts(), &Memory::default(), views.env.now());
        found.sweeps.iter().map(|sweep| sweep.idle).collect::<Vec<_>>()
    };
    assert_eq!(swept(&denied(1)), [true]);
    assert_eq!(swept(&json!({"observedGeneration": 1})), [false]);
    assert!(swept(&denied(0)).is_empty(), "an old status says nothing");
}

#[test]
fn a_grant_that_comes_or_goes_wakes_discovery() {
    let views = views(&Value::Null);
    let (discoveries, key) = (&views.discoveries, ServiceKey::new("shop", "a"));
    for (denied, wakes) in [(false, false), (true, true), (true, false), (false, true)] {
        discoveries.status_changed(&key, denied);
        assert_eq!(discoveries.take_due(), wakes, "{denied}");
    }
}

/// The controller of a process that leads.
fn controller(views: &Views, api: &FakeApi) -> Controller {
    let leadership = Leadership::none();
    leadership.acquired();
    let (events, _) = mpsc::unbounded_channel();
    let (writers, _) = Writers::new(&api.client(), views, &leadership, "a", events, Arc::default());
    let (reports, _) = mpsc::unbounded_channel();
    Controller::new(views.clone(), writers, reports)
}

#[tokio::test]
async fn a_write_that_was_refused_is_looked_at_again() {
    let views = views(&json!({"policy": "Sync", "export": {"namespaceSelector": {}, "serviceSelector": {}}}));
    let api = FakeApi::default();
    api.refuse("/registeredservices", 403);
    let mut controller = controller(&views, &api);
    assert!(controller.pass().await);
    assert!(!api.take("/registeredservices").is_empty());
    assert!(controller.state.look_again.is_some(), "a grant of verbs is in no view");
}

#[tokio::test]
async fn a_missing_verb_stands_until_the_write_is_tried_again() {
    let views = views(&json!({"policy": "Sync", "export": {"namespaceSelector": {}, "serviceSelector": {}}}));
    let api = FakeApi::default();
    api.refuse("/registeredservices", 403);
    let mut controller = controller(&views, &api);
    let reason = || views.discoveries.of("main").unwrap().condition.reason;
    controller.pass().await;
    assert_eq!(reason(), Reason::DiscoveryForbidden);
    api.take("/registeredservices");
    // Something changes meanwhile.
    views.discoveries.look_again();
    controller.pass().await;
    assert_eq!((reason(), api.take("/registeredservices").len()), (Reason::DiscoveryForbidden, 0));
    // With Observe nothing is written, so that nothing is refused.
    let mut registry = views.cluster().service_registries["main"].as_ref().clone();
    registry.spec.discovery.as_mut().unwrap().policy = crate::api::DiscoveryPolicy::Observe;
    views.cluster().service_registries.insert("main".into(), Arc::new(registry));
    views.discoveries.look_again();
    controller.pass().await;
    assert_eq!(reason(), Reason::Observing);
}

#[tokio::test(start_paused = true)]
async fn passes_start_a_second_apart_however_long_their_writes_take() {
    let views = views(&json!({"policy": "Sync", "export": {"namespaceSelector": {}, "serviceSelector": {}}}));
    for n in 0..200 {
        let object = json!({"metadata": {"name": format!("s{n}"), "namespace": "shop", "uid": format!("s{n}")},
            "spec": {"ports": [{"port": 80}]}});
        let service = convert::service(&serde_json::from_value(object).unwrap());
        views.cluster().services.put(ServiceKey::new("shop", format!("s{n}")), service);
    }
    let (api, stop) = (FakeApi::default(), CancellationToken::new());
    api.delay(Duration::from_millis(100));
    let controller = tokio::spawn(controller(&views, &api).run(stop.clone()));
    views.discoveries.wake();
    for second in 0..3 {
        tokio::time::sleep(Duration::from_millis(950)).await;
        assert_eq!(api.take("/registeredservices").len(), 50, "{second}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    controller.await.unwrap();
    let times = [(0, 1000), (499, 1000), (700, 1400)].map(|(planning, wait)| (Duration::from_millis(planning), wait));
    times.into_iter().for_each(|(planning, wait)| assert_eq!(super::between(planning), Duration::from_millis(wait)));
}

#[tokio::test]
async fn the_guard_forgets_the_sweeps_of_objects_that_are_gone() {
    let views = views(&Value::Null);
    let seen = json!({"observedGeneration": 1});
    let keys: Vec<ServiceKey> = (0..12).map(|n| labelled(&views, &format!("a-{n}"), "r", "main", &seen)).collect();
    let mut controller = controller(&views, &FakeApi::default());
    controller.pass().await;
    assert_eq!(views.guards.held("main", &views.env).map(|held| held.sweeps), Some(12));
    forget(&views, &keys);
    controller.pass().await;
    assert_eq!(views.guards.held("main", &views.env), None);
}

#[tokio::test]
async fn an_object_that_waits_for_one_of_a_person_says_why_and_only_a_change_ends_the_wait() {
    let views = views(&json!({"policy": "Sync", "export": {"namespaceSelector": {}, "serviceSelector": {}}}));
    views.cluster().services.remove(&ServiceKey::new("shop", "b"));
    let kind = Wants::Export { service_uid: "a".into(), port: None, weight: None };
    let mut object = serde_json::to_value(stored(made(&wanted("a", kind), "main", "r"))).unwrap();
    object["metadata"]["name"] = json!("a");
    object["metadata"]["generation"] = json!(1);
    object["status"] = json!({"observedGeneration": 1, "instances": {"exported": 10}});
    let mut hand = object.clone();
    hand["metadata"] = json!({"name": "hand", "namespace": "shop", "uid": "h", "generation": 1});
    hand["spec"] = json!({"registryRef": {"name": "main"}, "service": {"name": "a"}, "suspend": true});
    for object in [object, hand] {
        let object: RegisteredService = serde_json::from_value(object).unwrap();
        let (mut view, key) = (views.cluster(), object.key());
        view.index.put(&key, &object);
        view.registered_services.insert(key, Arc::new(object));
    }
    let api = FakeApi::default();
    let mut controller = controller(&views, &api);
    controller.pass().await;
    let condition = views.discoveries.of("main").unwrap().condition;
    assert_eq!(condition.reason, Reason::Discovering);
    let why = "; shop/a stays until RegisteredService shop/hand has its instances, which is suspended";
    assert!(condition.message.ends_with(why), "{}", condition.message);
    assert!(controller.state.look_again.is_some(), "a status may have changed during the pass");
    controller.state.look_again = None;
    views.discoveries.look_again();
    assert!(controller.pass().await);
    assert_eq!(controller.state.look_again, None);
    views.discoveries.status_changed(&ServiceKey::new("shop", "b"), false);
    assert!(!views.discoveries.take_due());
    views.discoveries.status_changed(&ServiceKey::new("shop", "hand"), false);
    assert!(views.discoveries.take_due(), "its status ends the wait");
    let preview = crate::tools::discovery::previews(&views).remove(0).to_string();
    let line = "  = RegisteredService shop/a stays: RegisteredService shop/hand, which wins over it, is suspended";
    assert!(preview.contains(line), "{preview}");
}
