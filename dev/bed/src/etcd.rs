//! One etcd, as the store of the control plane or as a registry.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{
    Certificate, Client, ConnectOptions, DeleteOptions, GetOptions, Identity, Permission, PutOptions, TlsOptions, Txn,
    TxnOp,
};

use crate::part::Part;
use crate::pki::Authority;
use crate::{eventually, namespace};

const PORT: u16 = 2379;

/// A single etcd member.
#[derive(Debug)]
pub struct Etcd {
    part: Part,
    endpoint: String,
    data: PathBuf,
    tls: Option<TlsOptions>,
    user: Option<(String, String)>,
}

/// What clients of an etcd with TLS need.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub ca: String,
    pub cert: String,
    pub key: String,
}

impl Etcd {
    /// Starts it without waiting for it.
    pub(crate) fn spawn(name: &str, dir: &Path, ip: Ipv4Addr) -> Result<Self> {
        Self::spawn_with(name, dir, ip, "http", &[])
    }

    /// Starts it with TLS, for clients with a certificate only, and returns what such a client needs.
    pub(crate) fn spawn_tls(name: &str, dir: &Path, ip: Ipv4Addr) -> Result<(Self, ClientTls)> {
        let pki = Authority::create(&dir.join(format!("{name}-pki")))?;
        let (cert, key) = pki.issue("etcd", &["etcd.bed"], &[ip.into()])?;
        // etcd takes the common name of a client's certificate for a user where it is asked to.
        let (client_cert, client_key) = pki.issue("client", &["client.bed"], &[])?;
        let flags = [
            format!("--cert-file={}", cert.display()),
            format!("--key-file={}", key.display()),
            "--client-cert-auth".to_owned(),
            format!("--trusted-ca-file={}", pki.ca_file().display()),
        ];
        let mut etcd = Self::spawn_with(name, dir, ip, "https", &flags)?;
        let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
        let client = ClientTls { ca: read(&pki.ca_file())?, cert: read(&client_cert)?, key: read(&client_key)? };
        etcd.tls = Some(
            TlsOptions::new()
                .ca_certificate(Certificate::from_pem(&client.ca))
                .identity(Identity::from_pem(&client.cert, &client.key)),
        );
        Ok((etcd, client))
    }

    fn spawn_with(name: &str, dir: &Path, ip: Ipv4Addr, scheme: &str, flags: &[String]) -> Result<Self> {
        let data = dir.join(name);
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
            // Nothing here outlives the machine; no test pulls the plug of the disk.
            "--unsafe-no-fsync",
        ]
        .map(ToOwned::to_owned)
        .into();
        args.extend_from_slice(flags);
        let part = Part::start(name, dir, &namespace::binary("controlplane")?, &args, &[])?;
        Ok(Self { part, endpoint: client, data, tls: None, user: None })
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

    /// Turns authentication on: `root` may do everything, and `name` what is below the prefixes.
    pub async fn require_password(&mut self, name: &str, password: &str, prefixes: &[&str]) -> Result<()> {
        let mut client = self.client().await?;
        client.user_add("root", "root", None).await?;
        client.user_grant_role("root", "root").await?;
        client.role_add("sync").await?;
        for prefix in prefixes {
            client.role_grant_permission("sync", Permission::read_write(*prefix).with_prefix()).await?;
        }
        client.user_add(name, password, None).await?;
        client.user_grant_role(name, "sync").await?;
        client.auth_enable().await?;
        self.user = Some(("root".to_owned(), "root".to_owned()));
        Ok(())
    }

    /// Lets a user do more.
    pub async fn permit(&self, prefix: &str) -> Result<()> {
        let mut client = self.client().await?;
        client.role_grant_permission("sync", Permission::read_write(prefix).with_prefix()).await?;
        Ok(())
    }

    /// Gives a user another password.
    pub async fn change_password(&self, name: &str, password: &str) -> Result<()> {
        self.client().await?.user_change_password(name, password).await?;
        Ok(())
    }

    pub async fn client(&self) -> Result<Client> {
        let mut options =
            ConnectOptions::new().with_connect_timeout(Duration::from_secs(2)).with_timeout(Duration::from_secs(5));
        if let Some(tls) = &self.tls {
            options = options.with_tls(tls.clone());
        }
        if let Some((name, password)) = &self.user {
            options = options.with_user(name, password);
        }
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

    /// Ends a lease, and with it what hangs on it: what etcd does when nobody keeps it alive.
    pub async fn revoke(&self, lease: i64) -> Result<()> {
        self.client().await?.lease_revoke(lease).await?;
        Ok(())
    }

    pub async fn delete(&self, key: &str) -> Result<()> {
        self.client().await?.delete(key, None).await?;
        Ok(())
    }

    /// What `etcdctl del --prefix` does.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<()> {
        self.client().await?.delete(prefix, Some(DeleteOptions::new().with_prefix())).await?;
        Ok(())
    }

    /// Deletes several keys in one revision.
    pub async fn delete_at_once(&self, keys: &[String]) -> Result<()> {
        let deletes: Vec<TxnOp> = keys.iter().map(|key| TxnOp::delete(key.as_str(), None)).collect();
        self.client().await?.txn(Txn::new().and_then(deletes)).await?;
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
