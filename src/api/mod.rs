//! The API: the types behind the CRDs of group `twinspan.dev`.
//!
//! Owns names, bounds, defaults, CEL rules, and the conversion of single types to those of `twinspan_core`; `twinspan
//! crds` prints the schema of these types, and `crds/` holds it. Refuses to know what any field does: `controllers`
//! validates an object and makes settings of it.
//!
//! The conversion strategy is `None` for good, so names and shapes must last. Every string and list has a bound, so
//! that the API server can estimate the cost of every rule.

mod clusters;
pub mod conditions;
pub mod crds;
mod differences;
pub mod discovered;
mod discovery;
mod export;
mod hold;
mod import;
#[cfg(test)]
pub mod kstatus;
mod precedence;
#[cfg(test)]
mod properties;
mod record_counts;
mod record_format;
mod registered_service;
mod schema;
mod selector;
mod service_registry;
mod stored;
#[cfg(test)]
pub mod testing;

pub use clusters::{Clusters, Preference};
pub use differences::{Difference, Differences, MAX_BYTES, MAX_ENTRIES, Side};
pub use discovery::{DiscoverExports, DiscoverImports, Discovery, DiscoveryPolicy, DiscoveryRefusal, DiscoveryStatus};
pub use export::{Export, ExportAddress, IpFamilyPolicy, NodeAddressType, TagFromLabel};
pub use hold::{HoldStatus, held_since};
pub use import::{Import, ImportInto, OnExpiry, OtherClusters};
pub use precedence::precedence;
pub use record_counts::{RecordCounts, RecordScope};
pub use record_format::RecordFormat;
pub use registered_service::{
    Counts, CreateService, DeletionGuard, Direction, Policy, PortRef, RegisteredService, RegisteredServiceSpec,
    RegisteredServiceStatus, RegistryRef, ServiceRef,
};
pub use selector::{Operator, Requirement, Selector};
pub use service_registry::{
    AllowedUse, Auth, EtcdConnection, EtcdStatus, Fence, FenceMode, ImportPolicy, LeaseSettings, ReturnedAs,
    SecretKeyRef, SecretRef, ServiceRegistry, ServiceRegistrySpec, ServiceRegistryStatus, Tls,
};
pub use stored::{PartlyReadable, Stored, Unreadable};

/// The API group.
pub const GROUP: &str = "twinspan.dev";
/// The version that is served and stored.
pub const VERSION: &str = "v1alpha1";

/// Annotation that releases held deletions: the hash that status names. On a RegisteredService, or on a ServiceRegistry
/// for the deletions that the registry as a whole holds.
pub const APPROVE_DELETIONS: &str = "twinspan.dev/approve-deletions";
/// Annotation on a ServiceRegistry that lets this cluster raise an epoch that nothing explains: its value.
pub const APPROVE_EPOCH: &str = "twinspan.dev/approve-epoch";
/// Annotation on a ServiceRegistry that names the release which is to serve it from now on: its namespace.
pub const APPROVE_HOLDER: &str = "twinspan.dev/approve-holder";
/// Annotation on a ServiceRegistry that names namespaces which its release, in namespaced mode, no longer looks at, and
/// whose RegisteredServices count as gone: separated by commas.
pub const APPROVE_WITHDRAWAL: &str = "twinspan.dev/approve-withdrawal";
