//! The view of a registry that came back as another one, or as an older one.

use super::*;

#[test]
fn records_missing_after_a_rollback_are_unexplained_and_own_ones_are_put_back() {
    let another = ListResponse { cluster_id: 2, ..listing(9, &[]) };
    for (second, returned) in [(another, Incarnation::ClusterChanged), (listing(4, &[]), Incarnation::RolledBack)] {
        let mut view = view();
        let first = [foreign("p/echo/10.0.0.1:80", 3), foreign("p/echo/pod", 4), own("p/echo/10.0.0.2:80", 5)];
        let mut moved = first[1].clone();
        moved.value = foreign("p/echo/10.0.0.7:80", 4).value;
        reset(&mut view, &listing(5, &[first[0].clone(), moved, first[2].clone()]), at(0));
        // One key has an earlier value there: its present address is missing too.
        let mut before = first[1].clone();
        before.value = foreign("p/echo/10.0.0.6:80", 2).value;
        before.mod_revision = 2;
        let affected = reset(&mut view, &ListResponse { records: vec![before], ..second.clone() }, at(0));
        assert_eq!(affected.look_ups, [], "its leases say nothing");
        let rolled_back = |address: &str| (address.to_owned(), Evidence::RolledBack);
        assert_eq!(evidence(&view), [rolled_back("10.0.0.1:80"), rolled_back("10.0.0.7:80")]);
        assert_eq!(view.incarnation(), returned);
        // Revisions start anew: a lower revision may be newer.
        view.apply(&[Change::Put(foreign("p/echo/10.0.0.1:80", second.revision + 1))], at(0));
        assert_eq!(keys(&view).len(), 2);
        let same = listing_of(&view, second.cluster_id);
        reset(&mut view, &same, at(0));
        assert_eq!(view.incarnation(), Incarnation::AsItWas);
    }
}

fn listing_of(view: &RegistryView, cluster_id: u64) -> ListResponse {
    ListResponse { cluster_id, revision: view.revision, records: Vec::new() }
}

#[test]
fn a_process_that_starts_knows_the_etcd_cluster_from_the_status() {
    for (before, expected) in [
        (None, Incarnation::AsItWas),
        (Some((1, 5)), Incarnation::AsItWas),
        (Some((1, 6)), Incarnation::RolledBack),
        (Some((2, 5)), Incarnation::ClusterChanged),
    ] {
        let mut view = RegistryView::new(Layout::new(Format::Kitex, "p"), "c1", before.map(Into::into));
        reset(&mut view, &listing(5, &[foreign("p/echo/10.0.0.1:80", 3)]), at(0));
        assert_eq!((view.incarnation(), keys(&view).len()), (expected, 1), "{before:?}");
    }
}

fn list(view: &mut RegistryView, listing: &ListResponse) {
    reset(view, listing, at(0));
}

/// K of this address with another value.
fn changed(key: &str, mod_revision: Revision) -> RawRecord {
    let mut raw = own(key, mod_revision);
    raw.value = String::from_utf8(raw.value).unwrap().replace("10,", "20,").into();
    raw
}

#[test]
fn a_listed_revision_that_went_back_is_a_rollback_and_the_list_is_believed() {
    let key = "p/echo/10.0.0.1:80";
    for (after, why) in [
        (changed(key, 500), "a snapshot that was restored with a higher revision"),
        (changed(key, 900), "the first write on a new line of revisions"),
    ] {
        let mut view = view();
        list(&mut view, &listing(950, &[own(key, 900), foreign("p/echo/10.0.0.2:80", 940)]));
        list(&mut view, &listing(2000, std::slice::from_ref(&after)));
        let (name, owner) = echo();
        let record = view.snapshot(&name, &owner).records[&RecordKey::from(key)].clone();
        assert_eq!(*record, view.layout().decode(&after), "{why}");
        assert_eq!(view.incarnation(), Incarnation::RolledBack, "{why}");
        assert_eq!(evidence(&view), [("10.0.0.2:80".to_owned(), Evidence::RolledBack)], "{why}");
    }
    // A record that we wrote while the list was in flight proves nothing.
    let mut view = view();
    list(&mut view, &listing(950, &[own(key, 900)]));
    view.learnt(&key.into(), Some(&changed(key, 970)), 970, &mut Affected::default());
    view.reset_to(&Range::Everything, &listing(960, &[own(key, 900)]), at(0));
    assert_eq!((view.incarnation(), keys(&view).len()), (Incarnation::AsItWas, 1));
}

