//! Log lines of the operator that no seed of the test reaches.
//!
//! Owns their list, with the reason of each. Refuses to excuse any other: a line that gets out of reach fails the
//! test.

const NO_DISCOVERY: &str = "no ServiceRegistry of a world has spec.discovery";
const NO_DRAIN: &str = "a replica of a world answers no pods that end";

/// A part of each line, and why no world leads to it.
pub const UNREACHED: [(&str, &str); 19] = [
    ("too many Events wait", "a world has too few services for so many Events"),
    ("the API server does not keep every field", "the CRDs of a world are those of this version"),
    ("cannot import {group}", "no world has a port that Kubernetes refuses"),
    ("many RegisteredServices are gone too", "a world has fewer than ten RegisteredServices"),
    ("a watch is too large", "no record of a world is so large"),
    ("a Secret of a session that goes on changed", "of few seeds; the found plan 0029 reaches it"),
    ("discovery planned", NO_DISCOVERY),
    ("discovery: the API server refuses", NO_DISCOVERY),
    ("discovery: {} RegisteredServices written", NO_DISCOVERY),
    ("dry run: discovery would", NO_DISCOVERY),
    ("controllers/gates/", "no pod of a world has a readiness gate"),
    ("of other clusters stand by for", "no world has spec.import.clusters"),
    ("service_registry/unseen.rs", "no world is in namespaced mode"),
    ("this API server does not serve it", "the API server of a world serves every kind"),
    ("the status page is not served", "a replica of a world serves no page"),
    ("pods that end are not waited for", NO_DRAIN),
    ("that ends was answered", NO_DRAIN),
    ("ends while its record is in the registry still", NO_DRAIN),
    ("a task broke off", "a task that breaks off is a fault of the operator"),
];
