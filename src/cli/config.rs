//! The way to the cluster: a kubeconfig with its context, cluster and user, or the ServiceAccount of a pod.
//!
//! Owns the choice between them, and the settings of the client that follow from it. Refuses to make a client, to know
//! the rules of proxies, which are in [`super::proxy`], and to run a plugin, which [`super::plugin`] does.
//!
//! kube's own reading of a kubeconfig compares `NO_PROXY` with the address of the proxy instead of the API server's,
//! and refuses lists that kubectl accepts, so the settings are put together here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Config;
use kube::config::{AuthInfo, Cluster, Context, ExecAuthCluster, InClusterError, Kubeconfig, KubeconfigError};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::duration::duration;
use super::plugin::PluginError;
use super::proxy::{self, ProxyError};
use crate::causes::chain;

/// The heading of these options in the help.
pub const CLUSTER: &str = "Cluster";

/// How to reach the cluster, in the words of kubectl.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Access {
    /// The kubeconfig file [default: KUBECONFIG, ~/.kube/config, or the pod's ServiceAccount]
    #[arg(long, env = "TWINSPAN_KUBECONFIG", value_name = "FILE", hide_env_values = true, global = true, help_heading = CLUSTER)]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", global = true, help_heading = CLUSTER)]
    pub context: Option<String>,
    /// The cluster of the kubeconfig [default: the context's]
    #[arg(long, value_name = "NAME", global = true, help_heading = CLUSTER)]
    pub cluster: Option<String>,
    /// The user of the kubeconfig [default: the context's]
    #[arg(long, value_name = "NAME", global = true, help_heading = CLUSTER)]
    pub user: Option<String>,
    /// Act as this user, whom the API server must let you impersonate
    #[arg(long = "as", value_name = "USER", global = true, help_heading = CLUSTER)]
    pub impersonate: Option<String>,
    /// Act as a member of this group; repeat it for several
    #[arg(long = "as-group", value_name = "GROUP", global = true, help_heading = CLUSTER)]
    pub impersonate_groups: Vec<String>,
    /// How long to wait for one answer of the API server, such as 20s; 0 waits for ever [default: 70s of silence]
    #[arg(long, value_name = "DURATION", value_parser = duration, global = true, help_heading = CLUSTER)]
    pub request_timeout: Option<Duration>,
}

impl Access {
    /// Whether no option leads away from the cluster of this pod, or to another account.
    pub fn is_this_cluster(&self) -> bool {
        let Self { kubeconfig, context, cluster, user, impersonate, impersonate_groups, request_timeout: _ } = self;
        kubeconfig.is_none()
            && [context, cluster, user, impersonate].into_iter().all(Option::is_none)
            && impersonate_groups.is_empty()
    }
}

