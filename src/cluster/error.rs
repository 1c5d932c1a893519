//! The errors of the Kubernetes API, as texts for the operator of the cluster.
//!
//! Owns the text and the metric's label of each error, and tells the ways apart in which a write is refused:
//! permission, quota, policy. Refuses to know the consequence of an error.

use kube::core::Status;

use crate::causes::of_kube;

/// Errors of the Kubernetes API.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("cannot {what}: it changed meanwhile, or somebody else's has its name ({message}); planning again")]
    Conflict { what: String, message: String },
    #[error("not permitted to {what}: {message}; apply the chart or deploy/twinspan.yaml of this version")]
    Forbidden { what: String, message: String },
    #[error("a quota refuses to {what}: {message}; raise the quota, or make room in it")]
    Quota { what: String, message: String },
    #[error("a policy refuses to {what}: {message}; whoever keeps the policy can except Twinspan's service account")]
    Policy { what: String, message: String },
    #[error("the API server refuses {what}: {message}")]
    Rejected { what: String, message: String },
    #[error("the API server did not answer within {seconds} s ({what})")]
    Timeout { what: String, seconds: u64 },
    #[error("cannot {what}: {}", of_kube(.source))]
    Unreachable {
        what: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("not the leader; nothing is written")]
    NotLeader,
}

impl ClusterError {
    /// Bounded, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::Forbidden { .. } => "forbidden",
            Self::Quota { .. } => "quota",
            Self::Policy { .. } => "policy",
            Self::Rejected { .. } => "rejected",
            Self::Timeout { .. } => "timeout",
            Self::Unreachable { .. } => "unreachable",
            Self::NotLeader => "not_leader",
        }
    }

    /// Whether the API server refuses this object for good, and would refuse it again.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Forbidden { .. } | Self::Quota { .. } | Self::Policy { .. } | Self::Rejected { .. })
    }

    /// Whether no answer came in time: of the API server, or of a webhook behind it.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    pub fn of(what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match error {
            // An object that is replaced and is not there was deleted meanwhile: a lost race too.
            kube::Error::Api(status)
                if status.is_conflict()
                    || status.is_already_exists()
                    || status.is_not_found()
                    || is_of_another(&status) =>
            {
                Self::Conflict { what, message: status.message }
            }
            kube::Error::Api(status) if matches!(status.code, 401 | 403 | 422) || is_admission(&status) => {
                refused(what, *status)
            }
            kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
                Self::Rejected { what, message: status.message }
            }
            source => Self::Unreachable { what, source: Box::new(source) },
        }
    }
}

/// Nothing but the message tells who refused: `k8s.io/apiserver` words it in `authorization` ("User … cannot …"), in
/// `admission/plugin/resourcequota` ("exceeded quota", "failed quota") and in the two kinds of policies
/// ("… denied the request", "… denied request").
fn refused(what: String, status: Status) -> ClusterError {
    let (code, message) = (status.code, status.message);
    if code == 401 || (message.contains("User \"") && message.contains(" cannot ")) {
        ClusterError::Forbidden { what, message }
    } else if message.contains("exceeded quota") || message.contains("failed quota") {
        ClusterError::Quota { what, message }
    } else if code == 403 || message.contains("denied") || message.contains("failed calling webhook") {
        ClusterError::Policy { what, message }
    } else {
        ClusterError::Rejected { what, message }
    }
}

/// Whether a patch names another UID than the object has, which was deleted and made anew: to the API server that is an
/// attempt to change an immutable field (`ValidateObjectMetaAccessorUpdate` of `k8s.io/apimachinery`).
fn is_of_another(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 422 && causes.into_iter().any(|cause| cause.field == "metadata.uid")
}

/// A webhook chooses its code itself; one that cannot be asked is a 500 (`admission/plugin/webhook`).
fn is_admission(status: &Status) -> bool {
    ((400..500).contains(&status.code) && status.message.contains("denied the request"))
        || status.message.contains("failed calling webhook")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(code: u16, message: &str) -> &'static str {
        let reason = match code {
            404 => "NotFound",
            409 => "Conflict",
            _ => "",
        };
        let status = Status { code, message: message.to_owned(), reason: reason.to_owned(), ..Status::default() };
        ClusterError::of("create EndpointSlice shop/echo", kube::Error::Api(Box::new(status))).label()
    }

    #[test]
    fn permission_quota_and_policy_are_told_apart() {
        let rbac = "endpointslices.discovery.k8s.io is forbidden: User \"system:serviceaccount:twinspan:twinspan\" cannot \
                    create resource \"endpointslices\" in API group \"discovery.k8s.io\" in the namespace \"shop\"";
        let quota = "services \"echo\" is forbidden: exceeded quota: q, requested: count/services=1, used: \
                     count/services=0, limited: count/services=0";
        let policy = "endpointslices.discovery.k8s.io \"echo\" is forbidden: ValidatingAdmissionPolicy 'no-ssh' with \
                      binding 'no-ssh' denied request: port 22 is not for services";
        let webhook = "admission webhook \"v.example.org\" denied the request: no";
        let openshift = "endpointslices \"echo\" is forbidden: endpoint port TCP:22623 is not allowed";
        for (code, message, label) in [
            (403, rbac, "forbidden"),
            (401, "Unauthorized", "forbidden"),
            (403, quota, "quota"),
            (403, policy, "policy"),
            (422, policy, "policy"),
            (403, webhook, "policy"),
            (400, webhook, "policy"),
            (500, "Internal error occurred: failed calling webhook \"v.example.org\": connection refused", "policy"),
            (500, "etcdserver: leader changed", "unreachable"),
            (403, openshift, "policy"),
            (422, "EndpointSlice.discovery.k8s.io \"echo\" is invalid: ports: Too many", "rejected"),
            (400, "bad", "rejected"),
            (404, "endpointslices \"echo\" not found", "conflict"),
            (409, "changed", "conflict"),
            (429, "slow down", "unreachable"),
        ] {
            assert_eq!(of(code, message), label, "{code} {message}");
        }
    }

    #[test]
    fn a_patch_that_names_an_object_of_another_uid_lost_a_race() {
        let of = |field: &str| {
            let details = json!({"causes": [{"reason": "FieldValueInvalid", "field": field}]});
            let details = Some(serde_json::from_value(details).unwrap());
            let status = Status { code: 422, reason: "Invalid".to_owned(), details, ..Status::default() };
            ClusterError::of("patch Pod shop/a", kube::Error::Api(Box::new(status))).label()
        };
        assert_eq!((of("metadata.uid"), of("status.conditions")), ("conflict", "rejected"));
    }
}
