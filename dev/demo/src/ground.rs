//! The ground of the story: an API server, a registry, cluster DNS, and the ways to use them.
//!
//! Owns the choice between real servers and embedded ones. Refuses to know the story.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use etcd_client::GetOptions;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;
use twinspan_testbed::{Bed, Dns, Twinspan, TwinspanOptions};

use crate::embedded::Embedded;

/// The parts that the story always needs: programs of their own, as users run them.
pub const PARTS: [&str; 2] = ["coredns", "interop"];

pub enum Ground {
    /// etcd twice, kube-apiserver and kube-controller-manager as processes, with RBAC.
    Real(Box<Bed>),
    /// The servers of the simulation in this process.
    Embedded(Box<Embedded>),
}

impl Ground {
    pub async fn start(dir: &Path, real: bool) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(if real {
            Self::Real(Box::new(Bed::start(dir).await?))
        } else {
            Self::Embedded(Box::new(Embedded::start(dir).await?))
        })
    }

    /// The servers in one line.
    pub fn servers(real: bool) -> &'static str {
        if real { "etcd twice, kube-apiserver, kube-controller-manager, CoreDNS" } else { "embedded servers, CoreDNS" }
    }

    pub fn dir(&self) -> &Path {
        match self {
            Self::Real(bed) => bed.dir(),
            Self::Embedded(servers) => servers.dir(),
        }
    }

    /// An administrator's client.
    pub fn client(&self) -> Client {
        match self {
            Self::Real(bed) => bed.client(),
            Self::Embedded(servers) => servers.client(),
        }
    }

    pub fn dns(&self) -> &Dns {
        match self {
            Self::Real(bed) => &bed.dns,
            Self::Embedded(servers) => servers.dns(),
        }
    }

    /// The endpoint of the registry.
    pub fn registry(&self) -> &str {
        match self {
            Self::Real(bed) => bed.registry.endpoint(),
            Self::Embedded(servers) => servers.registry(),
        }
    }

    /// Runs Twinspan: as its own ServiceAccount where there is RBAC.
    pub fn start_twinspan(&self, binary: &str) -> Result<Twinspan> {
        let options = TwinspanOptions::default();
        match self {
            Self::Real(bed) => bed.start_twinspan(binary, &options),
            Self::Embedded(servers) => {
                let ip = Ipv4Addr::new(10, 77, 0, 5);
                Twinspan::start(servers.dir(), ip, binary, servers.kubeconfig(), &options)
            }
        }
    }

    /// Lets other terminals in (`dev/testbed/run exec`): the path of the file that says how. The embedded servers come
    /// without kubectl and etcdctl, so nobody is let in.
    pub fn write_access(&self) -> Result<Option<PathBuf>> {
        match self {
            Self::Real(bed) => bed.write_access().map(Some),
            Self::Embedded(_) => Ok(None),
        }
    }

    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        Api::all(self.client()).create(&PostParams::default(), &namespace).await?;
        Ok(())
    }

    /// `mod_revision` of every key with this prefix.
    pub async fn records(&self, prefix: &str) -> Result<BTreeMap<String, i64>> {
        let mut client = etcd_client::Client::connect([self.registry()], None).await?;
        let response = client.get(prefix, Some(GetOptions::new().with_prefix())).await?;
        let records = response.kvs().iter();
        Ok(records.map(|kv| (String::from_utf8_lossy(kv.key()).into_owned(), kv.mod_revision())).collect())
    }
}
