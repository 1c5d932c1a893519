use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

#[test]
fn an_export_waits_ten_seconds_after_its_server_left_and_not_at_all_after_it_expired() {
    for (evidence, now, until) in [
        (Evidence::Left, 0, Some(10)),
        (Evidence::Left, 9, Some(10)),
        (Evidence::Left, 10, None),
        (Evidence::Pending, 9, Some(10)),
        (Evidence::Expired, 0, None),
        (Evidence::Swept, 0, None),
        (Evidence::RolledBack, 0, None),
        // A clock that was set back never prolongs a hold.
        (Evidence::Left, -100, Some(-90)),
    ] {
        let departure = Departure { evidence, at: at(0), record: None };
        assert_eq!(departure.holds_export(at(now)), until.map(at), "{evidence:?} at {now}");
    }
}

const GONE: Judgement = Judgement::Gone;

fn case(evidence: Evidence) -> Case {
    Case {
        evidence,
        at: at(0),
        on_expiry: OnExpiry::Probe,
        keepable: true,
        last: false,
        probe: None,
        lost_until: None,
        keep_lost: SignedDuration::from_secs(3600),
        now: at(0),
    }
}

fn probe(answer: Answer, since: i64) -> Option<Probe> {
    Some(Probe { answer, since: at(since) })
}

fn unexplained(since: i64) -> Judgement {
    Judgement::Unexplained { since: at(since), probe: false }
}

/// What refuses meanwhile goes at once.
fn unexplained_and_asked(since: i64) -> Judgement {
    Judgement::Unexplained { since: at(since), probe: true }
}

fn lost(until: i64) -> Judgement {
    Judgement::Lost { until: at(until) }
}

#[test]
fn what_left_goes_at_once_and_the_last_one_only_once_it_stops_accepting() {
    let left = case(Evidence::Left);
    assert_eq!(judge(&left), GONE);
    let last = Case { last: true, ..left };
    for (answer, now, expected) in [
        (None, 0, Judgement::Waiting { probe: true, look_again: Some(at(35)) }),
        (probe(Answer::Accepted, 0), 34, Judgement::Waiting { probe: true, look_again: Some(at(35)) }),
        (probe(Answer::Accepted, 0), 35, GONE),
        (probe(Answer::Refused, 0), 1, GONE),
        (probe(Answer::Silent, 0), 1, GONE),
    ] {
        assert_eq!(judge(&Case { probe: answer, now: at(now), ..last }), expected, "{answer:?} at {now}");
    }
    assert_eq!(judge(&Case { keepable: false, ..last }), GONE, "a pod's readiness is known better");
}

#[test]
fn what_expired_is_probed() {
    let expired = case(Evidence::Expired);
    for (answer, lost_until, now, expected) in [
        (None, None, 0, Judgement::Waiting { probe: true, look_again: Some(at(3600)) }),
        (probe(Answer::Refused, 0), None, 0, GONE),
        (probe(Answer::Refused, 500), Some(3600), 500, GONE),
        (probe(Answer::Accepted, 0), None, 1, lost(3600)),
        // The deadline is the one that was found first, and after it the guard decides.
        (probe(Answer::Accepted, 0), Some(2000), 1999, lost(2000)),
        (probe(Answer::Accepted, 0), Some(2000), 2000, unexplained_and_asked(2000)),
        // Shortened meanwhile.
        (probe(Answer::Accepted, 0), Some(9000), 100, lost(3700)),
        (probe(Answer::Silent, 1), None, 10, Judgement::Waiting { probe: true, look_again: Some(at(11)) }),
        (probe(Answer::Silent, 1), None, 11, unexplained_and_asked(11)),
        (probe(Answer::Silent, 500), Some(3600), 505, lost(3600)),
        (probe(Answer::Silent, 500), Some(3600), 510, unexplained_and_asked(510)),
    ] {
        let case = Case { probe: answer, lost_until: lost_until.map(at), now: at(now), ..expired };
        assert_eq!(judge(&case), expected, "{answer:?}, lost until {lost_until:?}, at {now}");
        assert_eq!(judge(&Case { on_expiry: OnExpiry::Heal, ..case }), expected, "the same with Heal");
        if lost_until.is_none() {
            assert_eq!(judge(&Case { evidence: Evidence::Orphaned, ..case }), expected, "an orphan is probed likewise");
        }
    }
}

#[test]
fn with_remove_an_expired_one_is_unexplained_and_an_orphan_is_probed_first() {
    let remove = |evidence| Case { on_expiry: OnExpiry::Remove, ..case(evidence) };
    assert_eq!(judge(&remove(Evidence::Expired)), unexplained(0));
    let orphan = remove(Evidence::Orphaned);
    assert_eq!(judge(&orphan), Judgement::Waiting { probe: true, look_again: None });
    assert_eq!(judge(&Case { probe: probe(Answer::Refused, 0), ..orphan }), GONE);
    assert_eq!(judge(&Case { probe: probe(Answer::Accepted, 0), ..orphan }), unexplained_and_asked(0));
    assert_eq!(judge(&Case { probe: probe(Answer::Silent, 0), ..orphan }), unexplained_and_asked(0));
}

#[test]
fn what_no_server_does_is_unexplained_whatever_a_connection_shows() {
    for evidence in [Evidence::Swept, Evidence::Unreadable, Evidence::RolledBack] {
        for answer in [None, probe(Answer::Accepted, 0), probe(Answer::Refused, 0)] {
            assert_eq!(judge(&Case { probe: answer, ..case(evidence) }), unexplained(0), "{evidence:?}, {answer:?}");
        }
    }
}

#[test]
fn what_is_never_kept_is_never_probed() {
    for evidence in [Evidence::Expired, Evidence::Orphaned] {
        for on_expiry in [OnExpiry::Remove, OnExpiry::Probe, OnExpiry::Heal] {
            let case = Case { keepable: false, on_expiry, probe: probe(Answer::Accepted, 0), ..case(evidence) };
            assert_eq!(judge(&case), unexplained(0), "{evidence:?}, {on_expiry:?}");
        }
    }
}

#[test]
fn until_the_lease_was_looked_up_it_stays() {
    assert_eq!(judge(&case(Evidence::Pending)), Judgement::Waiting { probe: false, look_again: None });
}
