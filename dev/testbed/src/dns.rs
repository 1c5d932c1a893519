//! CoreDNS with the `kubernetes` plugin, and a client that asks it without a cache.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use kube::Client;
use tokio::net::TcpStream;

use crate::controlplane::ControlPlane;
use crate::network::Place;
use crate::part::Part;
use crate::{Kubeconfig, access, eventually, namespace, repository};

/// One SRV answer with the addresses of its target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SrvTarget {
    pub target: String,
    pub port: u16,
    pub ips: Vec<IpAddr>,
}

#[derive(Debug)]
pub struct Dns {
    part: Part,
    address: SocketAddr,
    resolver: TokioResolver,
}

impl Dns {
    /// Starts it without waiting for it.
    pub async fn start(place: impl Into<Place>, ip: Ipv4Addr, cluster: &ControlPlane) -> Result<Self> {
        let place = place.into();
        let client: &Client = &cluster.client;
        access::apply_file(client, &repository().join("dev/testbed/manifests/coredns.yaml")).await?;
        let kubeconfig = cluster.account(place.dir(), "kube-system", "coredns").await?;
        Self::start_as(place, ip, &kubeconfig)
    }

    /// The same as a user who may read what CoreDNS reads.
    pub fn start_as(place: impl Into<Place>, ip: Ipv4Addr, kubeconfig: &Kubeconfig) -> Result<Self> {
        let place = place.into();
        let dir = place.dir();
        let corefile = dir.join("Corefile");
        std::fs::write(
            &corefile,
            format!(
                "cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {{\n    bind {ip}\n    errors\n    ready {ip}:8181\n    \
                 kubernetes cluster.local in-addr.arpa ip6.arpa {{\n        kubeconfig {}\n        ttl 0\n    }}\n}}\n",
                kubeconfig.path.display()
            ),
        )?;
        let args = ["-conf".to_owned(), corefile.display().to_string()];
        let part = Part::start("coredns", place, &namespace::binary("coredns")?, &args, &[])?;
        let address = SocketAddr::from((ip, 53));
        let config = ResolverConfig::from_name_servers(vec![NameServerConfig::udp_and_tcp(IpAddr::V4(ip))]);
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.cache_size = 0;
        // A query without an answer is repeated: a timeout is not a wrong answer.
        options.timeout = Duration::from_secs(5);
        options.attempts = 3;
        Ok(Self { part, address, resolver: builder.build()? })
    }

    /// Waits until it answers.
    pub async fn ready(&self) -> Result<()> {
        eventually("CoreDNS answers", Duration::from_secs(30), || async {
            self.part.check_running()?;
            TcpStream::connect(self.address).await?;
            let found = self.addresses("kubernetes.default.svc.cluster.local.").await?;
            anyhow::ensure!(!found.is_empty(), "no answer for the API server's own Service");
            Ok(())
        })
        .await
    }

    pub fn part(&self) -> &Part {
        &self.part
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A and AAAA answers; empty if the name does not exist.
    pub async fn addresses(&self, name: &str) -> Result<BTreeSet<IpAddr>> {
        let mut found = BTreeSet::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            for data in self.lookup(name, kind).await? {
                match data {
                    RData::A(a) => found.insert(IpAddr::V4(a.0)),
                    RData::AAAA(aaaa) => found.insert(IpAddr::V6(aaaa.0)),
                    _ => false,
                };
            }
        }
        Ok(found)
    }

    /// SRV answers; empty if the name does not exist.
    pub async fn srv(&self, name: &str) -> Result<BTreeSet<SrvTarget>> {
        let mut found = BTreeSet::new();
        for data in self.lookup(name, RecordType::SRV).await? {
            if let RData::SRV(srv) = data {
                let target = srv.target.to_string();
                let ips = self.addresses(&target).await?.into_iter().collect();
                found.insert(SrvTarget { target, port: srv.port, ips });
            }
        }
        Ok(found)
    }

    /// Every `ip:port` of the SRV answers.
    pub async fn srv_addresses(&self, name: &str) -> Result<BTreeSet<SocketAddr>> {
        let targets = self.srv(name).await?;
        Ok(targets.iter().flat_map(|t| t.ips.iter().map(|ip| SocketAddr::new(*ip, t.port))).collect())
    }

    /// PTR answers for an address.
    pub async fn names_of(&self, ip: IpAddr) -> Result<BTreeSet<String>> {
        let name = hickory_resolver::proto::rr::Name::from(ip).to_string();
        let answers = self.lookup(&name, RecordType::PTR).await?;
        Ok(answers
            .iter()
            .filter_map(|data| if let RData::PTR(ptr) = data { Some(ptr.0.to_string()) } else { None })
            .collect())
    }

    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Vec<RData>> {
        match self.resolver.lookup(name, kind).await {
            Ok(lookup) => Ok(lookup.answers().iter().map(|record| record.data.clone()).collect()),
            Err(error) if no_records(&error) => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("cannot look up {kind} {name}")),
        }
    }
}

fn no_records(error: &NetError) -> bool {
    error.is_no_records_found() || error.is_nx_domain()
}
