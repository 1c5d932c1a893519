//! One registry, as this program talks to it. Owns the connection and the credentials; refuses to know what a release
//! is.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{
    ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex,
};
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::{RegistryToken, RegistryTokenType};
use oci_client::{Client, Reference, RegistryOperation};
use twinspan_image::digest;

/// For a connection.
const CONNECTION: Duration = Duration::from_secs(30);
/// From the start of a request until its answer begins, and between two parts of an answer. The upload of a chunk,
/// which has at most 4 MiB, is within it: a line that carries 7 kB a second suffices.
const SILENCE: Duration = Duration::from_secs(600);
/// By which a credential helper says that it has none (docker-credential-helpers, `credentials/error.go`).
const NOT_FOUND: &str = "credentials not found in native keychain";

/// A registry.
pub struct Registry {
    pub(crate) client: Client,
    auth: RegistryAuth,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// The registry at `host` or `host/path`, without a call. The credentials are those that `docker login`, `helm
    /// registry login` or `oras login` have written for Docker; without any it is asked anonymously.
    pub fn new(at: &str, plain_http: bool) -> Result<Self> {
        let host = at.split('/').next().unwrap_or(at);
        Self::with(credentials(host, docker_credential::get_credential(host), logins().exists())?, plain_http)
    }

    /// A registry, with these credentials.
    pub fn with(auth: RegistryAuth, plain_http: bool) -> Result<Self> {
        // A second one in the process is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let protocol = if plain_http { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(CONNECTION),
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

    /// The same for a name that will be written.
    pub(crate) async fn writable(&self, name: &str) -> Result<Reference> {
        let reference = self.reference(name).await?;
        self.authorize(&reference).await?;
        Ok(reference)
    }

    /// Asks for the right to push, and reads by it too: for a repository that does not exist yet some registries refuse
    /// the right to pull alone.
    pub(crate) async fn authorize(&self, to: &Reference) -> Result<()> {
        let token = self.client.auth(to, &self.auth, RegistryOperation::Push).await.map_err(|error| {
            let refused = matches!(error, OciDistributionError::AuthenticationFailure(_));
            let text = if refused { cannot_push(to) } else { format!("cannot ask {}", to.registry()) };
            anyhow::Error::new(error).context(text)
        })?;
        if let Some(token) = token {
            let token = RegistryTokenType::Bearer(RegistryToken::Token { token });
            self.client.tokens.insert(to, RegistryOperation::Pull, token).await;
        }
        Ok(())
    }

    /// The manifest that a name leads to, and its digest; none if there is nothing.
    pub(crate) async fn find(&self, reference: &Reference) -> Result<Option<(Vec<u8>, String)>> {
        let kinds = [OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE];
        match self.client.pull_manifest_raw(reference, &self.auth, &kinds).await {
            Ok((content, _)) => Ok(Some((content.to_vec(), digest(&content)))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot pull {reference}")),
        }
    }

    /// The same; an error if there is nothing.
    pub(crate) async fn manifest(&self, reference: &Reference) -> Result<(Vec<u8>, String)> {
        self.find(reference).await?.with_context(|| format!("{reference} is not there"))
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
    pub(crate) async fn referrers(&self, of: &Reference) -> Result<Vec<ImageIndexEntry>> {
        let asked = self.client.pull_referrers(of, None).await;
        let listed = asked.with_context(|| format!("what refers to {of}?"))?.manifests;
        if !listed.is_empty() {
            return Ok(listed);
        }
        // Where the API is missing, the client takes any error of the list under the tag for an empty list.
        let Some((content, _)) = self.find(&fallback(of)).await? else { return Ok(listed) };
        let index: OciImageIndex = serde_json::from_slice(&content).with_context(|| fallback(of).to_string())?;
        Ok(index.manifests)
    }
}

/// The list of what refers to a manifest, in a registry without the API for it.
pub(crate) fn fallback(of: &Reference) -> Reference {
    let tag = of.digest().unwrap_or_default().replace(':', "-");
    Reference::with_tag(of.registry().to_owned(), of.repository().to_owned(), tag)
}

/// The complaint about a registry that answers and refuses.
pub(crate) fn cannot_push(to: &Reference) -> String {
    let (host, repository) = (to.registry(), to.repository());
    format!("cannot push to {host}/{repository}; log in with `docker login {host}` or `helm registry login {host}`")
}

fn is_absent(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ServerError { code, .. } => *code == 404,
        OciDistributionError::RegistryError { envelope, .. } => envelope.errors.iter().any(|error| {
            matches!(error.code, OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound)
        }),
        _ => false,
    }
}

fn credentials(
    host: &str,
    found: Result<DockerCredential, CredentialRetrievalError>,
    logins: bool,
) -> Result<RegistryAuth> {
    match found {
        Ok(DockerCredential::UsernamePassword(user, password)) => Ok(RegistryAuth::Basic(user, password)),
        Ok(DockerCredential::IdentityToken(_)) => bail!("{host}: an identity token; log in with a password"),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(RegistryAuth::Anonymous),
        Err(CredentialRetrievalError::HelperFailure { stdout, .. }) if stdout.trim() == NOT_FOUND => {
            Ok(RegistryAuth::Anonymous)
        }
        // The same error as for a file that cannot be parsed.
        Err(_) if !logins => Ok(RegistryAuth::Anonymous),
        Err(error) => bail!("the credentials for {host}: {error}"),
    }
}

/// The file of the programs that log in.
fn logins() -> PathBuf {
    let given = |name| std::env::var_os(name).map(PathBuf::from);
    let directory = given("DOCKER_CONFIG").or_else(|| Some(given("HOME")?.join(".docker")));
    directory.unwrap_or_default().join("config.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_without_an_entry_is_anonymous() {
        let failure = |stdout: &str| CredentialRetrievalError::HelperFailure {
            helper: "docker-credential-pass".to_owned(),
            stdout: stdout.to_owned(),
            stderr: String::new(),
        };
        let without = credentials("example.com", Err(failure("credentials not found in native keychain\n")), true);
        assert!(matches!(without.unwrap(), RegistryAuth::Anonymous));
        assert!(credentials("example.com", Err(failure("the keychain is locked")), true).is_err());
        assert!(credentials("example.com", Err(CredentialRetrievalError::ConfigReadError), true).is_err());
        let missing = credentials("example.com", Err(CredentialRetrievalError::ConfigReadError), false);
        assert!(matches!(missing.unwrap(), RegistryAuth::Anonymous));
    }
}
