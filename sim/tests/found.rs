//! The finds of the simulation, each as the shrunk plan that showed it: they stay mended.

use std::path::Path;

use twinspan_sim::plan::Plan;
use twinspan_sim::run::run;

#[test]
fn what_was_found_stays_mended() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let plan: Plan = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let outcome = run(&plan, false);
        assert!(outcome.violations.is_empty(), "{}: {:#?}", file.display(), outcome.violations);
    }
}
