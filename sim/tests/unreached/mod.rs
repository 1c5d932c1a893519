//! Log lines of the operator that no seed of the test reaches.
//!
//! Owns their list, with the reason of each. Refuses to excuse any other: a line that gets out of reach fails the
//! test.

/// A part of each line, and why no world leads to it.
pub const UNREACHED: [(&str, &str); 17] = [
    ("too many Events wait", "a world has too few services for so many Events"),
    ("the API server does not keep every field", "the CRDs of a world are those of this version"),
    ("created the Service of", "every RegisteredService of a world has its Service"),
    ("cannot import {group}", "no world has a port that Kubernetes refuses"),
    ("many RegisteredServices are gone too", "a world has fewer than ten RegisteredServices"),
    ("the connection of the ServiceRegistry changed", "nobody changes the connection of a ServiceRegistry"),
    ("waiting until what was exported to the former place", "nobody changes the place of a ServiceRegistry"),
    ("\"audited\"", "audits come less often than a run is long"),
    ("the audit could not read the registry", "audits come less often than a run is long"),
    ("the audit found what no event told", "audits come less often than a run is long"),
    ("was not told by the watch; found by the audit", "audits come less often than a run is long"),
    ("our user may list no leases", "the etcd of a world asks for no password"),
    ("our user may not write every record on a lease", "the etcd of a world asks for no password"),
    ("our user may not read every record on leases", "the etcd of a world asks for no password"),
    ("a service cannot be followed", "the etcd of a world asks for no password"),
    ("a watch is too large", "no record of a world is so large"),
    ("a task broke off", "a task that breaks off is a fault of the operator"),
];
