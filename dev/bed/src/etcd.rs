//! One etcd, as the store of the control plane or as a registry.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{Client, ConnectOptions, GetOptions, PutOptions};

use crate::part::Part;
use crate::{eventually, namespace};

const PORT: u16 = 2379;

/// A single etcd member without TLS.
#[derive(Debug)]
pub struct Etcd {
    part: Part,
    endpoint: String,
    data: PathBuf,
}

impl Etcd {
    /// Starts it without waiting for it.
    pub(crate) fn spawn(name: &str, dir: &Path, ip: Ipv4Addr) -> Result<Self> {
        let data = dir.join(name);
        let client = format!("http://{ip}:{PORT}");
        let peer = format!("http://{ip}:{}", PORT + 1);
        let args: Vec<String> = [
            "etcd",
            "--name=bed",
            &format!("--data-dir={}", data.display()),
            "--log-level=warn",
            &format!("--listen-client-urls={client}"),
            &format!("--advertise-client-urls={client}"),
            &format!("--listen-peer-urls={peer}"),
            &format!("--initial-advertise-peer-urls={peer}"),
            &format!("--initial-cluster=bed={peer}"),
            // Nothing here outlives the machine; no test pulls the plug of the disk.
            "--unsafe-no-fsync",
        ]
        .map(ToOwned::to_owned)
        .into();
        let part = Part::start(name, dir, &namespace::binary("controlplane")?, &args, &[])?;
        Ok(Self { part, endpoint: client, data })
    }

    pub async fn ready(&self) -> Result<()> {
        eventually("etcd answers", Duration::from_secs(30), || async {
            self.part.check_running()?;
            self.client().await?.status().await?;
            Ok(())
        })
        .await
    }

    pub fn part(&self) -> &Part {
        &self.part
    }

    /// Client URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Starts it again with what it had on disk.
    pub async fn start_again(&self) -> Result<()> {
        self.part.start_again()?;
        self.ready().await
    }

    /// Starts it again with nothing on disk: another cluster, as after a lost volume.
    pub async fn start_empty(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.data)?;
        self.start_again().await
    }

    pub async fn client(&self) -> Result<Client> {
        let options =
            ConnectOptions::new().with_connect_timeout(Duration::from_secs(2)).with_timeout(Duration::from_secs(5));
        Client::connect([&self.endpoint], Some(options)).await.context("cannot connect to etcd")
    }

    /// Puts a record on a lease of its own, as a program that nobody keeps alive.
    pub async fn put_leased(&self, key: &str, value: &str, ttl_seconds: i64) -> Result<i64> {
        let mut client = self.client().await?;
        let lease = client.lease_grant(ttl_seconds, None).await?.id();
        client.put(key, value, Some(PutOptions::new().with_lease(lease))).await?;
        Ok(lease)
    }

    pub async fn put(&self, key: &str, value: &str) -> Result<()> {
        self.client().await?.put(key, value, None).await?;
        Ok(())
    }

    pub async fn delete(&self, key: &str) -> Result<()> {
        self.client().await?.delete(key, None).await?;
        Ok(())
    }

    /// Everything under a prefix: value, `mod_revision` and lease by key.
    pub async fn dump(&self, prefix: &str) -> Result<BTreeMap<String, (String, i64, i64)>> {
        let mut client = self.client().await?;
        let response = client.get(prefix, Some(GetOptions::new().with_prefix())).await?;
        response
            .kvs()
            .iter()
            .map(|kv| {
                let key = String::from_utf8_lossy(kv.key()).into_owned();
                let value = String::from_utf8_lossy(kv.value()).into_owned();
                Ok((key, (value, kv.mod_revision(), kv.lease())))
            })
            .collect()
    }
}
