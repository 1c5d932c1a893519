//! Golden records: bytes that real programs wrote and the result of the real readers, with our own result beside them.
//!
//! Owns the comparison; the table of each framework is in a file of its own.

// A test reports an error by panicking.
#![allow(clippy::panic, clippy::unwrap_used)]

mod goframe;
mod gozero;
mod grpc;
mod hertz;
mod kitex;
mod kratos;

use std::collections::BTreeMap;

use serde::Deserialize;
use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::{Content, LeaseId, RawRecord, Reason, Record};

/// The expected result: the first address of a record, or the reason why it cannot be an endpoint.
type Expected = Result<&'static str, Reason>;

/// A record that a real program wrote.
#[derive(Deserialize)]
struct Golden {
    case: String,
    key: String,
    value_text: String,
}

/// An odd record that a real reader was shown.
#[derive(Deserialize)]
struct Odd {
    framework: String,
    case: String,
    #[serde(default)]
    put: BTreeMap<String, String>,
    verdict: String,
}

fn decode(layout: &Layout, key: &str, value: &str) -> Record {
    layout.decode(&RawRecord { key: key.into(), value: value.into(), mod_revision: 1, lease: LeaseId(1) })
}

fn ours(record: &Record) -> Result<String, Reason> {
    match &record.content {
        Content::Undecodable { .. } => Err(Reason::Undecodable),
        Content::Registered { listeners, .. } => match listeners.first() {
            Some(listener) => listener.addr.map(|addr| addr.to_string()),
            None => Err(Reason::AddressMissing),
        },
    }
}

/// A row for each captured record: case, prefix (`None` is the framework's own), name of the service in the key,
/// expected result. A case with two instances has two rows.
type Captured = (&'static str, Option<&'static str>, &'static str, Expected);

/// Checks every captured record, and hands each to `also` with its decoded form.
fn captured(format: Format, json: &str, count: usize, table: &[Captured], also: impl Fn(&Golden, &Record)) {
    let records: Vec<Golden> = serde_json::from_str(json).unwrap();
    assert_eq!(records.len(), count);
    let mut rows: Vec<&Captured> = table.iter().collect();
    for golden in &records {
        let row = rows.iter().position(|row| row.0 == golden.case);
        let (case, prefix, service, verdict) =
            rows.remove(row.unwrap_or_else(|| panic!("{} has no verdict", golden.case)));
        let layout = Layout::new(format, prefix.unwrap_or(format.default_prefix()));
        let record = decode(&layout, &golden.key, &golden.value_text);
        assert_eq!(ours(&record), verdict.map(ToOwned::to_owned), "{case}");
        let (name, rest) = layout.split_key(&record.key).unwrap_or_else(|| panic!("{case}: not under {prefix:?}"));
        assert_eq!(String::from_utf8_lossy(name), *service, "{case}");
        assert!(!rest.is_empty(), "{case}");
        also(golden, &record);
    }
    assert!(rows.is_empty(), "no such record: {rows:?}");
}

/// Checks every odd record against a row: case, result of the framework's reader, our result.
fn odd(format: Format, framework: &str, table: &[(&str, &str, Expected)]) {
    let layout = Layout::new(format, format.default_prefix());
    let all: Vec<Odd> = serde_json::from_str(include_str!("reader-verdicts.json")).unwrap();
    let mut seen = 0;
    for odd in all.iter().filter(|odd| odd.framework == framework) {
        let [(key, value)] = odd.put.iter().collect::<Vec<_>>()[..] else {
            // `no-keys` and `many-2000` put nothing, or only ordinary records.
            assert!(matches!(odd.case.as_str(), "no-keys" | "many-2000"), "{}", odd.case);
            continue;
        };
        let (case, theirs, verdict) =
            table.iter().find(|row| row.0 == odd.case).unwrap_or_else(|| panic!("{} has no verdict", odd.case));
        assert_eq!(*theirs, odd.verdict, "{case}");
        let record = decode(&layout, key, value);
        assert_eq!(ours(&record), verdict.map(ToOwned::to_owned), "{case}");
        // A reader of `tort.x.40` does not read `tort.x.40bar`, and neither do we.
        let (name, _) = layout.split_key(&record.key).unwrap();
        assert_eq!(name.ends_with(b"bar"), odd.case == "foobar-beside-foo", "{case}");
        seen += 1;
    }
    assert_eq!(seen, table.len());
}
