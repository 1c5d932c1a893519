//! One etcd, as the store of the control plane or as a registry.
//!
//! Its faults are in [`faults`], its certificates are in [`tls`], and a [`proxy`] or a [`lossy`] one may stand
//! before it.

mod data;
mod faults;
mod lossy;
mod proxy;
mod requests;
mod tls;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{Certificate, Client, ConnectOptions, GetOptions, Identity, PutOptions, TlsOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::controlplane::NEWEST;
use crate::network::Place;
use crate::part::Part;
use crate::{eventually, namespace};

use data::Data;

pub use lossy::LossyProxy;
pub use proxy::GrpcProxy;
pub use requests::{Request, requests};
pub use tls::Tls;

const PORT: u16 = 2379;

/// An etcd of one member, or one member of several.
#[derive(Debug)]
pub struct Etcd {
    part: Part,
    endpoint: String,
    /// The URL of the only member for its peers.
    peer: String,
    /// Dropped after the process.
    data: Data,
    tls: Option<TlsOptions>,
    /// The administrator, once authentication is on.
    user: OnceLock<(String, String)>,
}

impl Etcd {
    /// Starts it without waiting for it.
    pub fn spawn(name: &str, place: impl Into<Place>, ip: Ipv4Addr, flags: &[String]) -> Result<Self> {
        Self::spawn_with(name, place.into(), ip, "http", flags)
    }

    /// The same of another release: the part that has it.
    pub(crate) fn spawn_release(release: &str, name: &str, dir: &Path, ip: Ipv4Addr) -> Result<Self> {
        Self::spawn_of(release, name, dir.into(), ip, "http", &[])
    }

    /// Starts it with TLS, for clients with a certificate only.
    pub(crate) fn spawn_tls(name: &str, dir: &Path, ip: Ipv4Addr) -> Result<(Self, Tls)> {
        let tls = Tls::create(&dir.join(format!("{name}-pki")), ip)?;
        let mut etcd = Self::spawn_with(name, dir.into(), ip, "https", &tls.flags())?;
        let (cert, key) = tls.client_certificate("administrator", None)?;
        let ca = Certificate::from_pem(tls.ca()?);
        etcd.tls = Some(TlsOptions::new().ca_certificate(ca).identity(Identity::from_pem(cert, key)));
        Ok((etcd, tls))
    }

    /// Starts one member of several, which answers once most of them run.
    pub fn spawn_member(
        name: &str,
        place: impl Into<Place>,
        ip: Ipv4Addr,
        members: &[(String, Ipv4Addr)],
        more: &[&str],
    ) -> Result<Self> {
        let peers: Vec<String> = members.iter().map(|(name, ip)| format!("{name}=http://{ip}:{}", PORT + 1)).collect();
        // etcd uses the last of repeated flags.
        let mut flags = vec![
            format!("--name={name}"),
            format!("--initial-cluster={}", peers.join(",")),
            // Members that get no processor for a second must not cause an election.
            "--heartbeat-interval=300".to_owned(),
            "--election-timeout=3000".to_owned(),
        ];
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        Self::spawn_with(name, place.into(), ip, "http", &flags)
    }

    fn spawn_with(name: &str, place: Place, ip: Ipv4Addr, scheme: &str, flags: &[String]) -> Result<Self> {
        Self::spawn_of(NEWEST, name, place, ip, scheme, flags)
    }

    fn spawn_of(release: &str, name: &str, place: Place, ip: Ipv4Addr, scheme: &str, flags: &[String]) -> Result<Self> {
        let data = place.dir().join(name);
        let client = format!("{scheme}://{ip}:{PORT}");
        let peer = format!("http://{ip}:{}", PORT + 1);
        let mut args: Vec<String> = [
            "etcd",
            "--name=bed",
            &format!("--data-dir={}", data.display()),
            "--log-level=warn",
            &format!("--listen-client-urls={client}"),
            &format!("--advertise-client-urls={client}"),
            &format!("--listen-peer-urls={peer}"),
            &format!("--initial-advertise-peer-urls={peer}"),
            &format!("--initial-cluster=bed={peer}"),
            // The data need not survive the machine.
            "--unsafe-no-fsync",
        ]
        .map(ToOwned::to_owned)
        .into();
        args.extend_from_slice(flags);
        let part = Part::start(name, place, &namespace::binary(release)?, &args, &[])?;
        Ok(Self { part, endpoint: client, peer, data: Data::new(data), tls: None, user: OnceLock::new() })
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

    /// The directory of its data.
    pub fn data(&self) -> &Path {
        self.data.dir()
    }

    /// Client URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub async fn client(&self) -> Result<Client> {
        let mut options =
            ConnectOptions::new().with_connect_timeout(Duration::from_secs(10)).with_timeout(Duration::from_secs(20));
        if let Some(tls) = &self.tls {
            options = options.with_tls(tls.clone());
        }
        if let Some((name, password)) = self.user.get() {
            options = options.with_user(name, password);
        }
        Client::connect([&self.endpoint], Some(options)).await.context("cannot connect to etcd")
    }

    /// Puts a record on a lease of its own, without keep-alives.
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

    /// The revision at which a key was created; it changes when the key is deleted and put again.
    pub async fn created_at(&self, key: &str) -> Result<i64> {
        let response = self.client().await?.get(key, None).await?;
        Ok(response.kvs().first().with_context(|| format!("no key {key}"))?.create_revision())
    }

    /// A counter of etcd's own metrics.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let mut stream = TcpStream::connect(self.endpoint.trim_start_matches("http://")).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: etcd\r\n\r\n").await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no metric {name}"))?.trim().parse()?)
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
