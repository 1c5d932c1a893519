//! The way to the cluster: a kubeconfig and its context, or the ServiceAccount of a pod.
//!
//! Owns the choice between them. Refuses to make a client.

use std::path::{Path, PathBuf};

use kube::Config;
use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};

/// The reason why there is no way to the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the kubeconfig {path}: {source}", path = path.display())]
    Kubeconfig { path: PathBuf, source: KubeconfigError },
    #[error("cannot use the context {context} of the default kubeconfig: {source}")]
    Context { context: String, source: KubeconfigError },
    #[error("found neither a kubeconfig nor a ServiceAccount: {0}; set --kubeconfig")]
    Infer(#[from] InferConfigError),
}

/// The configuration of the client: the named file, or else the default kubeconfig or the pod's ServiceAccount. In a
/// file it uses the named context, or else the current one.
pub async fn config(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Config, ConfigError> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    match (kubeconfig, context) {
        (Some(path), _) => {
            let failed = |source| ConfigError::Kubeconfig { path: path.to_owned(), source };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(failed)
        }
        (None, Some(context)) => {
            let failed = |source| ConfigError::Context { context: context.to_owned(), source };
            Config::from_kubeconfig(&options).await.map_err(failed)
        }
        (None, None) => Ok(Config::infer().await?),
    }
}

/// The names of the default kubeconfig's contexts; none if it cannot be read.
pub fn contexts() -> Vec<String> {
    let file = Kubeconfig::read().unwrap_or_default();
    file.contexts.into_iter().map(|context| context.name).collect()
}