/// The watch was silent, so that the newest known revision is that of an answer.
#[test]
fn the_first_list_of_a_session_that_is_older_than_an_answer_before_it_is_a_rollback() {
    let [theirs, ours, later] = [foreign("p/echo/10.0.0.2:80", 940), own("p/echo/1", 951), own("p/echo/3", 952)];
    let mut view = view();
    list(&mut view, &listing(950, std::slice::from_ref(&theirs)));
    view.learnt(&ours.key, Some(&ours), 951, &mut Affected::default());
    list(&mut view, &listing(951, &[theirs.clone(), ours.clone()]));
    assert_eq!((view.incarnation(), keys(&view).len()), (Incarnation::AsItWas, 2));
    view.learnt(&later.key, Some(&later), 952, &mut Affected::default());
    list(&mut view, &listing(951, &[theirs.clone(), ours.clone()]));
    assert_eq!((view.incarnation(), keys(&view).len()), (Incarnation::RolledBack, 2), "the later one is gone");
    // Revisions go on from there.
    view.learnt(&later.key, Some(&later), 952, &mut Affected::default());
    list(&mut view, &listing(952, &[theirs, ours, later]));
    assert_eq!((view.incarnation(), keys(&view).len()), (Incarnation::AsItWas, 3));
}

#[test]
fn a_range_that_went_back_makes_those_listed_before_it_unexplained_too() {
    let mut view = RegistryView::new(Layout::new(Format::GoZero, ""), "c1", None);
    let record = |key: &str, mod_revision| RawRecord {
        key: key.into(),
        value: b"10.0.0.1:80".to_vec(),
        mod_revision,
        lease: LEASE,
    };
    let range = |name: &str| Range::Service(RegistryName::new(name).unwrap());
    view.begin(None);
    view.reset_to(&range("echo"), &listing(950, &[record("echo/1", 900)]), at(0));
    view.reset_to(&range("other"), &listing(950, &[record("other/1", 910)]), at(0));
    view.set_settled();
    view.begin(None);
    view.reset_to(&range("echo"), &listing(2000, &[]), at(9));
    assert_eq!(evidence(&view), [("10.0.0.1:80".to_owned(), Evidence::DeregisteredUnseen)]);
    view.reset_to(&range("other"), &listing(2000, &[record("other/1", 500)]), at(9));
    assert_eq!(evidence(&view), [("10.0.0.1:80".to_owned(), Evidence::RolledBack)]);
    assert_eq!(view.incarnation(), Incarnation::RolledBack);
}

#[test]
fn a_lost_race_that_shows_an_older_record_is_believed_and_asks_for_a_list() {
    let key = "p/echo/10.0.0.1:80";
    let mut view = view();
    list(&mut view, &listing(950, &[own(key, 900)]));
    view.learnt(&key.into(), Some(&own(key, 900)), 960, &mut Affected::default());
    assert!(!view.is_contradicted());
    view.learnt(&key.into(), Some(&changed(key, 500)), 2001, &mut Affected::default());
    assert!(view.is_contradicted());
    let (name, owner) = echo();
    assert_eq!(view.snapshot(&name, &owner).records[&RecordKey::from(key)].mod_revision, 500);
    list(&mut view, &listing(2002, &[changed(key, 500)]));
    assert_eq!((view.incarnation(), view.is_contradicted()), (Incarnation::RolledBack, false));
}

