//! A second cluster with the same names and the same registry, which imports everything.
//!
//! Owns its parts. No fault touches them, but all faults of the registry reach them. Refuses to have pods.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use kube::Client;
use serde_json::json;
use twinspan_testbed::{
    ControlPlane, Host, Kind, OPERATOR_NAMESPACE, Places, Twinspan, TwinspanOptions, apply_file, twinspan_manifest,
};

use crate::bed;

#[derive(Debug)]
pub struct Second {
    pub cluster: ControlPlane,
    pub replica: Twinspan,
    /// The address of the replica.
    pub address: Ipv4Addr,
}

impl Second {
    /// Starts it with files below `dir`, and a registry at these URLs.
    pub async fn start(dir: &Path, binary: &str, endpoints: &[String]) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let names = ["store-b", "api-b", "kcm-b", "replica-b"];
        let mut hosts = BTreeMap::new();
        for (name, last) in names.into_iter().zip(1..) {
            hosts.insert(name, Host::create(name, Ipv4Addr::new(10, 77, 4, last))?);
        }
        let host = |name: &str| hosts.get(name).with_context(|| format!("no host {name}"));
        let places = Places {
            etcd: host("store-b")?.place(dir),
            apiserver: host("api-b")?.place(dir),
            controller_manager: host("kcm-b")?.place(dir),
        };
        let (api, store) = (host("api-b")?.address(), host("store-b")?.address());
        let cluster = ControlPlane::start_on(dir, places, api, store, Kind::WITHOUT_NODES).await?;
        apply_file(&cluster.client, &twinspan_manifest()).await?;
        cluster.controllers_ready().await?;
        let operator = cluster.account(dir, OPERATOR_NAMESPACE, "twinspan").await?;
        let replica = host("replica-b")?;
        let (place, address) = (replica.place(dir), replica.address());
        let replica = Twinspan::start(place, address, binary, &operator, &TwinspanOptions::default())?;
        bed::create_objects(&cluster.client, endpoints, &json!({"otherClusters": "All"})).await?;
        replica.ready().await?;
        Ok(Self { cluster, replica, address })
    }

    pub fn client(&self) -> Client {
        self.cluster.client.clone()
    }
}
