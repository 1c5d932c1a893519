//! The layout of the house, checked on the sources: arrows run down, nothing runs in a circle, the core is pure, and
//! every request that writes leaves through one of two doors.
//!
//! Owns the planted breaches that show each check fail. Refuses to know the rules ([`rules`]), the reading of sources
//! ([`source`]) and the documents ([`documents`]).

// A test prints what went wrong, and panics if it cannot go on.
#![allow(clippy::panic, clippy::unwrap_used)]

mod documents;
mod log_fields;
mod pages;
mod parts;
mod progress;
mod rules;
mod source;
mod translations;

use std::collections::BTreeSet;
use std::path::Path;

use source::Sources;

fn sources() -> Sources {
    source::read(Path::new(env!("CARGO_MANIFEST_DIR")))
}

fn breaches(sources: &Sources) -> Vec<String> {
    rules::breaches(&source::modules(sources))
}

/// The breaches of the house with these lines added to a file.
fn planted(file: &str, lines: &str) -> Vec<String> {
    let mut sources = sources();
    let source = sources.get_mut(file).unwrap_or_else(|| panic!("{file} does not exist"));
    source.push_str(lines);
    breaches(&sources)
}

#[test]
fn the_house_stands() {
    let found = breaches(&sources());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_new_arrow_up_is_found() {
    let found = planted("src/probe/connect.rs", "use crate::controllers::queue::Queue;");
    assert_eq!(found, ["src/probe/connect.rs: twinspan::probe may not import twinspan::controllers::queue"]);
    // Inside a macro, and without a `use` line.
    let found = planted("src/env.rs", "fn f() { tokio::select! { x = crate::tools::lookup::f() => x } }");
    assert_eq!(found, ["src/env.rs: twinspan::env may not import twinspan::tools::lookup"]);
}

#[test]
fn a_new_circle_is_found() {
    let found = planted("core/src/model/owner.rs", "use super::record::Record;");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("a circle: twinspan_core::model::owner → "), "{found:?}");
}

#[test]
fn a_handle_and_a_client_in_the_core_are_found() {
    let file = "core/src/plan/service/facts.rs";
    let found = planted(file, "use kube::Client; fn f(_: &RegistryHandle) {}");
    let expected =
        ["import kube::Client", "name RegistryHandle"].map(|what| format!("{file}: the core may not {what}"));
    assert_eq!(found, expected);
    let found = planted(file, "use std::time::SystemTime;");
    assert_eq!(found, [format!("{file}: the core may not import std::time::SystemTime")]);
    let found = planted(file, "fn f() { std::time::SystemTime::now(); }");
    assert_eq!(found, [format!("{file}: the core may not name SystemTime")]);
}

#[test]
fn a_write_outside_the_two_doors_is_found() {
    let file = "src/controllers/registered_service/report.rs";
    let found = planted(file, "async fn f(api: A) { api.delete(\"x\", &Default::default()).await; }");
    assert_eq!(found, [format!("{file}: .delete(…) writes outside the two doors")]);
    let found = planted(file, "async fn f(etcd: A) { tokio::join!(etcd.commit(&batch)); }");
    assert_eq!(found, [format!("{file}: .commit(…) writes outside the two doors")]);
    let found = planted(file, "use etcd_client::Client;");
    assert_eq!(found, [format!("{file}: only twinspan::registry::etcd may name etcd_client")]);
    let found = planted(file, "async fn f() { etcd_client::Client::connect([\"x\"], None).await; }");
    assert_eq!(found, [format!("{file}: only twinspan::registry::etcd may name etcd_client")]);
}

#[test]
fn a_method_of_a_door_that_does_not_ask_is_found() {
    // Each time the other methods of the door still ask.
    for (door, asking, silent, functions) in [
        (
            "src/cluster/writer.rs",
            "self.ask()?;\n        let key = ObjectKey",
            "let key = ObjectKey",
            &["send_slice"][..],
        ),
        ("src/cluster/event_api.rs", "self.ask()?;", "", &["repeat", "first"]),
        ("src/cluster/status_writer.rs", "if !self.leadership.may_write() {", "if false {", &["exchange"]),
        (
            "src/registry/writer.rs",
            "handle.may_write(leadership)",
            "Ok::<_, RegistryError>(None)",
            &["write_next", "is_the_lease_refused"],
        ),
    ] {
        let mut sources = sources();
        let source = sources.get_mut(door).unwrap();
        assert!(source.contains(asking), "{door}: {asking}");
        *source = source.replace(asking, silent);
        let expected: Vec<String> =
            functions.iter().map(|function| format!("{door}: {function} writes without asking may_write")).collect();
        assert_eq!(breaches(&sources), expected);
    }
}

#[test]
fn a_circle_between_a_driver_and_its_child_is_found() {
    let found = planted("src/registry/etcd/kv.rs", "use super::EtcdRegistry;");
    assert_eq!(found, ["a circle: twinspan::registry::etcd → twinspan::registry::etcd::kv → twinspan::registry::etcd"]);
}

#[test]
fn test_code_is_left_out() {
    let lines = "#[cfg(test)] mod tests { use crate::controllers::queue::Queue; }";
    assert_eq!(planted("src/probe/connect.rs", lines), Vec::<String>::new());
}

#[test]
fn each_field_of_the_log_is_in_the_operations_guide_and_no_other() {
    let guide = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let lines = log_fields::lines(&sources());
    assert!(lines.len() > 80, "{} lines", lines.len());
    let fields: BTreeSet<String> = lines.iter().flat_map(|line| line.fields.iter().cloned()).collect();
    let documented = log_fields::documented(&guide);
    let missing: Vec<_> = fields.difference(&documented).collect();
    let unused: Vec<_> = documented.difference(&fields).collect();
    assert!(missing.is_empty() && unused.is_empty(), "not in docs/operations.md: {missing:?}; in no line: {unused:?}");
}

#[test]
fn lines_about_a_service_or_a_registry_name_it_in_their_fields() {
    let breaches = |sources: &Sources| log_fields::breaches(&log_fields::lines(sources));
    assert_eq!(breaches(&sources()), Vec::<String>::new());
    for (file, planted) in [
        ("src/controllers/registered_service/dry_run.rs", "fn f() { info!(name, \"{key} is odd\"); }"),
        ("src/registry/audit.rs", "fn f() { tokio::select! { () = a => { warn!(differences, \"odd\"); } } }"),
        ("src/registry/audit.rs", "fn f() { debug!(registry = name, took_ms = 3, \"odd\"); }"),
    ] {
        let mut sources = sources();
        sources.get_mut(file).unwrap().push_str(planted);
        assert_eq!(breaches(&sources).len(), 1, "{planted}");
    }
}