fn values(incarnation: IncarnationKey, epoch: Option<u64>) -> Option<FenceValues> {
    Some(FenceValues { incarnation, epoch })
}

#[test]
fn incarnation_and_epoch_tell_what_cluster_id_and_revision_do_not() {
    let value = |text: &str| IncarnationKey::Value(text.to_owned());
    let known = |incarnation: Option<&str>, epoch| LastKnown {
        incarnation: incarnation.map(ToOwned::to_owned),
        epoch,
        ..LastKnown::from((1, 5))
    };
    for (known, found, expected) in [
        (known(None, None), values(IncarnationKey::Missing, None), Incarnation::AsItWas),
        (known(None, None), values(value("a"), Some(7)), Incarnation::AsItWas),
        (known(Some("a"), Some(7)), values(value("a"), Some(7)), Incarnation::AsItWas),
        (known(Some("a"), Some(7)), values(value("a"), Some(9)), Incarnation::AsItWas),
        (known(Some("a"), Some(7)), values(value("a"), Some(6)), Incarnation::RolledBack),
        (known(Some("a"), Some(7)), values(value("a"), None), Incarnation::RolledBack),
        (known(Some("a"), Some(7)), values(IncarnationKey::Missing, None), Incarnation::RolledBack),
        (known(Some("a"), Some(7)), values(IncarnationKey::Missing, Some(7)), Incarnation::RolledBack),
        (known(Some("a"), Some(7)), values(value("b"), Some(7)), Incarnation::ClusterChanged),
        (known(Some("a"), Some(7)), values(IncarnationKey::Unreadable, Some(7)), Incarnation::AsItWas),
        (known(Some("a"), Some(7)), None, Incarnation::AsItWas),
        (
            LastKnown { unsettled: Some(Incarnation::RolledBack), ..known(Some("a"), Some(7)) },
            values(value("a"), Some(8)),
            Incarnation::RolledBack,
        ),
    ] {
        let text = format!("{known:?} {found:?}");
        let mut view = RegistryView::new(Layout::new(Format::Kitex, "p"), "c1", Some(known));
        view.begin(found.clone());
        view.reset_to(&Range::Everything, &listing(9, &[]), at(0));
        view.set_settled();
        assert_eq!(view.incarnation(), expected, "{text}");
        // Once it was met, it is the known one.
        view.begin(found);
        view.reset_to(&Range::Everything, &listing(9, &[]), at(0));
        assert_eq!(view.incarnation(), Incarnation::AsItWas, "{text}");
    }
    // A proxy answers without a cluster ID.
    let mut view = view();
    list(&mut view, &listing(9, &[]));
    list(&mut view, &ListResponse { cluster_id: 0, ..listing(9, &[]) });
    list(&mut view, &listing(9, &[]));
    assert_eq!(view.incarnation(), Incarnation::AsItWas);
}

