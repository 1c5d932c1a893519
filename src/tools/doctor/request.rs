//! The choice of checks: the cluster, the place of the operator in it, and the registries.
//!
//! Owns no default; the command line has them. Refuses to know the checks.

use std::fmt;
use std::path::Path;

use kube::Client;

use crate::cluster::networks::NamedNetworks;

/// The choice of checks.
pub struct Request<'a> {
    pub client: Client,
    /// The URL of the API server.
    pub server: &'a str,
    /// The namespace of the Secrets of ServiceRegistries, the Lease and the ServiceAccount.
    pub operator_namespace: &'a str,
    pub service_account: &'a str,
    /// The networks that the operator is told by its settings, where they are known here.
    pub networks: NamedNetworks,
    /// The socket of the operator in this pod, which the audit asks in place of a second view.
    pub socket: Option<&'a Path>,
    /// The ServiceRegistries to check; empty means all.
    pub registries: &'a [String],
    /// The namespaces that the operator looks at in namespaced mode; empty means the whole cluster.
    pub watched: &'a [String],
}

impl Request<'_> {
    /// The name of an object without a namespace, each of which a release in namespaced mode has for itself.
    pub(super) fn cluster_name(&self, name: &str) -> String {
        match name.strip_prefix("twinspan") {
            Some(rest) if !self.watched.is_empty() => format!("twinspan-{}{rest}", self.operator_namespace),
            _ => name.to_owned(),
        }
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("operator_namespace", &self.operator_namespace).finish_non_exhaustive()
    }
}
