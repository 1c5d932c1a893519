//! The table in the document.
//!
//! Owns where it is and how it is read. Refuses to judge.

use std::collections::BTreeMap;

/// The rows behind this heading: a name and a number each.
const HEADING: &str = "## Memory and allocations";

/// The numbers by name, as the document has them.
pub fn documented() -> BTreeMap<String, f64> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once(HEADING).unwrap_or_else(|| panic!("{path} has no \"{HEADING}\""));
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells = |line: &str| -> Option<(String, f64)> {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let (name, number) = (cells.next()?, cells.next()?);
        Some((name.to_owned(), number.replace(',', "").parse().ok()?))
    };
    section.lines().filter_map(cells).collect()
}