/// The reason why there is no way to the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("no kubeconfig at {paths} ({names}); not in a cluster either")]
    Nowhere { paths: String, names: &'static str },
    #[error("no kubeconfig at {path} (--kubeconfig, TWINSPAN_KUBECONFIG)", path = path.display())]
    Missing { path: PathBuf },
    #[error("cannot read the kubeconfig {path}: {text}", path = path.display())]
    Unreadable { path: PathBuf, text: String },
    #[error("cannot use the kubeconfig: {0}")]
    Unusable(String),
    #[error("the kubeconfig names no current context; choose one with --context")]
    NoContext,
    #[error("the kubeconfig has no {kind} {name:?}; kubectl config view shows what there is")]
    Unknown { kind: &'static str, name: String },
    #[error("the server of cluster {name:?} in the kubeconfig is no URL: {text}")]
    Server { name: String, text: String },
    // One option may stand before the command and the other behind it, so the parser cannot know.
    #[error("--as-group needs --as: whom shall the API server let into the group?")]
    NobodyInGroup,
    #[error("there is no kubeconfig for --context, --cluster or --user; name one with --kubeconfig")]
    NoKubeconfig,
    #[error("cannot use the pod's ServiceAccount: {0}")]
    InCluster(#[from] InClusterError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error(transparent)]
    Plugin(#[from] PluginError),
}

/// The settings of a client: of the named file, or else of the default kubeconfig, or of the pod's ServiceAccount.
pub fn config(access: &Access) -> Result<Config, ConfigError> {
    if access.impersonate.is_none() && !access.impersonate_groups.is_empty() {
        return Err(ConfigError::NobodyInGroup);
    }
    let mut config = match read(access.kubeconfig.as_deref())? {
        Some(file) => of_file(file, access)?,
        None if [&access.context, &access.cluster, &access.user].into_iter().any(Option::is_some) => {
            return Err(ConfigError::NoKubeconfig);
        }
        None => in_cluster()?,
    };
    if let Some(user) = &access.impersonate {
        config.auth_info.impersonate = Some(user.clone());
        config.auth_info.impersonate_groups =
            (!access.impersonate_groups.is_empty()).then(|| access.impersonate_groups.clone());
    }
    if let Some(timeout) = access.request_timeout {
        let timeout = (!timeout.is_zero()).then_some(timeout);
        (config.connect_timeout, config.read_timeout, config.write_timeout) = (timeout, timeout, timeout);
    }
    Ok(config)
}

/// The names of the default kubeconfig's contexts; none if it cannot be read.
pub fn contexts() -> Vec<String> {
    let file = read(None).ok().flatten().unwrap_or_default();
    file.contexts.into_iter().map(|context| context.name).collect()
}

/// The named kubeconfig, or those of `KUBECONFIG` merged, or the default one; absent if none of these exists and this
/// is a pod. As with kubectl, a file of a list need not exist.
fn read(named: Option<&Path>) -> Result<Option<Kubeconfig>, ConfigError> {
    if let Some(path) = named {
        if !path.exists() {
            return Err(ConfigError::Missing { path: path.to_owned() });
        }
        return one(path).map(Some);
    }
    let list = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty());
    let (paths, names): (Vec<PathBuf>, _) = match list {
        Some(list) => (std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect(), NAMED),
        None => (std::env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect(), DEFAULT),
    };
    let mut found: Option<Kubeconfig> = None;
    for path in paths.iter().filter(|path| path.exists()) {
        let next = one(path)?;
        found = Some(match found {
            Some(all) => all.merge(next).map_err(|error| unreadable(path, &error))?,
            None => next,
        });
    }
    if found.is_none() && !is_pod() {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(ConfigError::Nowhere { paths: paths.join(" or "), names });
    }
    Ok(found)
}

/// Where the path of a missing kubeconfig came from.
const NAMED: &str = "KUBECONFIG, --kubeconfig";
const DEFAULT: &str = "the default; set KUBECONFIG or --kubeconfig";

/// Kubernetes tells a container of its API server by this variable.
fn is_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn one(path: &Path) -> Result<Kubeconfig, ConfigError> {
    Kubeconfig::read_from(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &KubeconfigError) -> ConfigError {
    ConfigError::Unreadable { path: path.to_owned(), text: chain(error.to_string(), error) }
}

fn in_cluster() -> Result<Config, ConfigError> {
    let mut config = Config::incluster()?;
    config.proxy_url = proxy::of_environment(&config.cluster_url)?;
    Ok(config)
}

fn of_file(file: Kubeconfig, access: &Access) -> Result<Config, ConfigError> {
    let name = access.context.clone().or(file.current_context).filter(|name| !name.is_empty());
    let context: Context = match name {
        Some(name) => {
            let found = file.contexts.into_iter().find(|one| one.name == name).and_then(|one| one.context);
            found.ok_or(ConfigError::Unknown { kind: "context", name })?
        }
        // A person who names the cluster needs no context.
        None if access.cluster.is_some() => Context::default(),
        None => return Err(ConfigError::NoContext),
    };
    let name = access.cluster.clone().unwrap_or(context.cluster);
    let found = file.clusters.into_iter().find(|one| one.name == name).and_then(|one| one.cluster);
    let cluster: Cluster = found.ok_or_else(|| ConfigError::Unknown { kind: "cluster", name: name.clone() })?;
    let mut auth_info = AuthInfo::default();
    if let Some(user) = access.user.clone().or(context.user).filter(|name| !name.is_empty()) {
        let found = file.auth_infos.into_iter().find(|one| one.name == user);
        auth_info = match found.and_then(|one| one.auth_info) {
            Some(info) => info,
            // As with client-go, a context may name a user that is not there.
            None if access.user.is_none() => auth_info,
            None => return Err(ConfigError::Unknown { kind: "user", name: user }),
        };
    }
    let server = cluster.server.clone().unwrap_or_default();
    let url = server.parse().map_err(|error| ConfigError::Server { name, text: format!("{server:?}: {error}") })?;
    let mut config = Config::new(url);
    config.proxy_url = match cluster.proxy_url.as_deref().filter(|url| !url.is_empty()) {
        Some(url) => Some(proxy::parsed("proxy-url of the kubeconfig", url)?),
        None => proxy::of_environment(&config.cluster_url)?,
    };
    let unusable = |error: KubeconfigError| ConfigError::Unusable(chain(error.to_string(), &error));
    let about = ExecAuthCluster::try_from(&cluster).map_err(unusable)?;
    config.root_cert = about.certificate_authority_data.as_deref().map(certificates).transpose()?;
    config.default_namespace = context.namespace.filter(|name| !name.is_empty()).unwrap_or("default".to_owned());
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or(false);
    config.disable_compression = cluster.disable_compression.unwrap_or(false);
    config.tls_server_name = cluster.tls_server_name;
    if let Some(exec) = auth_info.exec.as_mut().filter(|exec| exec.provide_cluster_info) {
        exec.cluster = Some(about);
    }
    config.auth_info = auth_info;
    Ok(config)
}

fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, ConfigError> {
    let all: Result<Vec<Vec<u8>>, _> =
        CertificateDer::pem_slice_iter(pem).map(|one| one.map(|one| one.to_vec())).collect();
    all.map_err(|error| ConfigError::Unusable(format!("its certificate authority is no PEM: {error}")))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
