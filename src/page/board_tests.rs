//! Versions of the board, and what a reader gets.

use std::time::Duration;

use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;

use super::board::Board;
use super::rows::{Ready, Records, Registry, Service, State};

pub fn service(registry: &str, exported: i64, healed: i64) -> Service {
    Service {
        registry: registry.to_owned(),
        registry_name: "echo.rpc".to_owned(),
        service: "echo".to_owned(),
        direction: "Both",
        policy: "Sync",
        discovered: false,
        state: State::InSync,
        reason: "Synced".to_owned(),
        message: String::new(),
        cluster: 0,
        registry_instances: 0,
        exported,
        imported: 0,
        lost: 0,
        healed,
        skipped: 0,
        held: 0,
        digest: 0,
    }
}

pub fn registry(name: &str) -> Registry {
    Registry {
        name: name.to_owned(),
        format: "Kitex",
        prefix: "p".to_owned(),
        session: "Synced".to_owned(),
        ready: Ready::default(),
        records: Records::default(),
        last_verified: None,
        hold: None,
        clusters: Vec::new(),
        notes: Vec::new(),
        synced: true,
        cluster_id: "c1".to_owned(),
    }
}

pub fn key(n: usize) -> ServiceKey {
    ServiceKey::new("shop", format!("s{n:05}"))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// The names that changed and that ended after a version.
fn names(board: &Board, version: u64) -> (Vec<String>, Vec<String>) {
    let delta = board.since(version, 1_000).unwrap();
    let name = |key: &ServiceKey| key.name.clone();
    (delta.services.iter().map(|line| name(&line.key)).collect(), delta.gone.iter().map(name).collect())
}

#[test]
fn a_reader_gets_what_changed_once_and_as_it_is_now() {
    let board = Board::on();
    for n in 0..3 {
        board.put(&key(n), service("main", 1, 0), None, None, at(0));
    }
    let start = board.snapshot();
    assert_eq!((start.version, start.services.len()), (3, 3));
    assert!(board.since(start.version, 10).unwrap().is_empty());
    board.put(&key(1), service("main", 1, 0), None, None, at(5));
    assert!(board.since(start.version, 10).unwrap().is_empty(), "an equal line is no change");
    for exported in 2..9 {
        board.put(&key(1), service("main", exported, 0), None, None, at(exported));
    }
    board.put(&key(0), service("main", 2, 0), None, None, at(9));
    assert_eq!(names(&board, start.version), (vec!["s00001".to_owned(), "s00000".to_owned()], vec![]));
    let delta = board.since(start.version, 10).unwrap();
    assert_eq!((delta.services[0].service.exported, delta.services[0].updated), (8, at(8)));
    assert_eq!(delta.version, board.snapshot().version);
}

#[test]
fn an_end_is_told_unless_it_is_there_again() {
    let board = Board::on();
    board.put(&key(0), service("main", 1, 0), None, None, at(0));
    board.put(&key(1), service("main", 1, 0), None, None, at(0));
    board.remove(&key(0));
    board.remove(&key(1));
    board.remove(&key(2));
    board.put(&key(1), service("main", 1, 0), None, None, at(1));
    assert_eq!(names(&board, 2), (vec!["s00001".to_owned()], vec!["s00000".to_owned()]));
    assert!(board.line(&key(0)).is_none());
}

#[test]
fn an_answer_is_bounded_and_the_rest_follows() {
    let board = Board::on();
    for n in 0..25 {
        board.put(&key(n), service("main", 1, 0), None, None, at(0));
    }
    let (mut version, mut got) = (0, Vec::new());
    for expected in [10, 10, 5, 0] {
        let delta = board.since(version, 10).unwrap();
        assert_eq!(delta.services.len(), expected);
        got.extend(delta.services.iter().map(|line| line.key.clone()));
        version = delta.version;
    }
    assert_eq!(got, (0..25).map(key).collect::<Vec<_>>());
}

#[test]
fn ends_are_forgotten_after_many_and_then_a_reader_begins_anew() {
    let board = Board::on();
    board.put(&key(0), service("main", 1, 0), None, None, at(0));
    let early = board.snapshot().version;
    for n in 1..10_002 {
        board.put(&key(n), service("main", 1, 0), None, None, at(0));
        board.remove(&key(n));
    }
    assert!(board.since(early, 10).is_none(), "an end after it is forgotten");
    assert!(board.since(early + 2, 10).is_some());
    assert!(board.since(board.snapshot().version + 1, 10).is_none(), "a version of another process");
}

#[test]
fn registries_come_when_one_of_them_changed_and_their_healed_records_follow_the_services() {
    let board = Board::on();
    board.put_registry(registry("main"));
    board.put_registry(registry("other"));
    let version = board.snapshot().version;
    board.put_registry(registry("main"));
    assert!(board.since(version, 10).unwrap().is_empty(), "an equal line is no change");
    board.put(&key(0), service("main", 1, 2), None, None, at(0));
    let delta = board.since(version, 10).unwrap();
    let healed: Vec<i64> = delta.registries.iter().flatten().map(|registry| registry.records.healed).collect();
    assert_eq!((healed, delta.services.len()), (vec![2, 0], 1));
    board.put(&key(0), service("other", 1, 1), None, None, at(0));
    board.put_registry(registry("main"));
    let healed = || board.registries().iter().map(|registry| registry.records.healed).collect::<Vec<_>>();
    assert_eq!(healed(), [0, 1]);
    board.remove(&key(0));
    assert_eq!(healed(), [0, 0]);
    board.remove_registry("main");
    let registries = |version| board.since(version, 10).unwrap().registries.map(|all| all.len());
    assert_eq!(registries(version), Some(1));
    let version = board.snapshot().version;
    assert_eq!(registries(version), None);
    board.remove_registry("other");
    assert!(!board.since(version, 10).unwrap().is_empty());
    assert_eq!(registries(version), Some(0), "the end of the last one is told");
}

#[test]
fn a_reader_learns_that_everything_was_looked_at_once_it_has_everything() {
    let board = Board::on();
    let keys: Vec<_> = (0..20).map(key).collect();
    let complete = |version, most| board.since(version, most).unwrap().complete;
    assert!(!board.snapshot().complete && !board.has(&keys[19]));
    for key in &keys {
        board.put(key, service("main", 1, 0), None, None, at(0));
    }
    assert!(keys.iter().all(|key| board.has(key)) && !complete(0, 100), "nobody said so yet");
    let version = board.snapshot().version;
    board.complete();
    assert!(board.snapshot().complete && complete(version, 100) && complete(0, 100));
    assert!(!complete(0, 10), "the other half comes later");
    let delta = board.since(version, 100).unwrap();
    assert_eq!(delta.registries.map(|all| all.len()), Some(0), "the change is told also where there is nothing");
    let version = board.snapshot().version;
    board.complete();
    assert_eq!(board.snapshot().version, version, "once");
    assert!(complete(version, 100));
}

#[test]
fn a_line_whose_details_changed_comes_again() {
    let board = Board::on();
    board.put(&key(0), service("main", 1, 0), None, None, at(0));
    let version = board.snapshot().version;
    board.put(&key(0), Service { digest: 8, ..service("main", 1, 0) }, None, None, at(1));
    let delta = board.since(version, 10).unwrap();
    assert_eq!((delta.services.len(), delta.services[0].updated), (1, at(1)));
}

#[test]
fn a_line_keeps_its_last_propagations() {
    let board = Board::on();
    for n in 0..40 {
        board.put(&key(0), service("main", 1, 0), None, Some(Duration::from_millis(n)), at(0));
    }
    let line = board.line(&key(0)).unwrap();
    assert_eq!(line.latency, (10..40).collect::<Vec<u32>>());
}

#[test]
fn a_board_that_nobody_serves_keeps_nothing() {
    let board = Board::default();
    board.put(&key(0), service("main", 1, 0), None, None, at(0));
    board.put_registry(registry("main"));
    assert!(!board.is_on() && board.line(&key(0)).is_none() && board.registries().is_empty());
    assert!(board.since(0, 10).is_none());
}

#[tokio::test]
async fn each_change_wakes_those_who_wait() {
    let board = Board::on();
    let mut changes = board.changes();
    board.put(&key(0), service("main", 1, 0), None, None, at(0));
    tokio::time::timeout(Duration::from_secs(5), changes.changed()).await.unwrap().unwrap();
    assert_eq!(*changes.borrow_and_update(), 1);
    board.put(&key(0), service("main", 1, 0), None, None, at(0));
    assert!(!changes.has_changed().unwrap());
}
