use super::*;
use crate::codec::{Format, Layout};
use crate::model::{LeaseId, RawRecord};
use crate::plan::RecordOp;
use crate::plan::departure::{Answer, Evidence, OnExpiry};
use crate::plan::import::ImportState;
use crate::plan::import::scene::{Scene, US, addr, at, healed, lost, vm};
use std::sync::Arc;

fn healing(count: usize) -> Scene {
    let mut scene = Scene::of(count);
    scene.options.on_expiry = OnExpiry::Heal;
    scene
}

#[test]
fn a_lost_registration_is_put_back_as_it_was_and_ends_with_its_endpoint() {
    let mut scene = healing(2);
    scene.put(&vm(1), r#""lane":"blue""#);
    scene.step();
    scene.goes(&vm(1), Evidence::LeaseExpired);
    assert!(scene.step().ops.is_empty(), "not before it was seen to live");
    scene.answers(&vm(1), Answer::Accepted);
    let plan = scene.step();
    assert_eq!((lost(&plan), healed(&plan)), (1, 1));
    let record = &scene.records[&scene.key(&vm(1))];
    assert_eq!(record.kind(US), Kind::Healed(&scene.owner));
    let Content::Registered { registration, .. } = &record.content else { panic!("{record:?}") };
    assert_eq!((registration.weight, registration.tags.get("lane").unwrap().as_str()), (7, "blue"));
    assert!(registration.rest.contains_key("more"));
    assert_eq!(scene.endpoints(), [vm(1), vm(2)]);
    let plan = scene.step();
    assert_eq!((plan.ops.len(), healed(&plan)), (0, 1), "a second plan writes nothing");
    // The server dies: record and endpoint are deleted together.
    scene.answers(&vm(1), Answer::Refused);
    let plan = scene.step();
    assert!(matches!(&plan.ops[..], [RecordOp::Delete { .. }]), "{:?}", plan.ops);
    assert_eq!(scene.endpoints(), [vm(2)]);
    assert_eq!(scene.step().ops, []);
}

#[test]
fn what_could_not_be_ours_or_is_too_large_is_kept_and_not_put_back() {
    for deep in [false, true] {
        let mut scene = healing(2);
        scene.put(
            &vm(1),
            &format!(r#""lane":"{}""#, "x".repeat(if deep { 1 } else { crate::plan::import::heal::MAX_HEALED - 128 })),
        );
        scene.step();
        scene.goes(&vm(1), Evidence::LeaseExpired);
        if deep {
            let departure = scene.departures.get_mut(&addr(&vm(1))).unwrap();
            let mut record = departure.record.as_deref().unwrap().clone();
            record.key = "p/echo/rack/10.0.0.1:80".into();
            departure.record = Some(Arc::new(record));
        }
        scene.answers(&vm(1), Answer::Accepted);
        let plan = scene.step();
        assert_eq!((lost(&plan), healed(&plan), plan.ops.len()), (1, 0, 0), "deep: {deep}");
        assert_eq!(scene.endpoints(), [vm(1), vm(2)]);
    }
}

#[test]
fn a_healed_registration_survives_a_restart_and_gives_way_to_the_server_itself() {
    let mut scene = healing(2);
    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.answers(&vm(1), Answer::Accepted);
    scene.step();
    scene.now = 50;
    scene.restart();
    let plan = scene.step();
    assert_eq!((plan.ops.len(), healed(&plan), scene.endpoints().len()), (0, 1, 2));
    scene.answers(&vm(1), Answer::Accepted);
    assert_eq!(scene.step().ops, []);
    assert_eq!(scene.present[&addr(&vm(1))].lost_until, Some(at(3600)));
    // The server registers under another key: our record is withdrawn, and the endpoint stays.
    let value = br#"{"network":"tcp","address":"10.0.0.1:80","weight":7}"#.to_vec();
    let raw = RawRecord { key: "p/echo/itself".into(), value, mod_revision: 500, lease: LeaseId(9) };
    scene.records.insert(raw.key.clone(), scene.layout.decode(&raw));
    let plan = scene.step();
    assert!(matches!(&plan.ops[..], [RecordOp::Delete { .. }]), "{:?}", plan.ops);
    assert_eq!((scene.endpoints().len(), lost(&plan), healed(&plan)), (2, 0, 0));
}

#[test]
fn what_somebody_deletes_is_not_healed_again_and_what_our_lease_lost_is() {
    for (evidence, back) in [(Evidence::Deregistered, false), (Evidence::LeaseExpired, true)] {
        let mut scene = healing(2);
        scene.goes(&vm(1), Evidence::LeaseExpired);
        scene.answers(&vm(1), Answer::Accepted);
        scene.step();
        scene.now = 60;
        scene.goes(&vm(1), evidence);
        scene.step();
        assert_eq!(scene.records.contains_key(&scene.key(&vm(1))), back, "{evidence:?}");
        assert_eq!(scene.endpoints().len(), if back { 2 } else { 1 }, "{evidence:?}");
    }
}

#[test]
fn without_heal_what_was_healed_is_withdrawn_and_formats_without_marks_never_are() {
    let mut scene = healing(2);
    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.answers(&vm(1), Answer::Accepted);
    scene.step();
    scene.options.on_expiry = OnExpiry::Probe;
    let plan = scene.step();
    assert!(matches!(&plan.ops[..], [RecordOp::Delete { .. }]), "{:?}", plan.ops);
    assert_eq!((lost(&plan), healed(&plan), scene.endpoints().len()), (1, 0, 2), "it is lost, as it was");

    let mut scene = healing(2);
    scene.layout = Layout::new(Format::GoZero, "p");
    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.answers(&vm(1), Answer::Accepted);
    let plan = scene.step();
    assert_eq!((plan.ops.len(), lost(&plan)), (0, 1));
}

#[test]
fn a_healed_registration_changes_hands_in_one_update() {
    let mut scene = healing(2);
    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.answers(&vm(1), Answer::Accepted);
    scene.step();
    // Another importer treats the healed record like any other …
    scene.owner.service.name = "other".into();
    scene.state = ImportState::default();
    let plan = scene.step();
    assert_eq!((plan.ops.len(), healed(&plan), scene.endpoints().len()), (0, 0, 2));
    // … until the owner of the record is gone.
    scene.to_adopt.insert(scene.key(&vm(1)));
    let plan = scene.step();
    assert!(matches!(&plan.ops[..], [RecordOp::Update { .. }]), "{:?}", plan.ops);
    assert_eq!(scene.records[&scene.key(&vm(1))].kind(US), Kind::Healed(&scene.owner));
    assert_eq!((scene.endpoints().len(), scene.step().ops.len()), (2, 0));
}
