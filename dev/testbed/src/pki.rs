//! Keys and certificates of one bed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

/// A certificate authority that lives as long as the bed.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Authority {
    pub fn create(dir: &Path) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "twinspan test bed");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("ca.crt"), issuer.pem())?;
        Ok(Self { issuer, dir: dir.to_owned() })
    }

    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Writes `<name>.crt` and `<name>.key`; for servers and clients alike.
    pub fn issue(&self, name: &str, dns: &[&str], ips: &[IpAddr]) -> Result<(PathBuf, PathBuf)> {
        self.issue_for(name, dns, ips, None)
    }

    /// The certificate and the key that were issued under a name.
    pub fn files(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.dir.join(format!("{name}.crt")), self.dir.join(format!("{name}.key")))
    }

    /// The same, valid for this long from now, or for ever.
    pub fn issue_for(
        &self,
        name: &str,
        dns: &[&str],
        ips: &[IpAddr],
        valid: Option<Duration>,
    ) -> Result<(PathBuf, PathBuf)> {
        let mut params = CertificateParams::new(dns.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>())?;
        params.subject_alt_names.extend(ips.iter().map(|ip| SanType::IpAddress(*ip)));
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(valid) = valid {
            params.not_after = (SystemTime::now() + valid).into();
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let files = self.files(name);
        std::fs::write(&files.0, certificate.pem())?;
        std::fs::write(&files.1, key.serialize_pem())?;
        Ok(files)
    }

    /// Writes `<name>.key` and `<name>.pub`, for signing service account tokens.
    pub fn key_pair(&self, name: &str) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let files = (self.dir.join(format!("{name}.key")), self.dir.join(format!("{name}.pub")));
        std::fs::write(&files.0, key.serialize_pem())?;
        std::fs::write(&files.1, key.public_key_pem())?;
        Ok(files)
    }
}
