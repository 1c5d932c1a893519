//! The versions of this program, of the operator in the cluster, and of Kubernetes.
//!
//! Owns the words where one of them is not known. The operator's is an annotation of its Lease, so that a person needs
//! no more than `get` of that one object. Refuses to compare versions.

use std::fmt;

use kube::Client;
use serde::Serialize;

use crate::causes::of_kube;
use crate::env::Env;
use crate::leadership::{self, LEASE, VERSION};
use crate::tools::print::line;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Versions {
    pub client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<Operator>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// The version of the leader, or of the last one.
    pub version: Option<String>,
    /// The replica that leads.
    pub leader: Option<String>,
    /// The reason why the version is not known.
    pub problem: Option<String>,
}

impl Versions {
    /// The version of this program alone.
    pub fn client() -> Self {
        Self { client: VERSION.to_owned(), operator: None, kubernetes: None }
    }

    /// The version of this program, where there is no way to the cluster.
    pub fn without_cluster(why: &str) -> Self {
        Self { operator: Some(Operator::unknown(why.to_owned())), ..Self::client() }
    }

    pub async fn read(client: &Client, operator_namespace: &str) -> Self {
        let operator = Operator::read(client, operator_namespace).await;
        let kubernetes = client.apiserver_version().await.ok().map(|info| info.git_version);
        Self { operator: Some(operator), kubernetes, ..Self::client() }
    }

    /// Whether everything that was asked for is known.
    pub fn is_complete(&self) -> bool {
        self.operator.as_ref().is_none_or(|operator| operator.version.is_some())
    }
}

impl Operator {
    fn unknown(problem: String) -> Self {
        Self { problem: Some(problem), ..Self::default() }
    }

    async fn read(client: &Client, namespace: &str) -> Self {
        match leadership::holder(client, namespace, Env::real().now()).await {
            Ok(Some(holder)) => {
                let problem = holder.version.is_none().then(|| "its version does not tell".to_owned());
                Self { version: holder.version, leader: holder.leader, problem }
            }
            Ok(None) => {
                Self::unknown(format!("there is no Lease {LEASE} in namespace {namespace}; does it run there?"))
            }
            Err(kube::Error::Api(status)) if status.is_forbidden() || status.code == 401 => {
                Self::unknown(format!("may not read Lease {LEASE} in namespace {namespace}"))
            }
            Err(kube::Error::Api(status)) => Self::unknown(status.message.clone()),
            Err(error) => Self::unknown(of_kube(&error)),
        }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "client: {}", self.client)?;
        if let Some(operator) = &self.operator {
            let why = operator.problem.iter().cloned();
            let leads = match (&operator.leader, &operator.problem) {
                (Some(leader), _) => Some(format!("{leader} leads")),
                (None, None) => Some("the last leader's; none leads now".to_owned()),
                (None, Some(_)) => None,
            };
            let more: Vec<String> = why.chain(leads).collect();
            let version = operator.version.as_deref().unwrap_or("unknown");
            line(f, "operator: ", format_args!("{version} ({})", more.join("; ")))?;
        }
        if let Some(kubernetes) = &self.kubernetes {
            line(f, "kubernetes: ", kubernetes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::fake_api::FakeApi;
    use crate::leadership::VERSION_ANNOTATION;

    #[tokio::test]
    async fn the_lease_tells_the_operators_version_and_what_is_not_known_has_a_reason() {
        const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/twinspan";
        let api = FakeApi::default();
        let ask = async || Versions::read(&api.client(), "ns").await;
        let versions = ask().await;
        assert!(
            versions.to_string().contains("operator: unknown (there is no Lease twinspan in namespace ns"),
            "{versions}"
        );
        assert!(!versions.is_complete());
        let renewed = format!("{:.6}", Env::real().now());
        let lease = |annotations: serde_json::Value, renewed: &str| {
            json!({"metadata": {"name": "twinspan", "annotations": annotations},
                "spec": {"holderIdentity": "pod-1", "renewTime": renewed}})
        };
        api.put(PATH, lease(json!({VERSION_ANNOTATION: "9.8.7"}), &renewed));
        let versions = ask().await;
        assert_eq!(versions.to_string(), format!("client: {VERSION}\noperator: 9.8.7 (pod-1 leads)\n"));
        assert!(versions.is_complete());
        api.put(PATH, lease(json!({VERSION_ANNOTATION: "9.8.7"}), "2020-01-01T00:00:00.000000Z"));
        assert!(ask().await.to_string().contains("operator: 9.8.7 (the last leader's; none leads now)"));
        api.put(PATH, lease(json!({}), &renewed));
        assert!(ask().await.to_string().contains("operator: unknown (its version does not tell; pod-1 leads)"));
        api.refuse("/leases/", 403);
        let versions = ask().await;
        assert!(versions.to_string().contains("unknown (may not read Lease twinspan in namespace ns)"), "{versions}");
        assert_eq!(json!(Versions::client()), json!({"client": VERSION}));
    }
}
