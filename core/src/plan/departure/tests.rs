use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

#[test]
fn an_export_waits_ten_seconds_after_its_server_left_and_not_at_all_after_it_expired() {
    for (evidence, now, until) in [
        (Evidence::Deregistered, 0, Some(10)),
        (Evidence::Deregistered, 9, Some(10)),
        (Evidence::Deregistered, 10, None),
        (Evidence::DeregisteredUnseen, 9, Some(10)),
        (Evidence::LookingUp, 9, Some(10)),
        (Evidence::LeaseExpired, 0, None),
        (Evidence::BulkDeleted, 0, None),
        (Evidence::RolledBack, 0, None),
    ] {
        let departure = Departure { evidence, at: at(0), record: None };
        assert_eq!(departure.holds_export(at(now)), until.map(at), "{evidence:?} at {now}");
    }
}

const GONE: Decision = Decision::Gone;

fn case(evidence: Evidence) -> DepartureInput {
    DepartureInput {
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
    Some(Probe { answer, since: at(since), times: MISSING_ANSWERS })
}

fn unexplained(since: i64) -> Decision {
    Decision::Unexplained { since: at(since), probe: false }
}

/// An endpoint that refuses meanwhile is deleted without waiting.
fn unexplained_and_asked(since: i64) -> Decision {
    Decision::Unexplained { since: at(since), probe: true }
}

fn lost(until: i64) -> Decision {
    Decision::Lost { until: at(until), requeue_at: at(until) }
}

#[test]
fn what_left_goes_at_once_and_the_last_one_only_once_it_stops_accepting() {
    let left = case(Evidence::Deregistered);
    assert_eq!(decide(&left), GONE);
    let last = DepartureInput { last: true, ..left };
    for (answer, now, expected) in [
        (None, 0, Decision::Waiting { probe: true, requeue_at: Some(at(35)) }),
        (probe(Answer::Accepted, 0), 34, Decision::Waiting { probe: true, requeue_at: Some(at(35)) }),
        (probe(Answer::Accepted, 0), 35, GONE),
        (probe(Answer::Refused, 0), 1, GONE),
        (probe(Answer::NoAnswer, 0), 1, GONE),
    ] {
        assert_eq!(decide(&DepartureInput { probe: answer, now: at(now), ..last }), expected, "{answer:?} at {now}");
    }
    assert_eq!(decide(&DepartureInput { keepable: false, ..last }), GONE, "a pod's readiness is known better");
}

#[test]
fn one_of_several_that_left_unseen_stays_while_it_accepts_as_the_last_one_does() {
    let unseen = case(Evidence::DeregisteredUnseen);
    let last = DepartureInput { last: true, ..case(Evidence::Deregistered) };
    for (answer, now) in [
        (None, 0),
        (probe(Answer::Accepted, 0), 34),
        (probe(Answer::Accepted, 0), 35),
        (probe(Answer::Refused, 0), 1),
        (probe(Answer::NoAnswer, 0), 1),
    ] {
        let asked = |input| decide(&DepartureInput { probe: answer, now: at(now), ..input });
        assert_eq!(asked(unseen), asked(last), "{answer:?} at {now}");
    }
    assert_eq!(decide(&DepartureInput { keepable: false, ..unseen }), GONE, "a pod's readiness is known better");
}

#[test]
fn what_expired_is_probed() {
    let expired = case(Evidence::LeaseExpired);
    for (answer, lost_until, now, expected) in [
        (None, None, 0, Decision::Waiting { probe: true, requeue_at: Some(at(3600)) }),
        (probe(Answer::Refused, 0), None, 0, GONE),
        (probe(Answer::Refused, 500), Some(3600), 500, GONE),
        (probe(Answer::Accepted, 0), None, 1, lost(3600)),
        // The first deadline stands, and after it the guard decides.
        (probe(Answer::Accepted, 0), Some(2000), 1999, lost(2000)),
        (probe(Answer::Accepted, 0), Some(2000), 2000, unexplained_and_asked(2000)),
        // `keepLostSeconds` was shortened meanwhile.
        (probe(Answer::Accepted, 0), Some(9000), 100, lost(3700)),
        (probe(Answer::NoAnswer, 1), None, 10, Decision::Waiting { probe: true, requeue_at: Some(at(11)) }),
        (probe(Answer::NoAnswer, 1), None, 11, unexplained_and_asked(11)),
        // A lost one that falls silent is judged again when its silence means something.
        (probe(Answer::NoAnswer, 500), Some(3600), 505, Decision::Lost { until: at(3600), requeue_at: at(510) }),
        (probe(Answer::NoAnswer, 500), Some(507), 505, Decision::Lost { until: at(507), requeue_at: at(507) }),
        (probe(Answer::NoAnswer, 500), Some(3600), 510, unexplained_and_asked(510)),
    ] {
        let input = DepartureInput { probe: answer, lost_until: lost_until.map(at), now: at(now), ..expired };
        assert_eq!(decide(&input), expected, "{answer:?}, lost until {lost_until:?}, at {now}");
        assert_eq!(decide(&DepartureInput { on_expiry: OnExpiry::Heal, ..input }), expected, "the same with Heal");
        if lost_until.is_none() {
            assert_eq!(
                decide(&DepartureInput { evidence: Evidence::NoRecordAtStart, ..input }),
                expected,
                "an orphan is probed likewise"
            );
        }
    }
}

#[test]
fn with_remove_an_expired_one_is_unexplained_and_an_orphan_is_probed_first() {
    let remove = |evidence| DepartureInput { on_expiry: OnExpiry::Remove, ..case(evidence) };
    assert_eq!(decide(&remove(Evidence::LeaseExpired)), unexplained(0));
    let orphan = remove(Evidence::NoRecordAtStart);
    assert_eq!(decide(&orphan), Decision::Waiting { probe: true, requeue_at: None });
    assert_eq!(decide(&DepartureInput { probe: probe(Answer::Refused, 0), ..orphan }), GONE);
    assert_eq!(decide(&DepartureInput { probe: probe(Answer::Accepted, 0), ..orphan }), unexplained_and_asked(0));
    assert_eq!(decide(&DepartureInput { probe: probe(Answer::NoAnswer, 0), ..orphan }), unexplained_and_asked(0));
}

#[test]
fn what_no_server_does_is_unexplained_whatever_a_connection_shows() {
    for evidence in [Evidence::BulkDeleted, Evidence::LeaseUnreadable, Evidence::RolledBack] {
        for answer in [None, probe(Answer::Accepted, 0), probe(Answer::Refused, 0)] {
            assert_eq!(
                decide(&DepartureInput { probe: answer, ..case(evidence) }),
                unexplained(0),
                "{evidence:?}, {answer:?}"
            );
        }
    }
}

#[test]
fn what_is_never_kept_is_never_probed() {
    for evidence in [Evidence::LeaseExpired, Evidence::NoRecordAtStart] {
        for on_expiry in [OnExpiry::Remove, OnExpiry::Probe, OnExpiry::Heal] {
            let input =
                DepartureInput { keepable: false, on_expiry, probe: probe(Answer::Accepted, 0), ..case(evidence) };
            assert_eq!(decide(&input), unexplained(0), "{evidence:?}, {on_expiry:?}");
        }
    }
}

#[test]
fn until_the_lease_was_looked_up_it_stays_and_a_lookup_that_does_not_end_explains_nothing() {
    let looking_up = |now| decide(&DepartureInput { now: at(now), ..case(Evidence::LookingUp) });
    assert_eq!(looking_up(0), Decision::Waiting { probe: false, requeue_at: Some(at(30)) });
    assert_eq!(looking_up(29), Decision::Waiting { probe: false, requeue_at: Some(at(30)) });
    assert_eq!(looking_up(30), unexplained(30));
}

#[test]
fn a_missing_answer_means_nothing_before_it_was_missing_three_times() {
    let missing = |times, now, input: DepartureInput| {
        let probe = Some(Probe { answer: Answer::NoAnswer, since: at(0), times });
        decide(&DepartureInput { probe, now: at(now), ..input })
    };
    let expired = case(Evidence::LeaseExpired);
    assert_eq!(missing(2, 9, expired), Decision::Waiting { probe: true, requeue_at: Some(at(10)) });
    assert_eq!(missing(2, 10, expired), Decision::Waiting { probe: true, requeue_at: Some(at(3600)) });
    assert_eq!(missing(3, 10, expired), unexplained_and_asked(10));
    let lost = DepartureInput { lost_until: Some(at(3600)), ..expired };
    assert_eq!(missing(2, 60, lost), Decision::Lost { until: at(3600), requeue_at: at(3600) });
    assert_eq!(missing(3, 60, lost), unexplained_and_asked(10));
    let last = DepartureInput { last: true, ..case(Evidence::Deregistered) };
    assert_eq!(missing(2, 2, last), Decision::Waiting { probe: true, requeue_at: Some(at(35)) });
    assert_eq!(missing(3, 3, last), GONE);
}
