use twinspan_core::codec::Format;
use twinspan_core::model::{LeaseId, Owner, RawRecord, RegistryName, ServiceKey};
use twinspan_core::plan::RecordOp;
use twinspan_core::plan::departure::Evidence;

use super::*;
use crate::registry::incarnation::IncarnationKey;
use crate::registry::records::Counts;

const LEASE: LeaseId = LeaseId(7);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn view() -> RegistryView {
    RegistryView::new(Layout::new(Format::Kitex, "p"), "c1", None)
}

/// A session begins and lists everything.
fn reset(view: &mut RegistryView, listing: &ListResponse, now: Timestamp) -> Affected {
    view.begin(None);
    let affected = view.reset_to(&Range::Everything, listing, now);
    view.set_settled();
    affected
}

fn raw(key: &str, mod_revision: Revision, lease: LeaseId, owner: Option<&str>) -> RawRecord {
    let address = key.rsplit('/').next().unwrap();
    let tags = owner.map_or("null".to_owned(), |owner| format!(r#"{{"twinspan.dev/owner":"{owner}"}}"#));
    let value = format!(r#"{{"network":"tcp","address":"{address}","weight":10,"tags":{tags}}}"#);
    RawRecord { key: key.into(), value: value.into(), mod_revision, lease }
}

fn foreign(key: &str, mod_revision: Revision) -> RawRecord {
    raw(key, mod_revision, LEASE, None)
}

fn own(key: &str, mod_revision: Revision) -> RawRecord {
    raw(key, mod_revision, LeaseId(70), Some("c1/shop/echo"))
}

fn listing(revision: Revision, records: &[RawRecord]) -> ListResponse {
    ListResponse { cluster_id: 1, revision, records: records.to_vec() }
}

fn deleted(key: &str, revision: Revision) -> Change {
    Change::Delete { key: key.into(), revision }
}

fn echo() -> (RegistryName, Owner) {
    (RegistryName::new("echo").unwrap(), Owner { cluster_id: "c1".into(), service: ServiceKey::new("shop", "echo") })
}

fn keys(view: &RegistryView) -> Vec<String> {
    let (name, owner) = echo();
    view.snapshot(&name, &owner).records.keys().map(ToString::to_string).collect()
}

fn evidence(view: &RegistryView) -> Vec<(String, Evidence)> {
    let (name, owner) = echo();
    view.snapshot(&name, &owner).departures.iter().map(|(addr, d)| (addr.to_string(), d.evidence)).collect()
}

#[test]
fn unknown_until_a_complete_list_and_stale_while_cut_off() {
    let mut view = view();
    assert_eq!(view.state(), ViewState::Unknown);
    view.set_stale();
    assert_eq!(view.state(), ViewState::Unknown, "what was never known is not stale");
    reset(&mut view, &listing(5, &[]), at(0));
    assert_eq!(view.state(), ViewState::Fresh);
    view.apply(&[Change::Put(foreign("p/echo/10.0.0.1:80", 6))], at(0));
    view.set_stale();
    assert_eq!((view.state(), keys(&view).len()), (ViewState::Stale, 1), "everything stays as it is");
}

#[test]
fn records_are_found_by_name_and_by_owner_and_counted() {
    let mut view = view();
    let affected = reset(
        &mut view,
        &listing(
            9,
            &[
                own("p/echo/10.0.0.1:80", 1),
                own("p/old/10.0.0.1:80", 2),
                foreign("p/echo/10.0.0.2:80", 3),
                raw("p/echo/10.0.0.3:80", 4, LEASE, Some("c2/shop/echo")),
                RawRecord { value: b"{".to_vec(), ..foreign("p/echo/bad", 5) },
                foreign("q/echo/10.0.0.9:80", 6),
            ],
        ),
        at(0),
    );
    assert_eq!(affected.names.len(), 2);
    assert_eq!(affected.owners.iter().map(ToString::to_string).collect::<Vec<_>>(), ["shop/echo"]);
    assert_eq!(view.counts(), Counts { own: 2, foreign: 2, undecodable: 1 });
    assert_eq!((view.own_leases().len(), view.own_leases()[&LeaseId(70)].len()), (1, 2));
    let (name, owner) = echo();
    let snapshot = view.snapshot(&name, &owner);
    assert_eq!(snapshot.records.len(), 4);
    assert_eq!(snapshot.under_other_names.keys().map(ToString::to_string).collect::<Vec<_>>(), ["p/old/10.0.0.1:80"]);
    assert_eq!(view.snapshot_of_owner(&owner).under_other_names.len(), 2);
}

#[test]
fn only_newer_changes_count_from_any_source() {
    let mut view = view();
    reset(&mut view, &listing(5, &[foreign("p/echo/10.0.0.1:80", 3)]), at(0));
    // The answer to our own write arrives before the watch reports it, or after.
    let key: RecordKey = "p/echo/10.0.0.2:80".into();
    view.learnt(&key, Some(&own("p/echo/10.0.0.2:80", 6)), 6, &mut Affected::default());
    assert_eq!(view.apply(&[Change::Put(own("p/echo/10.0.0.2:80", 6))], at(0)), Affected::default(), "old news");
    view.learnt(&key, None, 8, &mut Affected::default());
    assert_eq!(keys(&view), ["p/echo/10.0.0.1:80"]);
    // An event from before our delete must not bring the record back; a later one does.
    view.apply(&[Change::Put(own("p/echo/10.0.0.2:80", 7))], at(0));
    assert_eq!(keys(&view).len(), 1);
    view.apply(&[deleted("p/echo/10.0.0.2:80", 8), Change::Put(own("p/echo/10.0.0.2:80", 9))], at(0));
    assert_eq!(keys(&view).len(), 2);
    // A delete from before a put is outdated as well.
    view.apply(&[deleted("p/echo/10.0.0.2:80", 8)], at(0));
    assert_eq!(keys(&view).len(), 2);
}

#[test]
fn an_answer_shows_what_the_watch_lost() {
    let mut view = view();
    let keys_of = |first: u16| [format!("p/echo/10.0.0.{first}:80"), format!("p/echo/10.0.0.{}:80", first + 1)];
    let [gone, changed] = keys_of(2);
    reset(&mut view, &listing(9, &[own(&gone, 5), own(&changed, 6)]), at(0));
    // Progress covers the delete at 10, the put at 11 and another one at 12, of which no event came.
    view.progressed(12, at(0));
    let lost = |view: &mut RegistryView, key: &str, record: Option<&RawRecord>, revision: Revision, lost: bool| {
        assert_eq!(view.has_missed(&key.into(), record, revision), lost, "{key} at {revision}");
        let mut affected = Affected::default();
        view.learnt(&key.into(), record, revision, &mut affected);
        affected
    };
    assert!(lost(&mut view, &gone, None, 10, true).names.contains("echo".as_bytes()));
    lost(&mut view, &changed, Some(&own(&changed, 11)), 11, true);
    let [new, later] = keys_of(4);
    lost(&mut view, &new, Some(&own(&new, 12)), 12, true);
    assert_eq!(keys(&view), [changed.clone(), new.clone()]);
    // An older answer proves nothing: the record may have been deleted since, or written.
    lost(&mut view, &later, Some(&own(&later, 8)), 8, false);
    lost(&mut view, &new, None, 11, false);
    lost(&mut view, &changed, Some(&own(&changed, 6)), 9, false);
    // The watch has yet to tell of what is newer.
    assert!(!view.has_missed(&later.as_str().into(), Some(&own(&later, 13)), 13));
    assert_eq!(keys(&view), [changed, new]);
}

#[test]
fn a_list_removes_missing_records_but_not_those_written_while_it_was_in_flight() {
    let mut view = view();
    reset(&mut view, &listing(5, &[foreign("p/echo/10.0.0.1:80", 3), foreign("p/echo/10.0.0.2:80", 4)]), at(0));
    view.learnt(&"p/echo/10.0.0.3:80".into(), Some(&own("p/echo/10.0.0.3:80", 9)), 9, &mut Affected::default());
    let in_flight = listing(8, &[foreign("p/echo/10.0.0.2:80", 4)]);
    let affected = view.reset_to(&Range::Everything, &in_flight, at(0));
    assert_eq!(keys(&view), ["p/echo/10.0.0.2:80", "p/echo/10.0.0.3:80"]);
    assert_eq!(affected.look_ups.len(), 1, "how it went has to be looked up: {affected:?}");
    assert_eq!(evidence(&view), [("10.0.0.1:80".to_owned(), Evidence::LookingUp)]);
}

#[test]
fn a_server_whose_record_only_a_list_lacks_deregistered_unseen() {
    let records = [
        foreign("p/echo/10.0.0.1:80", 1),
        raw("p/other/10.0.0.2:80", 2, LEASE, Some("c2/shop/other")),
        own("p/echo/10.0.0.3:80", 3),
        raw("p/third/10.0.0.4:80", 4, LeaseId::NONE, None),
    ];
    let mut view = view();
    reset(&mut view, &listing(5, &records), at(0));
    let affected = reset(&mut view, &listing(9, &[]), at(0));
    let if_they_live: Vec<_> = affected.look_ups.iter().map(|look_up| (&*look_up.name, look_up.if_it_lives)).collect();
    let (seen, unseen) = (Evidence::Deregistered, Evidence::DeregisteredUnseen);
    // A Twinspan holds its records on leases that live on, and a lease of ours is looked up.
    assert_eq!(if_they_live, [(&b"echo"[..], unseen), (&b"echo"[..], seen), (&b"other"[..], seen)]);
    assert_eq!(view.departures.of(b"third").values().next().unwrap().evidence, unseen, "without a lease as well");
}

#[test]
fn a_departure_is_explained_by_its_lease_and_ends_when_the_address_is_registered_again() {
    let mut view = view();
    reset(
        &mut view,
        &listing(5, &[foreign("p/echo/10.0.0.1:80", 3), raw("p/echo/10.0.0.2:80", 4, LeaseId::NONE, None)]),
        at(0),
    );
    let affected = view.apply(&[deleted("p/echo/10.0.0.1:80", 6), deleted("p/echo/10.0.0.2:80", 7)], at(0));
    assert_eq!(
        evidence(&view),
        [("10.0.0.1:80".to_owned(), Evidence::LookingUp), ("10.0.0.2:80".to_owned(), Evidence::Deregistered)],
        "without a lease nothing can expire"
    );
    let look_up = &affected.look_ups[0];
    assert_eq!(look_up.lease, LEASE);
    assert!(view.departures.explain(look_up, Evidence::LeaseExpired));
    assert!(!view.departures.explain(look_up, Evidence::Deregistered), "once explained it stays so");
    view.apply(&[Change::Put(foreign("p/echo/some-other-key/10.0.0.1:80", 8))], at(0));
    assert_eq!(evidence(&view), [("10.0.0.2:80".to_owned(), Evidence::Deregistered)]);
    // The look-up of the first departure does not explain a second one, not even one at the same time.
    let again = view.apply(&[deleted("p/echo/some-other-key/10.0.0.1:80", 9)], at(0));
    assert!(!view.departures.explain(look_up, Evidence::Deregistered));
    assert!(view.departures.explain(&again.look_ups[0], Evidence::Deregistered));
}

#[test]
fn several_records_of_a_service_deleted_in_one_revision_are_a_bulk_deletion() {
    let records = [
        foreign("p/echo/10.0.0.1:80", 1),
        foreign("p/echo/10.0.0.2:80", 2),
        raw("p/echo/10.0.0.3:80", 3, LEASE, Some("c2/shop/echo")),
        raw("p/echo/10.0.0.4:80", 4, LEASE, Some("c2/shop/echo")),
        foreign("p/other/10.0.0.5:80", 5),
    ];
    let mut view = view();
    reset(&mut view, &listing(5, &records), at(0));
    let all: Vec<Change> = records.iter().map(|record| deleted(&record.key.to_string(), 6)).collect();
    let affected = view.apply(&all, at(0));
    let of = |n: usize, evidence| (format!("10.0.0.{n}:80"), evidence);
    let (swept, left) = (Evidence::BulkDeleted, Evidence::Deregistered);
    assert_eq!(evidence(&view), [of(1, swept), of(2, swept), of(3, left), of(4, left)]);
    assert_eq!(affected.look_ups.len(), 1, "the only one of another service is looked up");

    // Records that depart one after the other are looked up one by one. If they are missing together from a list, live
    // leases mean a bulk deletion (`docs/decisions/0016`).
    let mut view = super::tests::view();
    reset(&mut view, &listing(5, &records[..2]), at(0));
    view.apply(&[deleted("p/echo/10.0.0.1:80", 6), deleted("p/echo/10.0.0.2:80", 7)], at(0));
    assert_eq!(evidence(&view), [of(1, Evidence::LookingUp), of(2, Evidence::LookingUp)]);
    let mut view = super::tests::view();
    reset(&mut view, &listing(5, &records[..2]), at(0));
    let affected = reset(&mut view, &listing(9, &[]), at(0));
    assert!(affected.look_ups.iter().all(|look_up| look_up.if_it_lives == Evidence::BulkDeleted), "{affected:?}");
    assert_eq!(affected.look_ups.len(), 2);
}

#[test]
fn a_record_deleted_in_one_revision_with_keys_of_which_no_event_told_is_deleted_in_bulk() {
    // The put of the second key was lost, or an answer told of its end before the watch does.
    for (other, expected) in [("p/echo/10.0.0.2:80", Evidence::BulkDeleted), ("p/other/1", Evidence::LookingUp)] {
        let mut view = view();
        reset(&mut view, &listing(5, &[foreign("p/echo/10.0.0.1:80", 3)]), at(0));
        view.apply(&[deleted("p/echo/10.0.0.1:80", 6), deleted(other, 6)], at(0));
        assert_eq!(evidence(&view), [("10.0.0.1:80".to_owned(), expected)], "with {other}");
    }
    let mut view = view();
    reset(&mut view, &listing(5, &[foreign("p/echo/10.0.0.1:80", 3)]), at(0));
    view.apply(&[deleted("p/echo/10.0.0.2:80", 6), deleted("p/echo/10.0.0.1:80", 7)], at(0));
    assert_eq!(evidence(&view), [("10.0.0.1:80".to_owned(), Evidence::LookingUp)], "one after the other");
}

#[test]
fn healed_records_that_go_with_a_lease_of_ours_are_looked_up() {
    let healed = |n: i64, lease| {
        let marks = "c1/shop/echo\",\"twinspan.dev/healed\":\"true";
        raw(&format!("p/echo/10.0.0.{n}:80"), n, lease, Some(marks))
    };
    let (ours, theirs) = (LeaseId(70), LeaseId(71));
    for (lease, count, expected, if_it_lives) in [
        (ours, 2, Evidence::LookingUp, Evidence::BulkDeleted),
        (ours, 1, Evidence::LookingUp, Evidence::Deregistered),
        (theirs, 2, Evidence::BulkDeleted, Evidence::BulkDeleted),
    ] {
        let mut view = view();
        view.departures.set_our_leases([ours].into());
        let records: Vec<RawRecord> = (1..=count).map(|n| healed(n, lease)).collect();
        reset(&mut view, &listing(5, &records), at(0));
        let all: Vec<Change> = records.iter().map(|record| deleted(&record.key.to_string(), 6)).collect();
        let affected = view.apply(&all, at(0));
        assert!(evidence(&view).iter().all(|(_, evidence)| *evidence == expected), "{:?}", evidence(&view));
        assert!(affected.look_ups.iter().all(|look_up| look_up.if_it_lives == if_it_lives), "{affected:?}");
        assert_eq!(affected.look_ups.is_empty(), expected != Evidence::LookingUp);
    }
}

#[test]
fn a_go_zero_key_that_is_deleted_alone_deregistered() {
    let mut view = RegistryView::new(Layout::new(Format::GoZero, ""), "c1", None);
    let echo = Range::Service(RegistryName::new("echo").unwrap());
    let record = |key: &str, address: &str| RawRecord {
        key: key.into(),
        value: address.as_bytes().to_vec(),
        mod_revision: 1,
        lease: LEASE,
    };
    view.begin(None);
    assert_eq!(view.snapshot(&super::tests::echo().0, &super::tests::echo().1).state, ViewState::Unknown);
    let records = [record("echo/1", "10.0.0.1:80"), record("echo/twinspan~c1~shop~echo~10.0.0.2:80", "10.0.0.2:80")];
    view.reset_to(&echo, &listing(5, &records), at(0));
    assert_eq!((keys(&view).len(), view.names_of_ours().len()), (2, 1));
    let affected = view.apply(&[deleted("echo/1", 6)], at(0));
    assert_eq!(
        (evidence(&view), affected.look_ups),
        (vec![("10.0.0.1:80".to_owned(), Evidence::Deregistered)], Vec::new())
    );
    view.forget(&echo);
    assert_eq!((keys(&view).len(), view.counts()), (0, Counts::default()));
}

#[test]
fn a_lost_lease_drops_its_records_before_the_watch_reports_it() {
    let mut view = view();
    let healed = raw("p/echo/10.0.0.3:80", 3, LeaseId(71), Some("c1/shop/echo\",\"twinspan.dev/healed\":\"true"));
    reset(&mut view, &listing(5, &[own("p/echo/10.0.0.1:80", 1), own("p/old/10.0.0.2:80", 2), healed]), at(0));
    assert_eq!(view.own_leases().len(), 2, "what we put back hangs on leases of ours as well");
    let affected = view.lease_lost(LeaseId(70), 100);
    assert_eq!((affected.names.len(), affected.owners.len()), (2, 1));
    assert_eq!(keys(&view), ["p/echo/10.0.0.3:80"]);
    assert_eq!(view.apply(&[deleted("p/echo/10.0.0.1:80", 6)], at(0)), Affected::default(), "old news");
}

#[test]
fn our_own_deletes_are_not_departures() {
    let mut view = view();
    reset(&mut view, &listing(5, &[own("p/echo/10.0.0.1:80", 3), own("p/echo/10.0.0.2:80", 4)]), at(0));
    let op = RecordOp::Delete { key: "p/echo/10.0.0.1:80".into(), if_revision: 3, lease: LeaseId(70) };
    view.begin_write(&ServiceKey::new("shop", "echo").into(), &op);
    view.apply(&[deleted("p/echo/10.0.0.1:80", 6)], at(0));
    assert_eq!(evidence(&view), []);
    // A delete by another client does: a server that shares the key deregistered.
    view.apply(&[deleted("p/echo/10.0.0.2:80", 7)], at(0));
    assert_eq!(evidence(&view), [("10.0.0.2:80".to_owned(), Evidence::LookingUp)]);
}

#[test]
fn several_own_records_deleted_in_one_revision_are_not_looked_up() {
    let mut view = view();
    reset(
        &mut view,
        &listing(5, &[own("p/echo/10.0.0.1:80", 3), own("p/echo/10.0.0.2:80", 4), foreign("p/echo/10.0.0.3:80", 5)]),
        at(0),
    );
    let all = ["p/echo/10.0.0.1:80", "p/echo/10.0.0.2:80", "p/echo/10.0.0.3:80"].map(|key| deleted(key, 6));
    view.apply(&all, at(0));
    assert_eq!(evidence(&view), [("10.0.0.3:80".to_owned(), Evidence::LookingUp)]);
    assert!(view.own_leases().is_empty());
}

#[test]
fn departures_are_forgotten_when_they_no_longer_matter() {
    let mut view = view();
    reset(&mut view, &listing(5, &[foreign("p/echo/10.0.0.1:80", 3)]), at(0));
    view.apply(&[deleted("p/echo/10.0.0.1:80", 6)], at(0));
    view.progressed(7, at(299));
    assert_eq!(evidence(&view).len(), 1);
    view.progressed(8, at(400));
    assert_eq!(evidence(&view), []);
}

#[test]
fn with_several_ranges_a_delete_of_ours_is_not_undone_by_an_older_event() {
    let mut view = RegistryView::new(Layout::new(Format::GoZero, ""), "c1", None);
    let own = |name: &str, mod_revision| RawRecord {
        key: format!("{name}/twinspan~c1~shop~echo~10.0.0.1:80").as_str().into(),
        value: b"10.0.0.1:80".to_vec(),
        mod_revision,
        lease: LEASE,
    };
    view.begin(None);
    for name in ["echo", "other"] {
        view.reset_to(&Range::Service(RegistryName::new(name).unwrap()), &listing(5, &[own(name, 4)]), at(0));
    }
    view.learnt(&own("echo", 4).key, None, 8, &mut Affected::default());
    // The other range is ahead of this one.
    view.apply(&[Change::Put(own("other", 9))], at(0));
    view.learnt(&own("echo", 4).key, None, 8, &mut Affected::default());
    view.apply(&[Change::Put(own("echo", 7))], at(0));
    assert_eq!(keys(&view), Vec::<String>::new());

    let mut view = RegistryView::new(Layout::new(Format::GoZero, ""), "c1", None);
    view.begin(None);
    for name in ["echo", "other"] {
        view.reset_to(&Range::Service(RegistryName::new(name).unwrap()), &listing(5, &[own(name, 4)]), at(0));
    }
    view.apply(&[Change::Put(own("other", 9))], at(0));
    view.learnt(&own("echo", 4).key, None, 8, &mut Affected::default());
    view.apply(&[Change::Put(own("echo", 7))], at(0));
    assert_eq!(keys(&view), Vec::<String>::new(), "the answer came after the other range's event");
}

#[test]
fn an_answer_that_events_have_overtaken_brings_no_record_back() {
    for layout in [Layout::new(Format::Kitex, "p"), Layout::new(Format::Kitex, "")] {
        let root = layout.service_root(&RegistryName::new("echo").unwrap());
        let key: RecordKey = format!("{root}10.0.0.1:80").into();
        let range = layout.ranges([&RegistryName::new("echo").unwrap()]).pop_first().unwrap();
        let mut view = RegistryView::new(layout, "c1", None);
        view.begin(None);
        let listing = ListResponse { cluster_id: 1, revision: 10, records: Vec::new() };
        view.reset_to(&range, &listing, Timestamp::UNIX_EPOCH);
        let value = br#"{"network":"tcp","address":"10.0.0.1:80","weight":10,"tags":null}"#.to_vec();
        let raw = RawRecord { key: key.clone(), value, mod_revision: 11, lease: LeaseId::NONE };
        // Our create is answered late: its lease is revoked by then, and the watch has told both.
        let events = [Change::Put(raw.clone()), Change::Delete { key: key.clone(), revision: 12 }];
        view.apply(&events, Timestamp::UNIX_EPOCH);
        view.learnt(&key, Some(&raw), 11, &mut Affected::default());
        assert_eq!(view.all().count(), 0, "{range:?}");
        // An answer ahead of the watch counts at once.
        let next = RawRecord { mod_revision: 13, ..raw };
        view.learnt(&key, Some(&next), 13, &mut Affected::default());
        assert_eq!(view.all().count(), 1, "{range:?}");
    }
}

#[path = "view_incarnation_tests.rs"]
mod incarnation;
#[path = "view_properties.rs"]
mod properties;

#[test]
fn records_under_other_names_are_those_that_do_not_lie_right_below_the_name() {
    let owner = Owner { cluster_id: "c1".into(), service: ServiceKey::new("shop", "echo") };
    let keys =
        ["p/echo-2/10.0.0.1:80", "p/echo/10.0.0.1:80", "p/echo/10.0.0.2:80", "p/echo0/10.0.0.1:80", "p/a/10.0.0.1:80"];
    let mut view = view();
    reset(&mut view, &listing(9, &keys.map(|key| own(key, 3))), at(0));
    let snapshot = view.snapshot(&RegistryName::new("echo").unwrap(), &owner);
    let others: Vec<String> = snapshot.under_other_names.keys().map(ToString::to_string).collect();
    assert_eq!(others, ["p/a/10.0.0.1:80", "p/echo-2/10.0.0.1:80", "p/echo0/10.0.0.1:80"]);
    assert_eq!(snapshot.records.len(), 2);
}

#[test]
fn an_event_of_a_write_in_flight_concerns_the_others_and_a_later_change_concerns_the_writer_too() {
    let mut view = view();
    let by = Arc::new(ServiceKey::new("shop", "echo"));
    reset(&mut view, &listing(5, &[own("p/echo/10.0.0.1:80", 3)]), at(0));
    let key = || RecordKey::from("p/echo/10.0.0.1:80");
    let update = RecordOp::Update { key: key(), value: Vec::new(), if_revision: 3, lease: LEASE };
    view.begin_write(&by, &update);
    let change = |revision| Change::Put(own("p/echo/10.0.0.1:80", revision));
    let other = Change::Put(own("p/echo/10.0.0.2:80", 7));
    let affected = view.apply(&[change(6), other], at(0));
    assert_eq!((affected.names.len(), affected.owners.len()), (1, 1), "the other key is nobody's write");
    let echoes = view.take_echoes();
    assert!(echoes.keys().eq([&by]) && echoes[&by].names.contains("echo".as_bytes()), "{echoes:?}");
    assert!(!view.is_overtaken(&update, 6) && view.take_echoes().is_empty());
    view.apply(&[change(8)], at(0));
    assert!(view.is_overtaken(&update, 6), "somebody wrote it after us");
    view.apply(&[deleted("p/echo/10.0.0.1:80", 9)], at(0));
    assert!(view.is_overtaken(&update, 6), "somebody deleted it after us");
    let delete = RecordOp::Delete { key: key(), if_revision: 8, lease: LEASE };
    assert!(!view.is_overtaken(&delete, 9));
    view.end_write(&update);
    drop(view.take_echoes());
    assert_eq!(view.apply(&[change(10)], at(0)).owners, [(*by).clone()].into());
    assert!(view.is_overtaken(&delete, 9) && view.take_echoes().is_empty());
}
