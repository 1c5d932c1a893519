//! The versions of servers that Twinspan cannot work with, and of etcd those that lose watches or answer wrongly.
//!
//! Owns the oldest good releases. Refuses to ask a server.

type Version = (u64, u64, u64);

/// Oldest patch release of each minor that has every known fix of watches, stale reads and watch permissions (etcd's
/// CHANGELOGs and GHSA-xg4h-6gfc-h4m8). The same releases are the first whose quota counts the nested transactions that
/// our batches consist of (`costTxnReq`, etcd#22134).
const FLOORS: [Version; 3] = [(3, 5, 33), (3, 6, 14), (3, 7, 1)];
/// Oldest patch release of each minor that checks roles inside nested transactions (GHSA-rfx7-8w68-q57q).
const CHECKS_ROLES: [Version; 3] = [(3, 4, 42), (3, 5, 28), (3, 6, 9)];

/// The fault of a version, if it has one.
pub fn complaint(version: &str) -> Option<String> {
    let Some((major, minor, patch)) = parse(version) else {
        return Some(format!("etcd version {version:?} is unknown"));
    };
    let newest = FLOORS[FLOORS.len() - 1];
    if (major, minor) > (newest.0, newest.1) {
        return None;
    }
    let of_minor = |all: &[Version]| all.iter().find(|of| (of.0, of.1) == (major, minor)).map(|of| of.2);
    let quota = "and lets us write to a full database";
    let roles = match of_minor(&CHECKS_ROLES) {
        Some(first) if patch < first => ", also where our user may only read",
        None if (major, minor) < (3, 4) => ", also where our user may only read",
        _ => "",
    };
    match of_minor(&FLOORS) {
        Some(floor) if patch >= floor => None,
        Some(floor) => Some(format!(
            "etcd {version} has known faults of watches and permissions, {quota}{roles}; update to {major}.{minor}.{floor} or newer"
        )),
        None => Some(format!("etcd {version} is no longer maintained, {quota}{roles}; update to 3.5.33 or newer")),
    }
}

/// The fault of a version of Kubernetes such as `v1.33.2`, if it has one. Before 1.31 an API server refuses `isCIDR` in
/// the rules of a CRD that it does not have yet.
pub fn kubernetes_complaint(version: &str) -> Option<String> {
    let mut parts = version.trim_start_matches('v').split(['.', '-', '+']).map(|part| part.parse::<u64>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(1), Some(minor)) if minor < 31 => Some(format!(
            "Kubernetes {version} does not take this version's CRDs, which check networks by isCIDR; update to 1.31 or newer"
        )),
        _ => None,
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
    fn the_oldest_kubernetes() {
        for fine in ["v1.31.0", "v1.37.2", "v1.31.5-gke.1", "v2.0.0", ""] {
            assert_eq!(kubernetes_complaint(fine), None, "{fine}");
        }
        for old in ["v1.30.9", "v1.30.4-eks-1", "1.29.0+k3s1"] {
            assert!(kubernetes_complaint(old).is_some_and(|text| text.contains("1.31 or newer")), "{old}");
        }
    }

    #[test]
    fn the_floors() {
        for fine in ["3.5.33", "3.5.40", "3.6.14", "3.7.1", "3.7.3", "3.8.0", "4.0.0", "3.7.1+build"] {
            assert_eq!(complaint(fine), None, "{fine}");
        }
        for (old, wanted) in [("3.5.32", "3.5.33"), ("3.6.0", "3.6.14"), ("3.7.0", "3.7.1"), ("3.4.30", "3.5.33")] {
            assert!(complaint(old).is_some_and(|text| text.contains(wanted)), "{old}: {:?}", complaint(old));
        }
        let ignores = |version: &str, what: &str| complaint(version).is_some_and(|text| text.contains(what));
        for (version, quota, roles) in [
            ("3.4.41", true, true),
            ("3.4.42", true, false),
            ("3.5.27", true, true),
            ("3.5.28", true, false),
            ("3.5.32", true, false),
            ("3.5.33", false, false),
            ("3.6.8", true, true),
            ("3.6.13", true, false),
            ("3.7.0", true, false),
            ("3.7.1", false, false),
        ] {
            assert_eq!(ignores(version, "full database"), quota, "{version}");
            assert_eq!(ignores(version, "may only read"), roles, "{version}");
        }
        for odd in ["", "x", "3", "3.5", "3.5.x"] {
            assert!(complaint(odd).is_some(), "{odd}");
        }
    }
}
