//! Synchronisation without failures: endpoints appear in the registry, records appear in the cluster.

pub mod addresses;
mod apart;
mod cluster_side;
mod conformance;
mod export;
pub mod formats;
mod grpc_proxy;
mod import;
mod lanes;
mod local_first;
mod packing;
mod readers;
mod self_registration;
mod shares;
mod sharing;
mod steady_readers;
mod together;

use crate::harness::stories;

stories![modules: addresses, apart, cluster_side, conformance, export, formats, grpc_proxy, import, lanes, local_first, packing, readers, self_registration, shares, sharing, steady_readers,
    together];
