//! The errors of a registry, as texts for the operator of the cluster.
//!
//! Owns the text, the condition's reason and the metric's label of each error. Refuses to know the errors of the etcd
//! client, which [`super::etcd`] translates.

use twinspan_core::model::Revision;

use crate::api::conditions::Reason;

/// Errors of one registry. Conditions, Events and logs show their texts, so each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("no endpoint of the registry answers ({0}); check spec.etcd.endpoints and the network between")]
    Unreachable(String),
    #[error("the registry did not answer within {seconds} s ({what}); check its health and the network between")]
    Timeout { what: &'static str, seconds: u64 },
    #[error("the registry refuses our user ({0}); check the Secret of spec.etcd.auth")]
    AuthFailed(String),
    #[error(
        "the registry's user may not do this ({0}); grant it read and write on spec.prefix, or on each name where there is none, and on \
         spec.fence.keyPrefix"
    )]
    PermissionDenied(String),
    #[error("TLS with the registry failed ({0}); check the Secrets of spec.etcd.tls and its serverName")]
    TlsFailed(String),
    #[error("{0}")]
    Secret(String),
    #[error("the registry has compacted revision {0}; listing again")]
    Compacted(Revision),
    #[error("the registry ended the watch ({0}); listing again")]
    WatchEnded(String),
    #[error("the registry has been silent for {seconds} s although asked for progress; connecting again")]
    Silent { seconds: u64 },
    #[error("another leader has taken over; nothing is written")]
    Fenced,
    #[error("the epoch of the registry is not ours yet; writing begins once it is raised")]
    NoEpoch,
    #[error(
        "another writer raised the epoch at {key} to {value}: another cluster or release uses this cluster ID; give one of them another \
         spec.clusterID, or annotate the ServiceRegistry with twinspan.dev/approve-epoch={value} if it is gone"
    )]
    ClusterIdInUse { key: String, value: String },
    #[error("cannot confirm the Lease: {0}")]
    LeaseUnconfirmed(String),
    #[error("not the leader; nothing is written")]
    NotLeader,
    #[error("the lease is gone; it is granted again")]
    LeaseGone,
    #[error("the registry's database is full ({0}); compact and defragment it, then disarm the alarm")]
    NoSpace(String),
    #[error("an answer or a request is too large ({0}); smaller ones follow")]
    TooLarge(String),
    #[error("the registry answered with an error: {0}")]
    Server(String),
    #[error("the registry refuses the request itself ({0}); nothing of it was written")]
    Rejected(String),
    #[error("the registry allows too few operations in one transaction; raise its --max-txn-ops")]
    TooManyOps,
    #[error("a task of Twinspan broke off ({0}); it begins again; please report this as a bug")]
    Panicked(String),
    #[error("not connected to the registry")]
    NotConnected,
    #[error("whether another ServiceRegistry has the same place is not known yet; writing begins once it is")]
    NotSole,
}

impl RegistryError {
    /// The reason in conditions.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreachable(_) | Self::Timeout { .. } | Self::Silent { .. } | Self::NotConnected => {
                Reason::Unreachable
            }
            Self::AuthFailed(_) => Reason::AuthFailed,
            Self::PermissionDenied(_) => Reason::PermissionDenied,
            Self::TlsFailed(_) => Reason::TLSFailed,
            Self::Secret(_) => Reason::SecretInvalid,
            Self::Compacted(_) | Self::WatchEnded(_) | Self::NotSole => Reason::Listing,
            Self::Fenced => Reason::Fenced,
            Self::NoEpoch | Self::LeaseUnconfirmed(_) => Reason::NoEpoch,
            Self::ClusterIdInUse { .. } => Reason::ClusterIDInUse,
            Self::NotLeader => Reason::NotLeader,
            Self::LeaseGone => Reason::LeaseGone,
            Self::NoSpace(_) => Reason::NoSpace,
            Self::TooLarge(_) | Self::Server(_) | Self::Rejected(_) | Self::TooManyOps | Self::Panicked(_) => {
                Reason::ServerError
            }
        }
    }

    /// Bounded, for metrics.
    pub fn label(&self) -> &'static str {
        self.reason().as_str()
    }

    /// True if a write that failed with this error may have taken effect. An error of the transport never says whether
    /// the request arrived, TLS included: a connection that breaks off may look like a failure of TLS.
    pub fn is_ambiguous(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Timeout { .. } | Self::TlsFailed(_) | Self::TooLarge(_) | Self::Server(_)
        )
    }
}
