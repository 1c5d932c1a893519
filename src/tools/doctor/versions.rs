//! The etcd versions that are known to lose watches or to answer wrongly.
//!
//! Owns the oldest good release of each minor version. Refuses to ask etcd.

/// Oldest patch release of each minor that has every known fix of watches, stale reads and watch permissions (etcd's
/// CHANGELOGs and GHSA-xg4h-6gfc-h4m8).
const FLOORS: [(u64, u64, u64); 3] = [(3, 5, 33), (3, 6, 14), (3, 7, 1)];

/// The fault of a version, if it has one.
pub fn complaint(version: &str) -> Option<String> {
    let Some((major, minor, patch)) = parse(version) else {
        return Some(format!("version {version:?} is none that we know"));
    };
    let newest = FLOORS[FLOORS.len() - 1];
    if (major, minor) > (newest.0, newest.1) {
        return None;
    }
    match FLOORS.iter().find(|floor| (floor.0, floor.1) == (major, minor)) {
        Some(floor) if patch >= floor.2 => None,
        Some((major, minor, floor)) => Some(format!(
            "etcd {version} has known faults of watches and permissions; update to {major}.{minor}.{floor} or newer"
        )),
        None => Some(format!("etcd {version} is no longer maintained; update to 3.5.33 or newer")),
    }
}

fn parse(version: &str) -> Option<(u64, u64, u64)> {
    let core = version.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some((major, minor, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floors() {
        for fine in ["3.5.33", "3.5.40", "3.6.14", "3.7.1", "3.7.3", "3.8.0", "4.0.0", "3.7.1+build"] {
            assert_eq!(complaint(fine), None, "{fine}");
        }
        for (old, wanted) in [("3.5.32", "3.5.33"), ("3.6.0", "3.6.14"), ("3.7.0", "3.7.1"), ("3.4.30", "3.5.33")] {
            assert!(complaint(old).is_some_and(|text| text.contains(wanted)), "{old}: {:?}", complaint(old));
        }
        for odd in ["", "x", "3", "3.5", "3.5.x"] {
            assert!(complaint(odd).is_some(), "{odd}");
        }
    }
}
