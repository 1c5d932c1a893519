//! The reach of this process: the part of the cluster that it may look at, and the ServiceRegistries that it serves.
//!
//! Owns which parts make the view of a kind complete, and whose a ServiceRegistry is where several releases share a
//! cluster. Refuses to watch, and to write the holder into a status.

use std::collections::BTreeSet;

use twinspan_core::model::Cidr;

use super::kind::Kind;

/// The part of a kind that is the whole cluster, or for Secrets the operator's own namespace.
pub const WHOLE: &str = "";

/// The part of the cluster that this process looks at. The default is all of it, for a reader without a release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The operator's own namespace, which names its release; `None` for a reader, which serves nothing.
    pub release: Option<String>,
    /// The ServiceRegistries that it serves; empty means every one.
    pub registries: BTreeSet<String>,
    /// The limits in namespaced mode; `None` where it looks at the whole cluster.
    pub limits: Option<Limits>,
}

/// Namespaced mode: the namespaces, and what an administrator says instead of Nodes and ServiceCIDRs, which this
/// process may not list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub namespaces: BTreeSet<String>,
    /// The cluster ID of this release alone: records of another release are those of another cluster.
    pub cluster_id: String,
    /// Networks of pods: an address in them is admitted only as a pod of the same namespace.
    pub pod_cidrs: Vec<Cidr>,
    /// Networks of Nodes and of the API server, no address of which is admitted.
    pub node_cidrs: Vec<Cidr>,
}

/// Whose a ServiceRegistry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    Ours,
    /// This release may have it, and its status has yet to say so.
    Unclaimed,
    /// Another release has it, which this namespace names.
    Another(String),
}

impl Reach {
    pub fn is_limited(&self) -> bool {
        self.limits.is_some()
    }

    /// Whether this release serves a ServiceRegistry of this name.
    pub fn serves(&self, registry: &str) -> bool {
        self.registries.is_empty() || self.registries.contains(registry)
    }

    /// Whether it looks at the objects of a namespace.
    pub fn looks_at(&self, namespace: &str) -> bool {
        self.limits.as_ref().is_none_or(|limits| limits.namespaces.contains(namespace))
    }

    /// The parts that make the view of a kind complete: namespaces, or [`WHOLE`]. A kind without any is not watched.
    pub fn parts(&self, kind: Kind) -> Vec<String> {
        match (&self.limits, kind) {
            (None, _) | (Some(_), Kind::ServiceRegistry | Kind::Secret) => vec![WHOLE.to_owned()],
            (Some(_), Kind::Node | Kind::ServiceCidr) => Vec::new(),
            (Some(limits), _) => limits.namespaces.iter().cloned().collect(),
        }
    }

    /// Whose a ServiceRegistry is whose status and annotation name these releases. The holder has it until its status
    /// names another one, for a release that is approved may never begin. In namespaced mode nothing shows whether the
    /// holder still runs, so that it keeps what it has; otherwise the Leases have shown that it does not, unless
    /// `was_ours`: this process has seen the status name its own release, so that the holder began since then.
    pub fn holding(&self, holder: Option<&str>, approved: Option<&str>, was_ours: bool) -> Holding {
        let Some(ours) = self.release.as_deref() else { return Holding::Ours };
        match (holder, approved) {
            (Some(holder), _) if holder == ours => Holding::Ours,
            (_, Some(approved)) if approved == ours => Holding::Unclaimed,
            (_, Some(another)) => Holding::Another(another.to_owned()),
            (Some(another), None) if self.is_limited() || was_ours => Holding::Another(another.to_owned()),
            (_, None) => Holding::Unclaimed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited() -> Reach {
        let limits = Limits { namespaces: ["a", "b"].map(String::from).into(), ..Limits::default() };
        Reach { release: Some("team-a".into()), limits: Some(limits), ..Reach::default() }
    }

    #[test]
    fn namespaced_mode_lists_nothing_of_the_whole_cluster_but_service_registries() {
        for kind in Kind::ALL {
            let parts = limited().parts(kind);
            match kind {
                // Those of the operator's own namespace.
                Kind::ServiceRegistry | Kind::Secret => assert_eq!(parts, [WHOLE], "{kind:?}"),
                Kind::Node | Kind::ServiceCidr => assert!(parts.is_empty(), "{kind:?}"),
                _ => assert_eq!(parts, ["a", "b"], "{kind:?}"),
            }
            assert_eq!(Reach::default().parts(kind), [WHOLE]);
        }
    }

    #[test]
    fn a_service_registry_has_one_release() {
        let whole = Reach { limits: None, ..limited() };
        let another = || Holding::Another("team-b".into());
        for (holder, approved, in_limits, in_whole) in [
            (None, None, Holding::Unclaimed, Holding::Unclaimed),
            (Some("team-a"), None, Holding::Ours, Holding::Ours),
            (Some("team-b"), None, another(), Holding::Unclaimed),
            (Some("team-b"), Some("team-a"), Holding::Unclaimed, Holding::Unclaimed),
            // A name with a typing error ends nothing.
            (Some("team-a"), Some("team-b"), Holding::Ours, Holding::Ours),
            (None, Some("team-b"), another(), another()),
            (Some("team-b"), Some("team-b"), another(), another()),
        ] {
            assert_eq!(limited().holding(holder, approved, false), in_limits, "{holder:?} {approved:?}");
            assert_eq!(whole.holding(holder, approved, false), in_whole, "{holder:?} {approved:?}");
            assert_eq!(whole.holding(holder, approved, true), in_limits, "{holder:?} {approved:?}");
            assert_eq!(Reach::default().holding(holder, approved, true), Holding::Ours);
        }
    }

    #[test]
    fn a_release_serves_the_service_registries_that_it_names_or_all() {
        let named = Reach { registries: ["main".to_owned()].into(), ..Reach::default() };
        assert!(named.serves("main") && !named.serves("other") && Reach::default().serves("other"));
    }
}
