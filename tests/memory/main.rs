//! The memory that each kind of thing takes in the views, and the allocations of one change.
//!
//! Owns the measurement, by an allocator that counts, and the comparison with the table in `docs/performance.md`.
//! Refuses to know the process as a whole, whose resident memory `make bench` measures.

#[cfg(test)]
mod plan;
#[cfg(test)]
mod table;
#[cfg(test)]
mod things;

use std::collections::BTreeMap;

use dhat::HeapStats;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// So many things of a kind are made, so that what all share does not count.
const MANY: usize = 2000;
/// Measured bytes may differ from the documented ones by so much: another version of a library has other structs.
const TOLERANCE: f64 = 0.10;

/// Bytes that are in use and blocks that were ever allocated.
fn heap() -> (usize, u64) {
    let stats = HeapStats::get();
    (stats.curr_bytes, stats.total_blocks)
}

/// The bytes that each of so many things keeps.
fn bytes_each<T>(make: impl FnOnce() -> T) -> f64 {
    let (before, _) = heap();
    let made = make();
    let (after, _) = heap();
    drop(made);
    after.saturating_sub(before) as f64 / MANY as f64
}

/// The blocks that a piece of work allocates.
fn blocks<T>(work: impl FnOnce() -> T) -> f64 {
    let (_, before) = heap();
    drop(work());
    let (_, after) = heap();
    (after - before) as f64
}

/// One test, because the allocator counts for the whole process.
#[test]
fn memory_and_allocations_are_as_documented() {
    let _profiler = dhat::Profiler::builder().testing().trim_backtraces(Some(1)).build();
    let mut measured: BTreeMap<&str, f64> = BTreeMap::new();
    measured.extend(things::all());
    measured.extend(plan::all());
    let documented = table::documented();
    let told = |of: &BTreeMap<&str, f64>| {
        of.iter().map(|(name, number)| format!("| {name} | {number:.0} |")).collect::<Vec<_>>().join("\n")
    };
    let names = |of: &mut dyn Iterator<Item = String>| of.collect::<Vec<_>>();
    assert_eq!(
        names(&mut documented.keys().cloned()),
        names(&mut measured.keys().map(|name| (*name).to_owned())),
        "the table has other rows than are measured:\n{}",
        told(&measured)
    );
    for (name, number) in &measured {
        let table = documented[*name];
        let differs = (number - table).abs() > (table * TOLERANCE).max(1.0);
        assert!(!differs, "{name}: {number:.0}, and the table has {table}; all:\n{}", told(&measured));
    }
}
