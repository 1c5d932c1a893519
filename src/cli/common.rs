//! The part that the commands for people share: the way to the cluster, the wait for the views, the output, and the
//! exit code.
//!
//! Owns the errors that end a command with exit code 1. Refuses to know a single command.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::StatusCode;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use twinspan_core::model::ServiceKey;

use super::config::{Access, CLUSTER, ConfigError, config};
use super::duration::duration;
use super::fail::fail;
use super::networks::NetworkArgs;
use super::plugin;
use super::waiting::told;
use crate::api::RegisteredService;
use crate::causes::of_kube;
use crate::tools::approve::ApproveError;
use crate::tools::doctor::SettingsError;
use crate::tools::forward::ForwardError;
use crate::tools::lookup::{LookupError, reading};
use crate::tools::owned::{Owned, sees_everything};
use crate::tools::parity::{DnsError, GatherError};
use crate::tools::print::PrintError;
use crate::tools::report::ArchiveError;
use crate::tools::status::Selection;
use crate::tools::viewer::{AskError, Unsynced, Viewer};

/// How to reach the cluster, and where the operator is in it.
#[derive(Debug, clap::Args)]
pub struct Common {
    #[command(flatten)]
    pub access: Access,
    /// The operator's namespace, where its Lease and the Secrets of ServiceRegistries are
    #[arg(
        long,
        env = "TWINSPAN_NAMESPACE",
        default_value = "twinspan-system",
        value_name = "NAMESPACE",
        help_heading = CLUSTER
    )]
    pub operator_namespace: String,
    /// The socket of the operator in this pod, which is asked in place of a view of the command's own
    #[arg(long, env = SOCKET, value_name = "FILE", help_heading = CLUSTER)]
    socket: Option<OsString>,
}

/// The variable with the path of the operator's socket, for the operator and for commands in its pod.
pub const SOCKET: &str = "TWINSPAN_SOCKET";

/// A connection on which nothing was read for longer is dead; a quiet watch lasts a minute.
const SILENCE: Duration = Duration::from_secs(70);
/// A person waits less long for a connection than an operator.
const CONNECTED: Duration = Duration::from_secs(10);

/// A way to the cluster.
pub struct Cluster {
    pub client: Client,
    /// The namespace of the context, or of the pod, for objects that are named without one.
    pub namespace: String,
    /// The URL of the API server.
    pub server: String,
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
    /// The socket, unless the cluster of some kubeconfig is meant, which need not be the operator's.
    pub fn socket(&self) -> Option<&Path> {
        let path = self.socket.as_deref().filter(|path| !path.is_empty()).map(Path::new);
        path.filter(|_| self.access.is_this_cluster())
    }

    /// A client for an API server that answers. One that does not ends every command here, at once and in one sentence.
    pub async fn reach(&self) -> Result<Cluster, Error> {
        self.answering(self.connect()?).await
    }

    /// The same for a command that goes on: kube renews the credentials of a plugin.
    pub async fn reach_for_long(&self) -> Result<Cluster, Error> {
        let config = config(&self.access)?;
        self.answering(self.client(config)?).await
    }

    async fn answering(&self, cluster: Cluster) -> Result<Cluster, Error> {
        let Cluster { client, server, .. } = &cluster;
        told(answers(client, server), || format!("the API server at {server}")).await?;
        Ok(cluster)
    }

    /// A client, without a request.
    pub fn connect(&self) -> Result<Cluster, Error> {
        let mut config = config(&self.access)?;
        // kube would run it once for the certificate, once for the token and once for the end of both.
        plugin::run_once(&mut config.auth_info).map_err(ConfigError::Plugin)?;
        self.client(config)
    }

    fn client(&self, mut config: kube::Config) -> Result<Cluster, Error> {
        if self.access.request_timeout.is_none() {
            // A connection that fell silent must not keep a command for ever.
            (config.connect_timeout, config.read_timeout) = (Some(CONNECTED), Some(SILENCE));
        }
        config.reset_reader_on_write = true;
        let namespace = config.default_namespace.clone();
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config).map_err(|error| Error::Client(of_kube(&error)))?;
        Ok(Cluster { client, namespace, server })
    }
}

