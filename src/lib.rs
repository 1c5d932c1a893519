//! Twinspan keeps Kubernetes Services and an etcd service registry equal, both ways.

pub mod api;
pub mod cli;
