//! A fake kube-apiserver, for deterministic tests on one thread with tokio's clock paused.
//!
//! - [`Cluster`]: what API servers share, with direct access for actors and oracles; [`Snapshot`]: its backup.
//! - [`Server`]: one API server, the service that a `kube::Client` takes.
//! - `switches`: faults of servers, which may be moved at any time; [`Failure`]: requests that fail.
//! - `garbage`, `slices`, `namespaces`: the controllers of Kubernetes, each a future that its caller runs.
//! - Below: `store` (versions and history), `write` and `delete` (the rules of every kind), `strategy`, `defaults` and
//!   `schema` (those of each), `list` and `watch`.
//!
//! Owns the behaviour of kube-apiserver that a controller can see, from the sources of Kubernetes v1.37.2. Refuses to
//! know what runs against it: objects are JSON. The real server alone has CEL rules, patterns, RBAC, field management,
//! server-side apply, and admission but for namespaces that terminate.

mod clock;
mod cluster;
mod defaults;
mod delete;
mod faults;
mod garbage;
mod identity;
mod informer;
mod kinds;
mod list;
mod merge;
mod namespaces;
mod path;
mod reconcile;
mod schema;
mod selector;
mod server;
mod slices;
mod status;
mod store;
mod strategy;
mod switches;
#[cfg(test)]
mod tests;
mod watch;
mod write;
#[cfg(test)]
mod write_tests;

pub use cluster::{Cluster, Options, Snapshot, read_yaml};
pub use faults::{Failure, Verb};
pub use server::{AUTHOR, AnswerBody, Server};
pub use status::Status;
pub use store::Change;
