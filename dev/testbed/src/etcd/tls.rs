//! The certificates of an etcd with TLS, and those of its clients.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::pki::Authority;

/// The certificates of an etcd with TLS, and the authority for its clients.
#[derive(Debug)]
pub struct Tls {
    pki: Authority,
    ip: Ipv4Addr,
}

const SERVER: &str = "etcd";

impl Tls {
    pub(super) fn create(dir: &Path, ip: Ipv4Addr) -> Result<Self> {
        let tls = Self { pki: Authority::create(dir)?, ip };
        tls.replace_server_certificate(None)?;
        Ok(tls)
    }

    /// Arguments of etcd.
    pub(super) fn flags(&self) -> [String; 4] {
        let (cert, key) = self.pki.files(SERVER);
        [
            format!("--cert-file={}", cert.display()),
            format!("--key-file={}", key.display()),
            "--client-cert-auth".to_owned(),
            format!("--trusted-ca-file={}", self.pki.ca_file().display()),
        ]
    }

    /// The certificate of the authority, PEM.
    pub fn ca(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.pki.ca_file())?)
    }

    /// Certificate and key of a client, PEM, valid for this long or for ever. etcd can take the common name for a user.
    pub fn client_certificate(&self, name: &str, valid: Option<Duration>) -> Result<(String, String)> {
        let (cert, key) = self.pki.issue_for(name, &[], &[], valid)?;
        let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
        Ok((read(&cert)?, read(&key)?))
    }

    /// etcd reads its own certificate again for each connection.
    pub fn replace_server_certificate(&self, valid: Option<Duration>) -> Result<()> {
        self.pki.issue_for(SERVER, &["etcd.bed"], &[self.ip.into()], valid)?;
        Ok(())
    }
}
