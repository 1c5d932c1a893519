//! Passes and the lines that they put on the board.

use serde_json::json;

use super::super::bench::{Bench, bench, key};
use crate::leadership::Leadership;
use crate::page::Board;
use crate::page::rows::State;

/// A bench whose passes put their lines on a board.
async fn shown() -> Bench {
    let mut bench = bench(&["main"]).await;
    bench.controller.writers.board = Board::on();
    bench
}

impl Bench {
    /// The version of the board after a pass, and the state of the line.
    async fn line(&self) -> (u64, State) {
        self.pass().await;
        let board = &self.controller.writers.board;
        (board.snapshot().version, board.line(&key()).unwrap().service.state)
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_comes_again_when_its_details_change_although_no_count_does() {
    let mut bench = shown().await;
    bench.ready_or_not(&[("10.0.0.1", true), ("10.0.0.2", false)]);
    let (first, state) = bench.line().await;
    assert_eq!(state, State::InSync, "the cluster serves no pod that is not ready");
    assert_eq!(bench.line().await.0, first, "nothing changed, and the record that was planned is written");
    bench.ready_or_not(&[("10.0.0.1", true), ("10.0.0.3", false)]);
    let (replaced, _) = bench.line().await;
    assert!(replaced > first, "another pod is not ready");
    for loopback in ["127.0.0.1:80", "127.0.0.2:80"] {
        bench.server_registers(loopback).await;
    }
    let (before, state) = bench.line().await;
    assert_eq!(state, State::Differs);
    bench.etcd().delete(&["p/echo/127.0.0.1:80"]);
    bench.server_registers("127.0.0.3:80").await;
    let (after, _) = bench.line().await;
    assert!(after > before, "one record is left out in place of another");
    assert_eq!(bench.line().await.0, after);
}

#[tokio::test(start_paused = true)]
async fn on_a_standby_one_pod_in_place_of_another_moves_the_line() {
    let mut bench = shown().await;
    bench.stand_by();
    bench.ready(&["10.0.0.1"]);
    let (first, state) = bench.line().await;
    assert_eq!(state, State::Pending, "the leader is about to export it");
    bench.ready(&["10.0.0.2"]);
    let (second, _) = bench.line().await;
    assert!(second > first);
    assert_eq!(bench.line().await.0, second);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_written_no_change_is_on_its_way() {
    let mut bench = shown().await;
    bench.ready(&["10.0.0.1"]);
    for spec in [
        json!({"registryRef": {"name": "main"}, "policy": "Observe"}),
        json!({"registryRef": {"name": "main"}, "suspend": true}),
    ] {
        bench.register(&spec);
        assert_eq!(bench.line().await.1, State::Observing, "{spec}");
    }
    bench.register(&json!({"registryRef": {"name": "main"}}));
    assert_eq!(bench.line().await.1, State::InSync);
    let leadership = Leadership::dry_run();
    leadership.acquired();
    bench.run_as(&leadership);
    bench.controller.writers.board = Board::on();
    bench.ready(&["10.0.0.1", "10.0.0.2"]);
    assert_eq!(bench.line().await.1, State::Observing, "a dry run");
}

#[tokio::test(start_paused = true)]
async fn a_ready_pod_at_another_port_is_on_one_side_only() {
    let mut bench = shown().await;
    bench.register(&json!({"registryRef": {"name": "main"}, "service": {"ports": [{"name": "rpc"}]}}));
    bench.ready_at("metrics", &["10.0.0.1"]);
    assert_eq!(bench.line().await.1, State::Differs);
    bench.ready_at("rpc", &["10.0.0.1"]);
    assert_eq!(bench.line().await.1, State::InSync);
}

#[tokio::test(start_paused = true)]
async fn before_the_registry_is_listed_no_state_is_claimed() {
    let mut bench = shown().await;
    bench.ready(&["10.0.0.1"]);
    assert_eq!(bench.line().await.1, State::InSync);
    bench.replace_by_one_without_a_session("main");
    assert_eq!(bench.line().await.1, State::Unknown);
}
