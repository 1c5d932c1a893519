//! The reasons why a watch has to begin again.
//!
//! Owns their words, and their labels for metrics. Refuses to know what follows from one.

use std::time::Duration;

use crate::causes::of_kube;

/// The reason why a watch has to begin again.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    #[error("no answer to {what} within {} s", limit.as_secs())]
    Timeout { what: &'static str, limit: Duration },
    #[error("the watch was not ended in time; its connection is dead")]
    Silent,
    #[error("the API server no longer has the version that was seen last; listing again")]
    Expired,
    #[error("an answer has no resourceVersion")]
    NoVersion,
    #[error("an answer cannot be read: {0}; listing again")]
    Unreadable(String),
    #[error("not permitted to list and watch it: {0}; apply the chart or deploy/twinspan.yaml of this version")]
    Forbidden(String),
    #[error("this API server does not serve it; are the CRDs of this version applied?")]
    NotServed,
    #[error("{0}")]
    Api(String),
}

impl WatchError {
    /// Bounded, for metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Silent => "silent",
            Self::Expired => "expired",
            Self::NoVersion => "no_version",
            Self::Unreadable(_) => "unreadable",
            Self::Forbidden(_) => "forbidden",
            Self::NotServed => "not_served",
            Self::Api(_) => "failed",
        }
    }
}

impl From<kube::Error> for WatchError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 410 => Self::Expired,
            kube::Error::Api(status) if status.code == 404 => Self::NotServed,
            kube::Error::Api(status) if status.is_forbidden() => Self::Forbidden(status.message),
            kube::Error::SerdeError(error) => Self::Unreadable(error.to_string()),
            error => Self::Api(of_kube(&error)),
        }
    }
}
