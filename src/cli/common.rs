//! The part that the commands for people share: the way to the cluster, the wait for the views, the output, and the
//! exit code.
//!
//! Owns the errors that end a command with exit code 1. Refuses to know a single command.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use kube::Client;

use super::config::{ConfigError, config};
use super::fail::fail;
use crate::tools::approve::ApproveError;
use crate::tools::doctor::SettingsError;
use crate::tools::lookup::LookupError;
use crate::tools::owned::{Owned, sees_everything};
use crate::tools::parity::GatherError;
use crate::tools::print::{Output, PrintError};
use crate::tools::report::ArchiveError;
use crate::tools::viewer::{Unsynced, Viewer};

/// How to reach the cluster.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Kubeconfig file; without one the default kubeconfig, or the pod's ServiceAccount
    #[arg(long, env = "TWINSPAN_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; without one its current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The operator's namespace, where its Lease and the Secrets of ServiceRegistries are
    #[arg(long, env = "TWINSPAN_NAMESPACE", default_value = "twinspan-system", value_name = "NAMESPACE")]
    pub operator_namespace: String,
}

/// A connection on which nothing was read for longer is dead; a quiet watch lasts a minute.
const SILENCE: Duration = Duration::from_secs(70);

/// A way to the cluster.
pub struct Cluster {
    pub client: Client,
    /// The namespace of the context, or of the pod, for objects that are named without one.
    pub namespace: String,
}

impl Cluster {
    /// The view of one namespace, where this account may not list all that an operator lists.
    pub async fn owned(&self, operator_namespace: &str, namespace: Option<&str>) -> Result<Option<Owned>, Error> {
        if sees_everything(&self.client, operator_namespace).await.map_err(Box::new)? {
            return Ok(None);
        }
        Ok(Some(Owned::read(&self.client, namespace.unwrap_or(&self.namespace)).await?))
    }
}

impl Common {
    pub async fn reach(&self) -> Result<Cluster, Error> {
        let mut config = config(self.kubeconfig.as_deref(), self.context.as_deref()).await?;
        // A connection that fell silent must not keep a command for ever.
        (config.read_timeout, config.reset_reader_on_write) = (Some(SILENCE), true);
        let namespace = config.default_namespace.clone();
        Ok(Cluster { client: Client::try_from(config).map_err(Box::new)?, namespace })
    }
}

/// The arguments that commands with the view of the operator share.
#[derive(Debug, clap::Args)]
pub struct Looking {
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// How long to wait for the cluster and the registries, in seconds
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    within: u64,
    #[command(flatten)]
    pub common: Common,
}

impl Looking {
    /// Waits until everything is known, or the time is up. The second value has the missing parts.
    pub async fn look(&self, client: &Client) -> (Viewer, Vec<Unsynced>) {
        let viewer = Viewer::start(client, &self.common.operator_namespace);
        let missing = viewer.wait_for_sync(Duration::from_secs(self.within)).await;
        (viewer, missing)
    }
}

/// The reason why a command ended with exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot make a Kubernetes client: {0}")]
    Client(#[from] Box<kube::Error>),
    #[error("cannot read the system's DNS configuration: {0}; say which server to ask with --dns")]
    Resolver(hickory_resolver::net::NetError),
    #[error(transparent)]
    Reach(#[from] LookupError),
    #[error(transparent)]
    Gather(#[from] GatherError),
    #[error(transparent)]
    Approve(#[from] ApproveError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    EtcdSettings(#[from] SettingsError),
    #[error(transparent)]
    Print(#[from] PrintError),
    #[error("{0}")]
    Usage(&'static str),
    #[error("{0}; see --within, and twinspan doctor")]
    Unseen(String),
}

/// Runs a command and returns its exit code.
pub fn run(command: impl Future<Output = Result<ExitCode, Error>>) -> ExitCode {
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(command).unwrap_or_else(|error| fail(&error)),
        Err(error) => fail(&error),
    }
}
