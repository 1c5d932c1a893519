//! Identities of the bed's cluster: kubeconfigs, tokens, manifests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams, ResourceExt};
use kube::config::{KubeConfigOptions, Kubeconfig as KubeconfigFile};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::eventually;

/// A kubeconfig file of one user.
#[derive(Clone, Debug)]
pub struct Kubeconfig {
    pub path: PathBuf,
}

impl Kubeconfig {
    pub(crate) fn write(dir: &Path, user: &str, server: &str, ca: &Path, token: &str) -> Result<Self> {
        let cluster = json!({"server": server, "certificate-authority": ca});
        Self::write_file(dir, user, &cluster, &json!({"token": token}))
    }

    /// A user of a server without TLS, which asks nobody who he is.
    pub fn without_tls(dir: &Path, user: &str, server: &str) -> Result<Self> {
        Self::write_file(dir, user, &json!({"server": server}), &json!({}))
    }

    fn write_file(dir: &Path, user: &str, cluster: &Value, credentials: &Value) -> Result<Self> {
        let path = dir.join(format!("{user}.kubeconfig"));
        let file = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bed",
            "clusters": [{"name": "bed", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": user}}],
        });
        std::fs::write(&path, serde_yaml::to_string(&file)?)?;
        Ok(Self { path })
    }

    /// The same user, who reaches the API server at another address.
    pub fn through(&self, dir: &Path, address: SocketAddr) -> Result<Self> {
        let mut file: Value = serde_yaml::from_str(&std::fs::read_to_string(&self.path)?)?;
        let cluster = &mut file["clusters"][0]["cluster"];
        cluster["server"] = json!(format!("https://{address}"));
        cluster["tls-server-name"] = json!("kubernetes");
        let path = dir.join(format!("through-{}.kubeconfig", address.ip()));
        std::fs::write(&path, serde_yaml::to_string(&file)?)?;
        Ok(Self { path })
    }

    pub async fn client(&self) -> Result<Client> {
        let file = KubeconfigFile::read_from(&self.path)?;
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        Ok(Client::try_from(config)?)
    }
}

/// A token of an existing ServiceAccount, valid for longer than a bed lasts.
pub(crate) async fn token(client: &Client, namespace: &str, account: &str) -> Result<String> {
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(7 * 24 * 3600), ..Default::default() },
        ..Default::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .with_context(|| format!("no token for {namespace}/{account}"))?;
    Ok(answer.status.context("a token request without status")?.token)
}

/// Applies every object of a YAML file, as `kubectl apply -f` would, and waits until CRDs are served.
pub async fn apply_file(client: &Client, path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let documents: Result<Vec<serde_json::Value>, _> =
        serde_yaml::Deserializer::from_str(&text).map(serde_json::Value::deserialize).collect();
    for document in documents?.into_iter().filter(|document| !document.is_null()) {
        let object: DynamicObject = serde_json::from_value(document)?;
        apply(client, &object).await.with_context(|| format!("{}: {}", path.display(), object.name_any()))?;
    }
    Ok(())
}

async fn apply(client: &Client, object: &DynamicObject) -> Result<()> {
    let TypeMeta { api_version, kind } = object.types.clone().context("an object without kind")?;
    let kind = GroupVersionKind::try_from(&TypeMeta { api_version, kind })?;
    let (resource, capabilities) = kube::discovery::pinned_kind(client, &kind).await?;
    let namespaced = capabilities.scope == kube::discovery::Scope::Namespaced;
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) if namespaced => Api::namespaced_with(client.clone(), &namespace, &resource),
        None if namespaced => Api::default_namespaced_with(client.clone(), &resource),
        _ => Api::all_with(client.clone(), &resource),
    };
    let name = object.name_any();
    api.patch(&name, &PatchParams::apply("bed").force(), &Patch::Apply(object)).await?;
    if kind.kind == "CustomResourceDefinition" {
        eventually("the CRD is established", Duration::from_secs(30), || async {
            let conditions = api.get(&name).await?.data["status"]["conditions"].clone();
            let established = conditions
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["type"] == "Established" && c["status"] == "True"));
            ensure!(established, "{name}: {conditions}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
