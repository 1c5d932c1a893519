//! The way to an etcd that no ServiceRegistry names, for `doctor --etcd`.
//!
//! Owns its flags. Refuses to read files and to connect.

use std::path::PathBuf;

use crate::tools::doctor::{EtcdSettings, SettingsError};

/// An etcd by itself.
#[derive(Debug, clap::Args)]
pub struct EtcdArgs {
    /// Check this etcd by itself, without a cluster; may be repeated for its members
    #[arg(long, value_name = "URL")]
    etcd: Vec<String>,
    /// The certificate authority of etcd, PEM; without one the system's
    #[arg(long, value_name = "FILE", requires = "etcd")]
    ca: Option<PathBuf>,
    /// The client's certificate, PEM
    #[arg(long, value_name = "FILE", requires_all = ["etcd", "key"])]
    cert: Option<PathBuf>,
    /// The key of the client's certificate, PEM
    #[arg(long, value_name = "FILE", requires_all = ["etcd", "cert"])]
    key: Option<PathBuf>,
    /// The name in etcd's certificate, where the URL has another one
    #[arg(long, value_name = "NAME", requires = "etcd")]
    server_name: Option<String>,
    /// The user of etcd
    #[arg(long, value_name = "NAME", requires_all = ["etcd", "password_file"])]
    etcd_user: Option<String>,
    /// A file with the password of the user; a newline at its end does not count
    #[arg(long, value_name = "FILE", requires_all = ["etcd", "etcd_user"])]
    password_file: Option<PathBuf>,
}

impl EtcdArgs {
    /// The settings of the connection; `None` if a cluster is meant.
    pub fn settings(&self) -> Option<Result<EtcdSettings, SettingsError>> {
        let pair = |a: &Option<PathBuf>, b: &Option<PathBuf>| a.clone().zip(b.clone());
        let user = self.etcd_user.clone().zip(self.password_file.clone());
        let (client, name) = (pair(&self.cert, &self.key), self.server_name.clone());
        (!self.etcd.is_empty()).then(|| EtcdSettings::read(&self.etcd, self.ca.as_deref(), client, name, user))
    }
}
