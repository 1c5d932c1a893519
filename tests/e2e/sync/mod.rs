//! Synchronisation without failures: endpoints appear in the registry, records appear in the cluster.

mod cluster_side;
mod conformance;
mod export;
pub mod formats;
mod grpc_proxy;
mod import;
mod packing;
mod self_registration;
mod sharing;

use crate::harness::stories;

stories![modules: cluster_side, conformance, export, formats, grpc_proxy, import, packing, self_registration, sharing];
