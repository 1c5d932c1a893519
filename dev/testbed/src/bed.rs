//! One control plane with its DNS and a registry, with Twinspan's CRDs and RBAC in place.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::controlplane::{ControlPlane, Kind, NEWEST};
use crate::dns::Dns;
use crate::etcd::{Etcd, GrpcProxy, Tls};
use crate::namespace::Access;
use crate::twinspan::{Options, Twinspan};
use crate::{Kubeconfig, access, address, deployment, namespace};

/// The namespace of Twinspan's ServiceAccount, Lease and Secrets.
pub const OPERATOR_NAMESPACE: &str = "twinspan-system";

/// The parts (`dev/parts`) that have the releases of a bed's servers.
#[derive(Clone, Copy, Debug)]
pub struct Releases {
    pub apiserver: &'static str,
    /// The etcd of the registry.
    pub registry: &'static str,
}

impl Releases {
    pub const NEWEST: Self = Self { apiserver: NEWEST, registry: NEWEST };
}

#[derive(Debug)]
pub struct Bed {
    net: u8,
    dir: PathBuf,
    pub cluster: ControlPlane,
    pub dns: Dns,
    pub registry: Etcd,
    operator: Kubeconfig,
}

impl Bed {
    /// Starts everything below `dir`, which must not be in use by another bed.
    pub async fn start(dir: &Path) -> Result<Self> {
        Self::start_of(dir, Releases::NEWEST).await
    }

    /// The same of other releases.
    pub async fn start_of(dir: &Path, releases: Releases) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let net = address::next_bed();
        let ip = |host| Ipv4Addr::new(10, 77, net, host);
        let registry = Etcd::spawn_release(releases.registry, "registry-etcd", dir, ip(3))?;
        let kind = Kind { release: releases.apiserver, ..Kind::WITHOUT_NODES };
        let cluster = ControlPlane::start(dir, ip(1), ip(2), kind).await?;
        let client = &cluster.client;
        let dns = Dns::start(dir, ip(4), &cluster).await?;

        access::apply_file(client, &deployment::manifest()).await?;
        let operator = cluster.account(dir, OPERATOR_NAMESPACE, "twinspan").await?;
        registry.ready().await?;
        cluster.controllers_ready().await?;
        dns.ready().await?;
        Ok(Self { net, dir: dir.to_owned(), cluster, dns, registry, operator })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// An administrator's client.
    pub fn client(&self) -> Client {
        self.cluster.client.clone()
    }

    /// Another registry beside the bed's own.
    pub async fn start_registry(&self, name: &str) -> Result<Etcd> {
        self.start_registry_with(name, &[]).await
    }

    /// The same with flags of etcd.
    pub async fn start_registry_with(&self, name: &str, flags: &[&str]) -> Result<Etcd> {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let etcd = Etcd::spawn(name, &self.dir, address::next_registry(self.net), &flags)?;
        etcd.ready().await?;
        Ok(etcd)
    }

    /// The same with TLS, for clients with a certificate.
    pub async fn start_tls_registry(&self, name: &str) -> Result<(Etcd, Tls)> {
        let (etcd, tls) = Etcd::spawn_tls(name, &self.dir, address::next_registry(self.net))?;
        etcd.ready().await?;
        Ok((etcd, tls))
    }

    /// etcd's own proxy before a registry.
    pub fn start_grpc_proxy(&self, name: &str, beyond: &Etcd) -> Result<GrpcProxy> {
        GrpcProxy::start(name, &self.dir, address::next_registry(self.net), beyond)
    }

    /// A registry of three members.
    pub async fn start_three(&self, name: &str) -> Result<Vec<Etcd>> {
        let members: Vec<(String, Ipv4Addr)> =
            (0..3).map(|n| (format!("{name}-{n}"), address::next_registry(self.net))).collect();
        let spawn = |(name, ip): &(String, Ipv4Addr)| Etcd::spawn_member(name, &self.dir, *ip, &members, &[]);
        let all: Vec<Etcd> = members.iter().map(spawn).collect::<Result<_>>()?;
        for member in &all {
            member.ready().await?;
        }
        Ok(all)
    }

    /// The kubeconfig of Twinspan's ServiceAccount.
    pub fn operator(&self) -> &Kubeconfig {
        &self.operator
    }

    /// The kubeconfig of another ServiceAccount of the operator's namespace.
    pub async fn account(&self, name: &str) -> Result<Kubeconfig> {
        self.cluster.account(&self.dir, OPERATOR_NAMESPACE, name).await
    }

    /// The kubeconfig of a ServiceAccount of any namespace.
    pub async fn account_in(&self, namespace: &str, name: &str) -> Result<Kubeconfig> {
        let dir = self.dir.join(namespace);
        std::fs::create_dir_all(&dir)?;
        self.cluster.account(&dir, namespace, name).await
    }

    /// Runs a Twinspan binary as its own ServiceAccount.
    pub fn start_twinspan(&self, binary: &str, options: &Options) -> Result<Twinspan> {
        Twinspan::start(&self.dir, Ipv4Addr::new(10, 77, self.net, 5), binary, &self.operator, options)
    }

    /// The variables that kubectl, etcdctl and dig need inside the bed.
    pub fn environment(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("KUBECONFIG".to_owned(), self.cluster.admin.path.display().to_string()),
            ("ETCDCTL_ENDPOINTS".to_owned(), self.registry.endpoint().to_owned()),
            ("BED_DNS".to_owned(), self.dns.address().ip().to_string()),
        ])
    }

    /// Writes the file by which other terminals enter the bed (`dev/testbed/run exec`), and returns its path.
    pub fn write_access(&self) -> Result<PathBuf> {
        let access = Access {
            pid: namespace::outer_pid()?,
            namespaces: vec!["net".to_owned()],
            env: self.environment(),
            tools: namespace::binary("controlplane")?,
        };
        access.write("testbed")
    }

    pub async fn create_namespace(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client());
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))?;
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("cannot create namespace {name}"))?;
        Ok(())
    }
}