/// Any answer will do but one that says who the person is not.
async fn answers(client: &Client, server: &str) -> Result<(), Error> {
    let request = http::Request::get("/version").body(kube::client::Body::empty());
    let away = |text: String| Error::Away { server: server.to_owned(), text };
    let response = client.send(request.map_err(|error| away(error.to_string()))?).await;
    match response.map_err(|error| away(of_kube(&error)))?.status() {
        StatusCode::UNAUTHORIZED => Err(Error::Unauthorized { server: server.to_owned() }),
        _ => Ok(()),
    }
}

/// The choice of RegisteredServices.
#[derive(Clone, Debug, clap::Args)]
pub struct Chosen {
    /// Only RegisteredServices of this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// RegisteredServices of all namespaces, as without -n
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only RegisteredServices with these labels, such as app=user,tier!=test
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
}

impl Chosen {
    pub fn selection(&self) -> Selection {
        let namespace = self.namespace.clone().filter(|_| !self.all_namespaces);
        Selection { namespace, labels: self.selector.clone() }
    }

    /// The RegisteredServices with the labels, of all namespaces or one; absent if none are asked for. The views of the
    /// operator have no labels.
    pub async fn labelled(
        &self,
        client: &Client,
        namespace: Option<&str>,
    ) -> Result<Option<BTreeSet<ServiceKey>>, Error> {
        let Some(labels) = &self.selector else { return Ok(None) };
        let all: Api<RegisteredService> = match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let found = reading("RegisteredServices", all.list(&ListParams::default().labels(labels)).await)?;
        let key =
            |object: &RegisteredService| ServiceKey::new(object.namespace().unwrap_or_default(), object.name_any());
        Ok(Some(found.items.iter().map(key).collect()))
    }
}

/// The arguments that commands with the view of the operator share.
#[derive(Debug, clap::Args)]
pub struct Looking {
    /// How long to wait for the cluster and the registries, such as 20s or 1m
    #[arg(long, default_value = "20s", value_name = "DURATION", value_parser = duration)]
    within: Duration,
    #[command(flatten)]
    networks: NetworkArgs,
    #[command(flatten)]
    pub common: Common,
}

impl Looking {
    /// Waits until everything is known, or the time is up. The second value has the missing parts.
    pub async fn look(&self, client: &Client) -> Result<(Viewer, Vec<Unsynced>), AskError> {
        let (namespace, networks) = (&self.common.operator_namespace, self.networks.named());
        let viewer = Viewer::start(client, namespace, &networks, self.common.socket());
        let missing = told(viewer.wait_for_sync(self.within), || viewer.awaited()).await?;
        Ok((viewer, missing))
    }
}

/// The reason why a command ended with exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot make a Kubernetes client: {0}")]
    Client(String),
    #[error("cannot reach the API server at {server}: {text}")]
    Away { server: String, text: String },
    #[error("the API server at {server} does not accept the credentials (401 Unauthorized); log in again")]
    Unauthorized { server: String },
    #[error("cannot ask the API server: {}", of_kube(.0))]
    Kube(Box<kube::Error>),
    #[error(transparent)]
    Dns(#[from] DnsError),
    #[error(transparent)]
    Reach(#[from] LookupError),
    #[error(transparent)]
    Gather(#[from] GatherError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Approve(#[from] ApproveError),
    #[error(transparent)]
    Forward(#[from] ForwardError),
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

impl From<Box<kube::Error>> for Error {
    fn from(error: Box<kube::Error>) -> Self {
        Self::Kube(error)
    }
}

/// Runs a command and returns its exit code.
pub fn run(command: impl Future<Output = Result<ExitCode, Error>>) -> ExitCode {
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => match runtime.block_on(command) {
            Ok(code) => code,
            // A reader that stopped has all that it wants: `| head -1`.
            Err(Error::Print(PrintError::Closed)) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Err(error) => fail(&error),
    }
}
