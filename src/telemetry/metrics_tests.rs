use super::*;
use crate::telemetry::calls::{EtcdCall, EtcdError, Keepalive, SessionRestart};

#[test]
fn the_names_are_those_that_users_were_promised() {
    let metrics = Metrics::default();
    metrics.propagation.get_or_create(&Direction { direction: "import" }).observe(0.1);
    metrics.reconciles.get_or_create(&Outcome { outcome: "synced" }).inc();
    metrics.passes.observe(0.02);
    metrics.wrote("registry", "create", "ok", 2);
    metrics.set_records("main", 1, 2, 3);
    metrics.skipped.get_or_create(&Skipped { reason: "LoopbackAddress" }).set(1);
    metrics.held.set(1);
    metrics.set_session("main", "watching");
    metrics.set_ready("main", true);
    metrics.audited("main", "agrees", 2);
    metrics.set_discovered("main", 4, 5);
    metrics.moved(None, Some("failed"));
    metrics.moved(Some("failed"), Some("synced"));
    metrics.leader.set(1);
    metrics.gates.get_or_create(&Gate { reason: "Registered" }).inc();
    metrics.watch_age.get_or_create(&OfKind { kind: "Pod" }).set(2.0);
    metrics.drain_requests.get_or_create(&DrainOutcome { outcome: "drained" }).inc();
    let took = std::time::Duration::from_millis(30);
    metrics.calls.asked_api("list", "pods", took, Some("forbidden"));
    metrics.calls.watch_restarted("Pod", "expired");
    let registry = || "main".to_owned();
    metrics.calls.etcd.get_or_create(&EtcdCall { registry: registry(), op: "list" }).observe(0.03);
    metrics.calls.etcd_errors.get_or_create(&EtcdError { registry: registry(), op: "list", reason: "NoSpace" }).inc();
    metrics.calls.etcd_watch_age.get_or_create(&OfRegistry { registry: registry() }).set(3.0);
    metrics.calls.leases.get_or_create(&OfRegistry { registry: registry() }).set(2);
    metrics.calls.keepalives.get_or_create(&Keepalive { registry: registry(), result: "kept" }).inc();
    metrics.calls.session_restarts.get_or_create(&SessionRestart { registry: registry(), reason: "Silent" }).inc();
    metrics.queue.set(3);
    metrics.queue_age.set(0.5);
    let text = metrics.print().unwrap();
    for line in [
        "twinspan_propagation_seconds_count{direction=\"import\"} 1",
        "twinspan_reconcile_total{outcome=\"synced\"} 1",
        "twinspan_pass_seconds_count 1",
        "twinspan_writes_total{side=\"registry\",op=\"create\",result=\"ok\"} 2",
        "twinspan_records{registry=\"main\",kind=\"undecodable\"} 3",
        "twinspan_skipped_instances{reason=\"LoopbackAddress\"} 1",
        "twinspan_held_deletions 1",
        "twinspan_session_state{registry=\"main\",state=\"watching\"} 1",
        "twinspan_session_state{registry=\"main\",state=\"failed\"} 0",
        "twinspan_audits_total{registry=\"main\",result=\"agrees\"} 2",
        "twinspan_leader 1",
        "twinspan_discovered_services{registry=\"main\",direction=\"import\"} 5",
        "twinspan_watch_age_seconds{kind=\"Pod\"} 2.0",
        "twinspan_drain_requests_total{outcome=\"drained\"} 1",
        "twinspan_drains_waiting 0",
        "twinspan_lost_instances 0",
        "twinspan_readiness_gates_total{reason=\"Registered\"} 1",
        "twinspan_readiness_gates_waiting 0",
        "twinspan_statuses_waiting 0",
        "twinspan_registry_ready{registry=\"main\"} 1",
        "twinspan_services{state=\"synced\"} 1",
        "twinspan_services{state=\"failed\"} 0",
        "twinspan_api_request_duration_seconds_bucket{le=\"0.1\",verb=\"list\",resource=\"pods\"} 1",
        "twinspan_api_request_errors_total{verb=\"list\",resource=\"pods\",reason=\"forbidden\"} 1",
        "twinspan_watch_restarts_total{kind=\"Pod\",reason=\"expired\"} 1",
        "twinspan_etcd_request_duration_seconds_count{registry=\"main\",op=\"list\"} 1",
        "twinspan_etcd_request_errors_total{registry=\"main\",op=\"list\",reason=\"NoSpace\"} 1",
        "twinspan_etcd_watch_age_seconds{registry=\"main\"} 3.0",
        "twinspan_session_restarts_total{registry=\"main\",reason=\"Silent\"} 1",
        "twinspan_leases{registry=\"main\"} 2",
        "twinspan_keepalives_total{registry=\"main\",result=\"kept\"} 1",
        "twinspan_queue_depth 3",
        "twinspan_queue_age_seconds 0.5",
        "# UNIT twinspan_propagation_seconds seconds",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "process_start_time_seconds ",
        "process_open_fds ",
        "process_max_fds ",
        concat!("twinspan_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }

    // The operations guide describes each metric in the same words.
    let guide = include_str!("../../docs/operations.md");
    for help in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = help.split_once(' ').unwrap();
        let help = help.trim_end_matches('.');
        let told = guide.lines().any(|line| line.starts_with(&format!("| `{name}")) && line.contains(help));
        assert!(told, "docs/operations.md has no row with {name} and {help:?}");
    }

    // Each is on the dashboard, but for one that says little.
    let dashboard = include_str!("../../charts/twinspan/files/dashboard.json");
    let words: Vec<&str> = dashboard.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        let shown = ["", "_total", "_bucket", "_count", "_info"].map(|end| format!("{name}{end}"));
        let on_it = words.iter().any(|word| shown.iter().any(|name| name == word));
        assert_eq!(on_it, name != "process_virtual_memory_bytes", "{name} on charts/twinspan/files/dashboard.json");
    }

    let plain = metrics.print_plain().unwrap();
    let series = |text: &str| -> std::collections::BTreeSet<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.split(['{', ' ']).next().map(str::to_owned)).collect()
    };
    assert_eq!(series(&plain), series(&text), "both formats say the same");
    assert!(plain.contains("\ntwinspan_leader 1\n") && !plain.contains("# EOF"), "{plain}");

    metrics.forget_registry("main");
    let of_sessions = ["etcd", "session_restarts", "leases", "keepalives"];
    let left = metrics.print().unwrap();
    let left = left.lines().filter(|line| line.contains("\"main\""));
    let left: Vec<&str> =
        left.filter(|l| !of_sessions.iter().any(|s| l.starts_with(&format!("twinspan_{s}")))).collect();
    assert!(left.is_empty(), "{left:?}");
}
