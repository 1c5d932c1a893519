use super::*;
use twinspan_core::codec::Format;

const LEASE: LeaseId = LeaseId(7);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn view() -> RegistryView {
    RegistryView::new(Layout::new(Format::Kitex, "p"), "c1")
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

fn listing(revision: Revision, records: &[RawRecord]) -> Listing {
    Listing { cluster_id: 1, revision, records: records.to_vec() }
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
    assert_eq!(view.state(), State::Unknown);
    view.set_stale();
    assert_eq!(view.state(), State::Unknown, "what was never known is not stale");
    view.reset(&listing(5, &[]), at(0));
    assert_eq!(view.state(), State::Fresh);
    view.apply(&[Change::Put(foreign("p/echo/10.0.0.1:80", 6))], at(0));
    view.set_stale();
    assert_eq!((view.state(), keys(&view).len()), (State::Stale, 1), "everything stays as it is");
}

#[test]
fn records_are_found_by_name_and_by_owner_and_counted() {
    let mut view = view();
    let touched = view.reset(
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
    assert_eq!(touched.names.len(), 2);
    assert_eq!(touched.owners.iter().map(ToString::to_string).collect::<Vec<_>>(), ["shop/echo"]);
    assert_eq!(view.counts(), Counts { own: 2, foreign: 2, undecodable: 1 });
    assert_eq!(view.own_leases(), &BTreeMap::from([(LeaseId(70), 2)]));
    let (name, owner) = echo();
    let snapshot = view.snapshot(&name, &owner);
    assert_eq!(snapshot.records.len(), 4);
    assert_eq!(snapshot.elsewhere.keys().map(ToString::to_string).collect::<Vec<_>>(), ["p/old/10.0.0.1:80"]);
    assert_eq!(view.snapshot_of_owner(&owner).elsewhere.len(), 2);
}

#[test]
fn only_newer_things_count_whoever_tells_them() {
    let mut view = view();
    view.reset(&listing(5, &[foreign("p/echo/10.0.0.1:80", 3)]), at(0));
    // Our own write is answered before the watch shows it, or after.
    let key: RecordKey = "p/echo/10.0.0.2:80".into();
    view.learnt(&key, Some(&own("p/echo/10.0.0.2:80", 6)), 6);
    assert_eq!(view.apply(&[Change::Put(own("p/echo/10.0.0.2:80", 6))], at(0)), Touched::default(), "old news");
    view.learnt(&key, None, 8);
    assert_eq!(keys(&view), ["p/echo/10.0.0.1:80"]);
    // An event from before our delete must not bring the record back, one from after it does.
    view.apply(&[Change::Put(own("p/echo/10.0.0.2:80", 7))], at(0));
    assert_eq!(keys(&view).len(), 1);
    view.apply(&[deleted("p/echo/10.0.0.2:80", 8), Change::Put(own("p/echo/10.0.0.2:80", 9))], at(0));
    assert_eq!(keys(&view).len(), 2);
    // A delete from before a put is old news as well.
    view.apply(&[deleted("p/echo/10.0.0.2:80", 8)], at(0));
    assert_eq!(keys(&view).len(), 2);
}

#[test]
fn a_list_says_what_vanished_but_not_what_was_written_while_it_was_on_its_way() {
    let mut view = view();
    view.reset(&listing(5, &[foreign("p/echo/10.0.0.1:80", 3), foreign("p/echo/10.0.0.2:80", 4)]), at(0));
    view.learnt(&"p/echo/10.0.0.3:80".into(), Some(&own("p/echo/10.0.0.3:80", 9)), 9);
    let touched = view.reset(&listing(8, &[foreign("p/echo/10.0.0.2:80", 4)]), at(0));
    assert_eq!(keys(&view), ["p/echo/10.0.0.2:80", "p/echo/10.0.0.3:80"]);
    assert_eq!(touched.look_ups.len(), 1, "how it went has to be looked up: {touched:?}");
    assert_eq!(evidence(&view), [("10.0.0.1:80".to_owned(), Evidence::Pending)]);
}

#[test]
fn a_departure_is_explained_by_its_lease_and_ends_when_the_address_is_registered_again() {
    let mut view = view();
    view.reset(
        &listing(5, &[foreign("p/echo/10.0.0.1:80", 3), raw("p/echo/10.0.0.2:80", 4, LeaseId::NONE, None)]),
        at(0),
    );
    let touched = view.apply(&[deleted("p/echo/10.0.0.1:80", 6), deleted("p/echo/10.0.0.2:80", 7)], at(0));
    assert_eq!(
        evidence(&view),
        [("10.0.0.1:80".to_owned(), Evidence::Pending), ("10.0.0.2:80".to_owned(), Evidence::Left)],
        "without a lease nothing can expire"
    );
    let look_up = &touched.look_ups[0];
    assert_eq!(look_up.lease, LEASE);
    assert!(view.explain(look_up, Evidence::Expired));
    assert!(!view.explain(look_up, Evidence::Left), "once explained it stays so");
    view.apply(&[Change::Put(foreign("p/echo/some-other-key/10.0.0.1:80", 8))], at(0));
    assert_eq!(evidence(&view), [("10.0.0.2:80".to_owned(), Evidence::Left)]);
    // An answer about the first departure says nothing about a second one.
    let again = view.apply(&[deleted("p/echo/some-other-key/10.0.0.1:80", 9)], at(20));
    assert!(!view.explain(look_up, Evidence::Left));
    assert!(view.explain(&again.look_ups[0], Evidence::Left));
}

#[test]
fn what_another_or_an_older_registry_does_not_have_is_unexplained() {
    for second in [Listing { cluster_id: 2, ..listing(9, &[]) }, listing(4, &[])] {
        let mut view = view();
        view.reset(&listing(5, &[foreign("p/echo/10.0.0.1:80", 3), own("p/echo/10.0.0.2:80", 4)]), at(0));
        let touched = view.reset(&second, at(0));
        assert_eq!(touched.look_ups, [], "its leases say nothing");
        assert!(evidence(&view).iter().all(|(_, e)| *e == Evidence::Unexplained), "{:?}", evidence(&view));
        // Revisions start anew: what is older by number is newer in truth.
        view.apply(&[Change::Put(foreign("p/echo/10.0.0.1:80", second.revision + 1))], at(0));
        assert_eq!(keys(&view).len(), 1);
    }
}

#[test]
fn our_own_deletes_are_no_departures() {
    let mut view = view();
    view.reset(&listing(5, &[own("p/echo/10.0.0.1:80", 3), own("p/echo/10.0.0.2:80", 4)]), at(0));
    view.deleting(&"p/echo/10.0.0.1:80".into(), 3);
    view.apply(&[deleted("p/echo/10.0.0.1:80", 6)], at(0));
    assert_eq!(evidence(&view), []);
    // Somebody else's is: a server that shares the key deregistered.
    view.apply(&[deleted("p/echo/10.0.0.2:80", 7)], at(0));
    assert_eq!(evidence(&view), [("10.0.0.2:80".to_owned(), Evidence::Pending)]);
}

#[test]
fn several_own_records_that_go_at_once_were_swept_away_and_wait_for_nothing() {
    let mut view = view();
    view.reset(
        &listing(5, &[own("p/echo/10.0.0.1:80", 3), own("p/echo/10.0.0.2:80", 4), foreign("p/echo/10.0.0.3:80", 5)]),
        at(0),
    );
    let all = ["p/echo/10.0.0.1:80", "p/echo/10.0.0.2:80", "p/echo/10.0.0.3:80"].map(|key| deleted(key, 6));
    view.apply(&all, at(0));
    assert_eq!(evidence(&view), [("10.0.0.3:80".to_owned(), Evidence::Pending)]);
    assert_eq!(view.own_leases(), &BTreeMap::new());
}

#[test]
fn departures_are_forgotten_when_they_can_change_nothing_any_more() {
    let mut view = view();
    view.reset(&listing(5, &[foreign("p/echo/10.0.0.1:80", 3)]), at(0));
    view.apply(&[deleted("p/echo/10.0.0.1:80", 6)], at(0));
    view.progressed(7, at(299));
    assert_eq!(evidence(&view).len(), 1);
    view.progressed(8, at(400));
    assert_eq!(evidence(&view), []);
}
