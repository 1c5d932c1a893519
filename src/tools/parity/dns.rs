//! DNS: the answers of in-cluster DNS for a headless Service, from SRV records and the addresses of their targets.
//!
//! Owns the choice of the server, and whether it is the cluster's. Refuses to know the other sides.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver as Hickory, TokioResolver};
use twinspan_core::model::InstanceAddr;

/// The reason why DNS has no answer.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("cannot read the system's DNS configuration: {0}; say which server to ask with --dns")]
    Configuration(NetError),
    #[error("DNS does not answer: {0}; say which server to ask with --dns")]
    Silent(#[from] NetError),
}

/// A resolver without a cache, because only the current answer counts.
#[derive(Debug)]
pub struct Resolver {
    inner: TokioResolver,
    named: bool,
}

impl Resolver {
    /// A resolver for one server, or for those of the system's configuration.
    ///
    /// # Errors
    /// The system's configuration cannot be read.
    pub fn new(server: Option<SocketAddr>) -> Result<Self, DnsError> {
        let mut builder = match server {
            None => Hickory::builder_tokio().map_err(DnsError::Configuration)?,
            Some(server) => {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
                let server = NameServerConfig::new(server.ip(), true, connections.into());
                Hickory::builder_with_config(
                    ResolverConfig::from_name_servers(vec![server]),
                    TokioRuntimeProvider::default(),
                )
            }
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.timeout = Duration::from_secs(2);
        let inner = builder.build().map_err(DnsError::Configuration)?;
        Ok(Self { inner, named: server.is_some() })
    }

    /// The reason why the server has no say about the cluster; `None` if it is the cluster's.
    ///
    /// # Errors
    /// A server that the user named does not answer; the system's need not know the cluster.
    pub async fn unfit(&self, cluster_domain: &str) -> Result<Option<String>, DnsError> {
        let known = format!("kubernetes.default.svc.{cluster_domain}.");
        match self.addresses(&known).await {
            Ok(found) if found.is_empty() => {
                Ok(Some(format!("the DNS server does not know {known}, so it is not the cluster's")))
            }
            Ok(_) => Ok(None),
            Err(error) if !self.named => Ok(Some(format!("the system's DNS servers do not answer ({error})"))),
            Err(error) => Err(error.into()),
        }
    }

    /// Every instance in the SRV answers of a port.
    ///
    /// # Errors
    /// No server answers.
    pub async fn instances(&self, port: &str, service: &str) -> Result<BTreeSet<InstanceAddr>, DnsError> {
        let mut found = BTreeSet::new();
        for answer in self.lookup(&format!("_{port}._tcp.{service}"), RecordType::SRV).await? {
            let RData::SRV(srv) = answer else { continue };
            for ip in self.addresses(&srv.target.to_string()).await? {
                found.extend(InstanceAddr::new(ip, srv.port));
            }
        }
        Ok(found)
    }

    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        let mut found = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            for answer in self.lookup(name, kind).await? {
                match answer {
                    RData::A(a) => found.push(IpAddr::V4(a.0)),
                    RData::AAAA(aaaa) => found.push(IpAddr::V6(aaaa.0)),
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    /// A name that does not exist has no answers.
    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, NetError> {
        match self.inner.lookup(name, kind).await {
            Ok(lookup) => Ok(lookup.answers().iter().map(|record| record.data.clone()).collect()),
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;

    /// A server without names: it returns each question with `NXDOMAIN` (RFC 1035).
    async fn knows_nobody() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut message = [0; 512];
            while let Ok((_, from)) = socket.recv_from(&mut message).await {
                let mut end = 12;
                while message[end] != 0 {
                    end += usize::from(message[end]) + 1;
                }
                message[2..4].copy_from_slice(&[0x81, 0x83]);
                // The response has one question, and neither answers nor EDNS.
                message[6..12].fill(0);
                let _ = socket.send_to(&message[..end + 5], from).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn a_server_outside_the_cluster_knows_no_name_of_it() {
        let resolver = Resolver::new(Some(knows_nobody().await)).unwrap();
        let unfit = resolver.unfit("cluster.local").await.unwrap().unwrap();
        assert!(unfit.contains("does not know kubernetes.default.svc.cluster.local."), "{unfit}");
        assert!(resolver.instances("rpc", "user.shop.svc.cluster.local.").await.unwrap().is_empty());
    }
}
