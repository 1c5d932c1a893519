//! The test bed: a real etcd, kube-apiserver, kube-controller-manager, CoreDNS and Kitex programs, as processes that a
//! test can kill and freeze, in a network namespace of their own.
//!
//! - [`namespace`]: runs the program again inside the namespace.
//! - [`Bed`]: one control plane, its DNS, and registries beside it.
//! - [`Part`]: one process. [`Reader`]: one that reads the cluster. [`Link`]: one connection that can be cut.
//!   [`ConnectProxy`]: a proxy for HTTPS. [`Host`]: a network namespace of its own for parts.
//! - [`oracle`]: Kubernetes' own code, for expected values. [`prometheus`]: Prometheus' own code, for firing alerts.
//!
//! Errors address the person who runs a test, so they are texts with a context (`anyhow`).

mod access;
mod address;
mod ask;
mod bed;
mod controlplane;
mod deployment;
mod dns;
mod etcd;
mod interop;
mod link;
pub mod namespace;
mod network;
pub mod oracle;
mod part;
mod pki;
mod pods;
pub mod prometheus;
mod reader;
mod tunnel;
mod twinspan;
mod wait;

pub use access::{Kubeconfig, apply_file};
pub use address::{next_v4, next_v6};
pub use bed::{Bed, OPERATOR_NAMESPACE, Releases};
pub use controlplane::{ControlPlane, Kind, NEWEST, Places};
pub use deployment::{
    container as twinspan_container, discovery_manifest, manifest as twinspan_manifest, rollouts_manifest,
};
pub use dns::{Dns, SrvTarget};
pub use etcd::{Etcd, GrpcProxy, LossyProxy, Request, Tls, requests};
pub use interop::{Call, Caller, Framework, Resolved, Server, ServerOptions, Tallied, Tally, resolve};
pub use link::Link;
pub use network::{Host, OBSERVER, Place};
pub use part::Part;
pub use pods::{NODE, Pods};
pub use reader::Reader;
pub use tunnel::ConnectProxy;
pub use twinspan::{Options as TwinspanOptions, Twinspan};
pub use wait::{eventually, holds};

/// The root of the repository.
pub fn repository() -> &'static std::path::Path {
    std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