/// The session of a replica that does not lead may have begun before the first leader created the incarnation key.
#[test]
fn the_status_tells_a_replica_that_does_not_lead_of_the_incarnation_and_the_epoch() {
    let value = |text: &str| IncarnationKey::Value(text.to_owned());
    let told = |incarnation: &str, epoch| LastKnown {
        incarnation: Some(incarnation.to_owned()),
        epoch: Some(epoch),
        ..LastKnown::from((1, 5))
    };
    let session = |view: &mut RegistryView, found, told: Option<&LastKnown>| {
        view.begin(found);
        // Its list may be older than a status that comes meanwhile.
        told.iter().for_each(|told| view.told(told));
        view.reset_to(&Range::Everything, &listing(9, &[]), at(0));
    };
    for (told, found, expected) in [
        (told("a", 2), values(value("a"), Some(2)), Incarnation::AsItWas),
        (told("a", 2), values(value("a"), Some(3)), Incarnation::AsItWas),
        (told("a", 2), values(value("a"), Some(1)), Incarnation::RolledBack),
        (told("a", 2), values(IncarnationKey::Missing, None), Incarnation::RolledBack),
        (told("a", 2), values(value("b"), Some(2)), Incarnation::ClusterChanged),
        // The status tells of another etcd than the session met, or of the registry before it came back.
        (LastKnown { etcd: 2, ..told("a", 2) }, values(value("b"), Some(1)), Incarnation::AsItWas),
        (
            LastKnown { unsettled: Some(Incarnation::RolledBack), ..told("a", 2) },
            values(value("b"), Some(1)),
            Incarnation::AsItWas,
        ),
    ] {
        let text = format!("{told:?} {found:?}");
        let mut view = RegistryView::new(Layout::new(Format::Kitex, "p"), "c1", None);
        session(&mut view, values(IncarnationKey::Missing, None), Some(&told));
        assert_eq!(view.incarnation(), Incarnation::AsItWas, "{text}");
        view.told(&told);
        view.set_stale();
        session(&mut view, found, None);
        assert_eq!(view.incarnation(), expected, "{text}");
    }
    // Once a session met another incarnation, a status that is late adds nothing.
    let mut view = RegistryView::new(Layout::new(Format::Kitex, "p"), "c1", Some(told("a", 2)));
    session(&mut view, values(value("b"), Some(1)), None);
    view.told(&told("a", 2));
    view.set_settled();
    session(&mut view, values(value("b"), Some(1)), Some(&told("a", 2)));
    view.told(&told("a", 2));
    session(&mut view, values(value("b"), Some(1)), None);
    assert_eq!(view.incarnation(), Incarnation::AsItWas);
}

/// A registry was emptied and its leader ended before it could raise the epoch again.
#[test]
fn an_epoch_that_is_known_to_be_lost_is_no_evidence_that_the_registry_came_back() {
    let known = LastKnown { epoch: None, highest_epoch: 3, ..LastKnown::from((1, 5)) };
    let mut standby = RegistryView::new(Layout::new(Format::Kitex, "p"), "c1", None);
    standby.told(&known);
    standby.begin(values(IncarnationKey::Missing, None));
    standby.reset_to(&Range::Everything, &listing(9, &[]), at(0));
    assert_eq!(standby.incarnation(), Incarnation::AsItWas);
}

const WRITTEN: &str = "p/echo/10.0.0.1:80";

/// The view of an empty registry, after an event of a write in flight.
fn echoed() -> RegistryView {
    let mut view = view();
    reset(&mut view, &listing(5, &[]), at(0));
    let create = RecordOp::Create { key: WRITTEN.into(), value: own(WRITTEN, 6).value };
    view.begin_write(&Arc::new(ServiceKey::new("shop", "echo")), &create);
    view.apply(&[Change::Put(own(WRITTEN, 6))], at(0));
    view
}

#[test]
fn an_answer_contradicts_the_event_of_the_write_if_it_has_another_value_or_lease() {
    let other_lease = RawRecord { lease: LeaseId(71), ..own(WRITTEN, 6) };
    for (answer, contradicts) in [(own(WRITTEN, 6), false), (foreign(WRITTEN, 6), true), (other_lease, true)] {
        let (mut view, mut affected) = (echoed(), Affected::default());
        view.learnt(&WRITTEN.into(), Some(&answer), 6, &mut affected);
        assert_eq!((view.is_contradicted(), affected.is_empty()), (contradicts, !contradicts), "{answer:?}");
    }
}

#[test]
fn an_answer_contradicts_a_list_that_came_after_the_event_of_the_write() {
    let mut view = echoed();
    reset(&mut view, &listing(6, &[foreign(WRITTEN, 6)]), at(0));
    assert_eq!(view.incarnation(), Incarnation::RolledBack);
    view.learnt(&WRITTEN.into(), Some(&own(WRITTEN, 6)), 6, &mut Affected::default());
    assert!(view.is_contradicted(), "the list has another record at the same revision");
}
