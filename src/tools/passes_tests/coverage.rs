//! The reasons and rows that the files cover together: each reason of the API reference that a pass can give, each
//! state of an explanation, and each row of docs/departures.md.
//!
//! Refuses to know any list of its own: reasons come from the types, states from the source of the explanations, and
//! rows from the document.

use std::collections::BTreeSet;

use twinspan_core::model;

use super::ALL;
use crate::api::conditions::{self, ACCEPTED, STALLED};

/// The sections of docs/departures.md whose tables count.
const TABLES: [&str; 3] = [
    "Imported endpoints whose record is gone",
    "Own records whose endpoint is gone",
    "Own records that other clients delete",
];

/// The first column of every table.
fn documented() -> BTreeSet<String> {
    let text = include_str!("../../../docs/departures.md");
    let sections = text.split("\n## ").filter(|section| TABLES.iter().any(|title| section.starts_with(title)));
    let rows =
        sections.flat_map(str::lines).filter(|line| line.starts_with("| ") && !line.starts_with("| observation"));
    rows.map(|row| row.split('|').nth(1).unwrap().trim().to_owned()).collect()
}

/// The states that the source of the explanations names.
fn states() -> BTreeSet<&'static str> {
    let calls = include_str!("../explanation.rs").split("says(").skip(1).map(str::trim_start);
    let literals = calls.filter_map(|call| call.strip_prefix('"')?.split('"').next());
    literals.chain(["Held"]).collect()
}

#[test]
fn every_reason_that_a_pass_can_give_is_in_a_file() {
    let (mut given, mut explained) = (BTreeSet::new(), BTreeSet::new());
    for expect in ALL.iter().map(|file| &file.found) {
        for (kind, text) in expect["conditions"].as_object().into_iter().flatten() {
            let reason = text.as_str().unwrap().split(' ').nth(1).unwrap();
            given.insert(format!("{kind} {reason}"));
        }
        for text in expect["outcomes"].as_object().into_iter().flatten().map(|(_, text)| text.as_str().unwrap()) {
            explained.insert(text.split(':').next().unwrap().to_owned());
        }
    }
    let kinds = conditions::OF_REGISTERED_SERVICE.map(|(kind, _)| kind);
    let mut wanted = BTreeSet::new();
    for reason in conditions::Reason::ALL {
        // A RegisteredService stalls by its spec alone.
        let may = |kind: &str| kind != STALLED || reason.carried_by().contains(&ACCEPTED);
        let of_pass = reason.carried_by().iter().filter(|kind| kinds.contains(kind) && may(kind));
        wanted.extend(of_pass.map(|kind| format!("{kind} {}", reason.as_str())));
    }
    let missing: Vec<_> = wanted.difference(&given).collect();
    assert!(missing.is_empty(), "no file has these reasons of conditions: {missing:?}");
    // A file with hundreds of records shows nothing that `plan::import::tests` does not.
    let skipped = model::Reason::ALL.iter().filter(|reason| **reason != model::Reason::TooManySlices);
    let skipped = skipped.map(|reason| reason.label());
    let missing: Vec<_> = skipped.chain(states()).filter(|state| !explained.contains(*state)).collect();
    assert!(missing.is_empty(), "no file has these outcomes: {missing:?}");
}

#[test]
fn every_row_of_the_departures_is_in_a_file() {
    let documented = documented();
    assert!(documented.len() > TABLES.len(), "{documented:?}");
    let mut shown = BTreeSet::new();
    for file in ALL.iter() {
        for row in file.scene.rows() {
            assert!(documented.contains(row), "{}: docs/departures.md has no row {row:?}", file.name);
            shown.insert(row.to_owned());
        }
    }
    let missing: Vec<_> = documented.difference(&shown).collect();
    assert!(missing.is_empty(), "no file has these rows: {missing:#?}");
}
