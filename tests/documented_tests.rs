//! The test names in the documents: each one is a test, a story or a pass that exists.
//!
//! Owns the reading of the tables in `docs/faults.md` and `docs/departures.md`. Refuses to judge the tests themselves.

// A test prints what went wrong, and panics if it cannot go on.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The names of functions by the names that a document may put before them: those of the file and its folders.
type Functions = BTreeMap<String, BTreeSet<String>>;

/// A row about a fault without a test says one of these, and the reason.
const WITHOUT_TEST: [&str; 3] = ["No fault:", "Stays:", "Not tested:"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn functions() -> Functions {
    let mut files = Vec::new();
    for folder in ["core/src", "sim/tests", "src", "tests"] {
        rust_files(&root().join(folder), &mut files);
    }
    let mut all = Functions::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let inside = file.strip_prefix(root()).unwrap().with_extension("");
        for line in text.lines() {
            let Some((before, after)) = line.split_once("fn ") else { continue };
            if !before.trim_start().split(' ').all(|word| matches!(word, "" | "pub" | "pub(super)" | "async")) {
                continue;
            }
            let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            for part in inside.components() {
                let part = part.as_os_str().to_string_lossy().into_owned();
                all.entry(part).or_default().insert(name.clone());
            }
        }
    }
    all
}

/// The cells of each row of each table, without the header.
fn rows(document: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join("docs").join(document)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut rows = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let is_header = lines.get(index + 1).is_some_and(|next| next.starts_with("|---"));
        if line.starts_with("| ") && !is_header {
            rows.push(line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect());
        }
    }
    rows
}

fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn exists(name: &str, functions: &Functions) -> bool {
    if name.ends_with(".yaml") {
        return root().join("core/tests/passes").join(name).exists();
    }
    let Some((module, function)) = name.rsplit_once("::") else { return false };
    let module = module.rsplit("::").next().unwrap_or(module);
    functions.get(module).is_some_and(|names| function == "*" || names.contains(function))
}

#[test]
fn every_fault_names_tests_that_exist() {
    let (functions, mut wrong) = (functions(), Vec::new());
    let rows = rows("faults.md");
    assert!(rows.len() > 40, "{} rows", rows.len());
    for row in &rows {
        let Some(cell) = row.last() else { continue };
        let tests = quoted(cell);
        if tests.is_empty() && !WITHOUT_TEST.iter().any(|words| cell.starts_with(words)) {
            wrong.push(format!("{}: neither a test nor a reason", row[0]));
        }
        wrong.extend(tests.iter().filter(|name| !exists(name, &functions)).map(|name| format!("{}: {name}", row[0])));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_story_about_departures_exists() {
    let (functions, mut wrong) = (functions(), Vec::new());
    for row in rows("departures.md") {
        let tests = row.last().map(|cell| quoted(cell)).unwrap_or_default();
        let stories = tests.into_iter().filter(|name| name.contains("::"));
        wrong.extend(stories.filter(|name| !exists(name, &functions)).map(|name| format!("{}: {name}", row[0])));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_name_that_no_test_has_is_found() {
    let functions = functions();
    assert!(exists("documented_tests::a_name_that_no_test_has_is_found", &functions));
    assert!(!exists("documented_tests::no_such_test", &functions));
    assert!(!exists("no-such-pass.yaml", &functions));
}
