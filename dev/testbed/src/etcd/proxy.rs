//! etcd's own gRPC proxy in front of an etcd.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;

use super::{Etcd, PORT};
use crate::namespace;
use crate::part::Part;

/// A running `etcd grpc-proxy`.
#[derive(Debug)]
pub struct GrpcProxy {
    part: Part,
    endpoint: String,
}

impl GrpcProxy {
    pub(crate) fn start(name: &str, dir: &Path, ip: Ipv4Addr, beyond: &Etcd) -> Result<Self> {
        let address = format!("{ip}:{PORT}");
        let args: Vec<String> = [
            "etcd",
            "grpc-proxy",
            "start",
            &format!("--endpoints={}", beyond.endpoint()),
            &format!("--listen-addr={address}"),
            &format!("--advertise-client-url={address}"),
            &format!("--data-dir={}", dir.join(name).display()),
        ]
        .map(ToOwned::to_owned)
        .into();
        let part = Part::start(name, dir, &namespace::binary("controlplane")?, &args, &[])?;
        Ok(Self { part, endpoint: format!("http://{address}") })
    }

    pub fn part(&self) -> &Part {
        &self.part
    }

    /// Client URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}
