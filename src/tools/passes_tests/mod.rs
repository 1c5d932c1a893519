//! Whole passes as files: `core/tests/passes/*.yaml`, each with its objects, records, answers and time, and the operations, outcomes and
//! conditions that follow.
//!
//! Owns the run of every file and the comparison. [`scene`] reads a file into views; [`result`] puts the result of a pass into words;
//! [`coverage`] says which reasons and rows the files have to show. The operator crate runs them because the objects are those of the
//! Kubernetes API; the decisions are the core's.
//!
//! `TWINSPAN_BLESS=1 cargo test -p twinspan --lib passes` writes everything from the line `expect:` on anew. Review the difference before
//! you commit it.

mod coverage;
mod result;
mod scene;

use std::path::{Path, PathBuf};

use serde_json::Value;

use scene::Scene;

/// The variable that has the results written instead of compared.
const BLESS: &str = "TWINSPAN_BLESS";
/// Rows of docs/departures.md, reasons of the API reference and the rules that two rooms share.
const FILES: usize = 1;
/// The line from which on a file is written anew.
const EXPECT: &str = "\nexpect:";

fn files() -> Vec<PathBuf> {
    let dir = format!("{}/core/tests/passes", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{dir}: {error}"));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn name(file: &Path) -> String {
    file.file_name().unwrap().to_string_lossy().into_owned()
}

/// The result of the last pass of a file; the passes before it only make its checkpoint.
fn run(text: &str) -> Result<Value, serde_yaml::Error> {
    let scene: Scene = serde_yaml::from_str(text)?;
    Ok(result::of(&scene.run()))
}

#[test]
fn every_pass_ends_as_its_file_expects() {
    let files = files();
    assert!(files.len() >= FILES, "only {} files", files.len());
    let bless = std::env::var_os(BLESS).is_some();
    let mut failed = Vec::new();
    for file in &files {
        let name = name(file);
        let text = std::fs::read_to_string(file).unwrap();
        let whole: Value = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = run(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        if bless {
            let given = text.split(EXPECT).next().unwrap().trim_end();
            let expect = serde_yaml::to_string(&serde_json::json!({"expect": found})).unwrap();
            std::fs::write(file, format!("{given}\n{expect}")).unwrap();
        } else if whole["expect"] != found {
            let found = serde_yaml::to_string(&found).unwrap();
            let expected = serde_yaml::to_string(&whole["expect"]).unwrap();
            failed.push(format!("== {name}\n-- expected\n{expected}-- found\n{found}"));
        }
    }
    assert!(failed.is_empty(), "{} of {} passes end otherwise\n{}", failed.len(), files.len(), failed.join("\n"));
}

#[test]
fn the_same_pass_gives_the_same_result() {
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(run(&text).unwrap(), run(&text).unwrap(), "{}", name(&file));
    }
}
