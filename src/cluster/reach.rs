//! The reach of this process: the part of the cluster that it may look at, and the ServiceRegistries that it serves.
//!
//! Owns which parts make the view of a kind complete, and whose a ServiceRegistry is where several releases share a
//! cluster. Refuses to watch, and to write the holder into a status.

use std::collections::BTreeSet;

use twinspan_core::model::Cidr;

use super::kind::Kind;
use crate::api::{APPROVE_HOLDER, ServiceRegistry};

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

    /// The parts that make the view of a kind complete: namespaces, or [`WHOLE`]. A kind without any is not watched.
    pub fn parts(&self, kind: Kind) -> Vec<String> {
        match (&self.limits, kind) {
            (None, _) | (Some(_), Kind::ServiceRegistry | Kind::Secret) => vec![WHOLE.to_owned()],
            (Some(_), Kind::Node | Kind::ServiceCidr) => Vec::new(),
            (Some(limits), _) => limits.namespaces.iter().cloned().collect(),
        }
    }

    /// Whose the ServiceRegistry is. An approval by annotation counts first. In namespaced mode nothing shows whether
    /// the holder still runs, so that it keeps what it has; otherwise the Leases have shown that it does not.
    pub fn holding(&self, object: &ServiceRegistry) -> Holding {
        let Some(ours) = &self.release else { return Holding::Ours };
        let holder = object.status.as_ref().and_then(|status| status.holder.as_ref());
        let approved = object.metadata.annotations.as_ref().and_then(|all| all.get(APPROVE_HOLDER));
        match approved.or(holder) {
            Some(named) if named == ours => match holder == Some(ours) {
                true => Holding::Ours,
                false => Holding::Unclaimed,
            },
            Some(another) if approved.is_some() || self.is_limited() => Holding::Another(another.clone()),
            _ => Holding::Unclaimed,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let object = |holder: Option<&str>, approved: Option<&str>| -> ServiceRegistry {
            let mut object = json!({"metadata": {"name": "main"}, "spec": {"etcd": {"endpoints": ["http://10.0.0.1:2379"]},
                "format": "Kitex", "allowed": []}, "status": {"holder": holder}});
            if let Some(approved) = approved {
                object["metadata"]["annotations"] = json!({APPROVE_HOLDER: approved});
            }
            serde_json::from_value(object).unwrap()
        };
        let whole = Reach { limits: None, ..limited() };
        let another = || Holding::Another("team-b".into());
        for (holder, approved, in_limits, in_whole) in [
            (None, None, Holding::Unclaimed, Holding::Unclaimed),
            (Some("team-a"), None, Holding::Ours, Holding::Ours),
            (Some("team-b"), None, another(), Holding::Unclaimed),
            (Some("team-b"), Some("team-a"), Holding::Unclaimed, Holding::Unclaimed),
            (Some("team-a"), Some("team-b"), another(), another()),
            (None, Some("team-b"), another(), another()),
        ] {
            assert_eq!(limited().holding(&object(holder, approved)), in_limits, "{holder:?} {approved:?}");
            assert_eq!(whole.holding(&object(holder, approved)), in_whole, "{holder:?} {approved:?}");
            assert_eq!(Reach::default().holding(&object(holder, approved)), Holding::Ours);
        }
    }

    #[test]
    fn a_release_serves_the_service_registries_that_it_names_or_all() {
        let named = Reach { registries: ["main".to_owned()].into(), ..Reach::default() };
        assert!(named.serves("main") && !named.serves("other") && Reach::default().serves("other"));
    }
}
