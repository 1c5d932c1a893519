//! Shares in records: which of them count, and what is written.

use super::*;
use crate::model::Content;

/// The weight of each own record that the plan leaves, by its address.
fn left(scene: &Scene) -> Vec<(String, i64)> {
    let records = scene.records.iter().filter(|record| record.own("c1").is_some());
    let weights = records.filter_map(|record| match &record.content {
        Content::Registered { registration, .. } => Some((registration.endpoints[0].clone(), registration.weight)),
        Content::Undecodable { .. } => None,
    });
    let mut weights: Vec<_> = weights.collect();
    weights.sort();
    weights
}

fn weights(scene: &Scene) -> Vec<i64> {
    left(scene).into_iter().map(|(_, weight)| weight).collect()
}

/// Three pods with half of the traffic.
fn half() -> Scene {
    let scene = Scene::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    Scene { share: Some(50), ..scene }
}

fn server(scene: Scene, address: &str, weight: &str) -> Scene {
    let value = format!(r#"{{"network":"tcp","address":"{address}","weight":{weight},"tags":null}}"#);
    scene.record(&format!("p/echo/{address}"), &value, LEASE)
}

#[test]
fn exports_get_their_share_beside_servers_and_nothing_is_written_at_rest() {
    let mut scene = server(server(half(), "192.0.2.1:80", "100"), "192.0.2.2:80", "50");
    scene.apply();
    assert_eq!(weights(&scene), [50, 50, 50]);
    assert_eq!(scene.ops(), Vec::<String>::new());
    // The weight of a server changes.
    scene.records.retain(|record| record.key != "p/echo/192.0.2.2:80".into());
    scene = server(scene, "192.0.2.2:80", "80");
    assert_eq!(scene.ops(), ["~p/echo/10.0.0.1:80", "~p/echo/10.0.0.2:80", "~p/echo/10.0.0.3:80"]);
    let plan = scene.apply();
    assert_eq!(weights(&scene), [60, 60, 60]);
    let swaps = plan.ops.iter().all(|op| matches!(op, RecordOp::Update { if_revision: 500, .. }));
    assert!(swaps, "by compare-and-swap");
    // The last server leaves.
    scene.records.retain(|record| record.own("c1").is_some());
    scene.apply();
    assert_eq!(weights(&scene), [10, 10, 10], "as configured");
    assert_eq!(scene.ops(), Vec::<String>::new());
}

#[test]
fn a_change_that_leaves_the_share_within_two_points_writes_what_changed_alone() {
    let mut scene = server(half(), "192.0.2.1:80", "100");
    for host in 4..30 {
        scene.endpoints.insert(addr(&format!("10.0.0.{host}:80")));
    }
    scene.apply();
    scene.endpoints.insert(addr("10.0.0.99:80"));
    assert_eq!(scene.ops(), ["+p/echo/10.0.0.99:80"]);
    scene.apply();
    scene.endpoints.remove(&addr("10.0.0.5:80"));
    assert_eq!(scene.ops(), ["-p/echo/10.0.0.5:80"]);
    scene.apply();
    assert_eq!(scene.ops(), Vec::<String>::new());
    // No memory tells the weights: a process that begins anew plans the same.
    scene.state = ExportState::default();
    assert_eq!(scene.ops(), Vec::<String>::new());
}

#[test]
fn records_of_others_count_as_clients_read_them() {
    let with = |key: &str, value: &str| {
        let mut scene = half().record(key, value, LEASE);
        scene.apply();
        weights(&scene)
    };
    let configured = [10, 10, 10];
    let other =
        r#"{"network":"tcp","address":"192.0.2.1:80","weight":90,"tags":{"twinspan.dev/owner":"c2/shop/echo"}}"#;
    assert_eq!(with("p/echo/192.0.2.1:80", other), [30, 30, 30], "another cluster's");
    let healed = other.replace("c2/", "c1/").replace("}}", r#","twinspan.dev/healed":"true"}}"#);
    assert_eq!(with("p/echo/192.0.2.1:80", &healed), [30, 30, 30], "one that was put back");
    let without = r#"{"network":"tcp","address":"192.0.2.1:80","weight":0,"tags":null}"#;
    assert_eq!(with("p/echo/192.0.2.1:80", without), [4, 3, 3], "a reader takes 10");
    for (value, why) in [
        (r#"{"network":"udp","address":"192.0.2.1:80","weight":90}"#, "not TCP"),
        (r#"{"network":"tcp","address":"127.0.0.1:80","weight":90}"#, "an address that is refused"),
        (r#"{"network":"tcp","address":"vm:80","weight":90}"#, "no address"),
        (r#"{"network":"tcp","address":"192.0.2.1:80","weight":"90"}"#, "no reader decodes it"),
    ] {
        assert_eq!(with("p/echo/x", value), configured, "{why}");
    }
    let mut refused = server(half(), "192.0.2.1:80", "90");
    refused.denied = ["192.0.2.0/24"].into_iter().collect();
    refused.apply();
    assert_eq!(weights(&refused), configured, "trust refuses it");
}

#[test]
fn records_of_siblings_count_on_neither_side() {
    let mut scene = server(half(), "192.0.2.1:80", "90").own("10.0.0.9:80", "c1/shop/canary");
    scene.apply();
    assert_eq!(weights(&scene), [30, 30, 30, 10]);
}

#[test]
fn an_instance_that_is_not_exported_takes_no_part() {
    // The server of one pod registered itself: traffic to it is not ours to give.
    let mut scene = server(half(), "10.0.0.1:80", "100");
    scene.apply();
    assert_eq!(weights(&scene), [50, 50]);
    let mut waits = server(half(), "192.0.2.1:80", "90").departed("10.0.0.1:80", Evidence::Deregistered, 995);
    waits.apply();
    assert_eq!(weights(&waits), [45, 45]);
    let mut sibling = server(half(), "192.0.2.1:80", "90").contested("10.0.0.1:80", ContestedExport::Precedes);
    sibling.apply();
    assert_eq!(weights(&sibling), [45, 45]);
}

#[test]
fn a_record_that_the_guard_holds_keeps_its_part() {
    let mut scene = server(half(), "192.0.2.1:80", "90");
    scene.apply();
    scene.watched = false;
    scene.endpoints.remove(&addr("10.0.0.1:80"));
    assert_eq!(scene.ops(), Vec::<String>::new());
    scene.watched = true;
    assert_eq!(scene.ops(), ["~p/echo/10.0.0.2:80", "~p/echo/10.0.0.3:80", "-p/echo/10.0.0.1:80"]);
}

#[test]
fn a_healed_record_that_becomes_an_export_changes_sides() {
    let healed = r#"{"network":"tcp","address":"10.0.0.1:80","weight":90,"tags":{"twinspan.dev/owner":"c1/shop/echo","twinspan.dev/healed":"true"}}"#;
    let mut scene = server(half(), "192.0.2.1:80", "90").record("p/echo/10.0.0.1:80", healed, LEASE);
    scene.apply();
    assert_eq!(weights(&scene), [30, 30, 30]);
    assert_eq!(scene.ops(), Vec::<String>::new());
}

#[test]
fn a_share_that_cannot_be_reached_is_told() {
    let mut scene = server(half(), "192.0.2.1:80", "1");
    let limit = scene.apply().share_limit.unwrap();
    assert_eq!((limit.permille, limit.over, limit.others_weight), (750, true, 3));
    assert_eq!(weights(&scene), [1, 1, 1]);
    assert_eq!(scene.ops(), Vec::<String>::new());
    assert_eq!(server(half(), "192.0.2.1:80", "3").plan().share_limit, None);
}

#[test]
fn one_kratos_record_has_one_weight_for_its_ports() {
    let mut scene = half();
    scene.layout = Layout::new(Format::Kratos, "p");
    scene.also = Some(("http", 81));
    let value = r#"{"id":"x","name":"echo","metadata":{"weight":"90"},"endpoints":["grpc://192.0.2.1:80"]}"#;
    scene = scene.record("p/echo/x", value, LEASE);
    scene.apply();
    assert_eq!(weights(&scene), [30, 30, 30]);
    assert_eq!(scene.ops(), Vec::<String>::new());
    let default = value.replace(r#""weight":"90""#, "");
    scene.records.retain(|record| record.own("c1").is_some());
    scene = scene.record("p/echo/x", &default, LEASE);
    scene.apply();
    assert_eq!(weights(&scene), [34, 33, 33], "without a weight Kratos takes 100");
}

#[test]
fn a_format_has_weights_or_leaves_them_as_configured() {
    for &format in Format::ALL {
        let mut scene = half();
        scene.layout = Layout::new(format, "p");
        if format.has_schemes() {
            scene.also = Some(("http", 81));
        }
        scene.apply();
        assert_eq!(scene.ops(), Vec::<String>::new(), "{format:?}");
    }
    let with: Vec<&str> = Format::ALL.iter().filter(|f| f.has_weights()).map(|f| f.as_str()).collect();
    assert_eq!(with, ["Kitex", "Hertz", "Kratos"]);
}
