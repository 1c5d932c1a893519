//! The errors of the Kubernetes API, as texts for the operator of the cluster.
//!
//! Owns the text and the metric's label of each error. Refuses to know the consequence of an error.

/// Errors of the Kubernetes API.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("{what} was changed by somebody else meanwhile; planning again")]
    Conflict { what: String },
    #[error("not permitted to {what}: {message}; apply the chart or deploy/twinspan.yaml of this version")]
    Forbidden { what: String, message: String },
    #[error("the API server refuses {what}: {message}")]
    Rejected { what: String, message: String },
    #[error("the API server did not answer within {seconds} s ({what})")]
    Timeout { what: String, seconds: u64 },
    #[error("cannot {what}: {source}")]
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
            Self::Rejected { .. } => "rejected",
            Self::Timeout { .. } => "timeout",
            Self::Unreachable { .. } => "unreachable",
            Self::NotLeader => "not_leader",
        }
    }

    pub fn of(what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => Self::Conflict { what },
            kube::Error::Api(status) if status.is_forbidden() || status.code == 401 => {
                Self::Forbidden { what, message: status.message }
            }
            kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
                Self::Rejected { what, message: status.message }
            }
            source => Self::Unreachable { what, source: Box::new(source) },
        }
    }
}
