//! One registry, as this program talks to it. Owns the connection and the credentials; refuses to know what a release
//! is.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use twinspan_image::digest;

/// Without a byte for so long, a registry has gone.
const SILENCE: Duration = Duration::from_secs(60);

/// A registry.
pub struct Registry {
    pub(crate) client: Client,
    auth: RegistryAuth,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("auth", &self.auth).finish_non_exhaustive()
    }
}

impl Registry {
    /// The registry at `host` or `host/path`, without a call. The credentials are those that `docker login`, `oras
    /// login` or `cosign login` have written; without any it is asked anonymously.
    pub fn new(at: &str, plain_http: bool) -> Result<Self> {
        // A second one in the process is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = at.split('/').next().unwrap_or(at);
        let auth = match docker_credential::get_credential(host) {
            Ok(DockerCredential::UsernamePassword(user, password)) => RegistryAuth::Basic(user, password),
            Ok(DockerCredential::IdentityToken(_)) => bail!("{host}: an identity token; log in with a password"),
            Err(CredentialRetrievalError::NoCredentialConfigured) => RegistryAuth::Anonymous,
            // The same error as for a file that cannot be parsed.
            Err(_) if !logins().exists() => RegistryAuth::Anonymous,
            Err(error) => bail!("the credentials for {host}: {error}"),
        };
        let protocol = if plain_http { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(SILENCE),
            read_timeout: Some(SILENCE),
            ..ClientConfig::default()
        };
        Ok(Self { client: Client::try_from(config)?, auth })
    }

    /// Parses a name, and makes the credentials known for its registry.
    pub(crate) async fn reference(&self, name: &str) -> Result<Reference> {
        let reference: Reference = name.parse().with_context(|| format!("'{name}' is not a name in a registry"))?;
        self.client.store_auth_if_needed(reference.resolve_registry(), &self.auth).await;
        Ok(reference)
    }

    /// The digest of what a name leads to; none if there is nothing.
    pub(crate) async fn digest(&self, reference: &Reference) -> Result<Option<String>> {
        match self.client.fetch_manifest_digest(reference, &self.auth).await {
            Ok(digest) => Ok(Some(digest)),
            Err(OciDistributionError::ServerError { code: 404, .. }) => Ok(None),
            Err(OciDistributionError::RegistryError { envelope, .. })
                if envelope.errors.iter().any(|error| {
                    matches!(
                        error.code,
                        OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound
                    )
                }) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("cannot look for {reference}")),
        }
    }

    /// The manifest that a name leads to, and its digest.
    pub(crate) async fn manifest(&self, reference: &Reference) -> Result<(Vec<u8>, String)> {
        let kinds = [OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE];
        let (content, _) = self
            .client
            .pull_manifest_raw(reference, &self.auth, &kinds)
            .await
            .with_context(|| format!("cannot pull {reference}"))?;
        let digest = digest(&content);
        Ok((content.to_vec(), digest))
    }

    /// The content of a blob; the client compares its digest.
    pub(crate) async fn blob(&self, at: &Reference, blob: &OciDescriptor) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        self.client
            .pull_blob(at, blob, &mut content)
            .await
            .with_context(|| format!("cannot pull {} of {}", blob.digest, at.repository()))?;
        Ok(content)
    }

    /// The manifests that refer to another one.
    pub(crate) async fn referrers(&self, of: &Reference) -> Result<OciImageIndex> {
        self.client.pull_referrers(of, None).await.with_context(|| format!("what refers to {of}?"))
    }
}

/// The file of the programs that log in.
fn logins() -> PathBuf {
    let given = |name| std::env::var_os(name).map(PathBuf::from);
    let directory = given("DOCKER_CONFIG").or_else(|| Some(given("HOME")?.join(".docker")));
    directory.unwrap_or_default().join("config.json")
}
