//! Whole passes as files: `core/tests/passes/*.yaml`, each with its objects, records, answers and time, and the
//! operations, outcomes and conditions that follow.
//!
//! Owns the run of every file and the comparison. [`scene`] reads a file into views; [`result`] puts the result of a
//! pass into words; [`coverage`] says which reasons and rows the files have to show; [`waits`] says what tools that
//! wait make of them; [`properties`] runs passes without a file. The operator crate runs them because the objects are
//! those of the Kubernetes API; the decisions are the core's.
//!
//! `TWINSPAN_BLESS=1 cargo test -p twinspan --lib passes` writes everything from the line `expect:` on anew. Review the
//! difference before you commit it.

mod coverage;
mod properties;
mod result;
mod scene;
mod waits;

use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::Value;

use scene::Scene;

/// The variable that has the results written instead of compared.
const BLESS: &str = "TWINSPAN_BLESS";
/// Rows of docs/departures.md, reasons of the API reference and the rules that two rooms share.
const FILES: usize = 60;
/// The line from which on a file is written anew.
const EXPECT: &str = "\nexpect:";

/// A file, read and run once for every test.
#[derive(Debug)]
struct File {
    name: String,
    path: PathBuf,
    scene: Scene,
    found: Value,
}

static ALL: LazyLock<Vec<File>> = LazyLock::new(|| {
    let dir = format!("{}/core/tests/passes", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{dir}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    paths.into_iter().map(File::read).collect()
});

impl File {
    fn read(path: PathBuf) -> Self {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let scene: Scene = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = result::of(&scene.run(&name));
        Self { name, path, scene, found }
    }

    fn bless(&self) {
        let text = std::fs::read_to_string(&self.path).unwrap();
        let given = text.split(EXPECT).next().unwrap().trim_end();
        let expect = serde_yaml::to_string(&serde_json::json!({"expect": self.found})).unwrap();
        std::fs::write(&self.path, format!("{given}\n{expect}")).unwrap();
    }
}

#[test]
fn every_pass_ends_as_its_file_expects() {
    assert!(ALL.len() >= FILES, "only {} files", ALL.len());
    let bless = std::env::var_os(BLESS).is_some();
    let mut failed = Vec::new();
    for file in ALL.iter() {
        if bless {
            file.bless();
        } else if file.scene.expect != file.found {
            let name = &file.name;
            let expected = serde_yaml::to_string(&file.scene.expect).unwrap();
            let found = serde_yaml::to_string(&file.found).unwrap();
            failed.push(format!("== {name}\n-- expected\n{expected}-- found\n{found}"));
        }
    }
    assert!(failed.is_empty(), "{} of {} passes end otherwise\n{}", failed.len(), ALL.len(), failed.join("\n"));
}

#[test]
fn the_same_pass_gives_the_same_result() {
    for file in ALL.iter() {
        let again = result::of(&file.scene.run(&file.name));
        assert_eq!(again, file.found, "{}", file.name);
    }
}
