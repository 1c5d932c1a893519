//! Keys and signatures as cosign has them: a private key of `cosign generate-key-pair`, the manifest that `cosign
//! verify` looks for beside an image, and the signature that `cosign verify-blob` takes. Owns these formats; refuses to
//! know what is signed.
//!
//! The formats are those of cosign's `pkg/cosign/keys.go`, of go-securesystemslib's `encrypted`, and of
//! `containers/image`'s simple signing. Signatures are deterministic (RFC 6979).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Nonce, XSalsa20Poly1305};
use oci_client::manifest::{IMAGE_CONFIG_MEDIA_TYPE, OciImageManifest};
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, LineEnding};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use twinspan_image::digest;

use crate::layout::Layout;

/// The variable with the password of the key, as cosign reads it.
pub const PASSWORD: &str = "COSIGN_PASSWORD";
/// The media type of what is signed.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of its layer with the signature.
pub const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const KINDS: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];

/// A private key on the curve P-256, which is what cosign generates.
#[derive(Debug)]
pub struct Key(SigningKey);

#[derive(Deserialize)]
struct Sealed {
    kdf: Derivation,
    cipher: Cipher,
    #[serde(deserialize_with = "base64")]
    ciphertext: Vec<u8>,
}

#[derive(Deserialize)]
struct Derivation {
    name: String,
    params: Costs,
    #[serde(deserialize_with = "base64")]
    salt: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Costs {
    n: u32,
    #[serde(rename = "r")]
    r: u32,
    #[serde(rename = "p")]
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    #[serde(deserialize_with = "base64")]
    nonce: Vec<u8>,
}

fn base64<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(from)?).map_err(serde::de::Error::custom)
}

impl Key {
    /// The key of a file; its password is in `COSIGN_PASSWORD`.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let password = std::env::var(PASSWORD).with_context(|| format!("{PASSWORD} is not set"))?;
        Self::open(&text, &password).with_context(|| path.display().to_string())
    }

    /// The key of a text in PEM.
    pub fn open(text: &str, password: &str) -> Result<Self> {
        let pem = pem::parse(text)?;
        ensure!(KINDS.contains(&pem.tag()), "'{}' is no key of `cosign generate-key-pair`", pem.tag());
        let sealed: Sealed = serde_json::from_slice(pem.contents())?;
        let (kdf, cipher) = (&sealed.kdf, &sealed.cipher);
        ensure!(kdf.name == "scrypt", "the password is stretched by {}, not by scrypt", kdf.name);
        ensure!(cipher.name == "nacl/secretbox", "the key is sealed by {}, not by nacl/secretbox", cipher.name);
        ensure!(kdf.params.n.is_power_of_two() && kdf.params.n <= 1 << 20, "scrypt's N is {}", kdf.params.n);
        let costs = scrypt::Params::new(kdf.params.n.ilog2() as u8, kdf.params.r, kdf.params.p, 32)
            .map_err(|error| anyhow!("scrypt: {error}"))?;
        let mut secret = [0; 32];
        scrypt::scrypt(password.as_bytes(), &kdf.salt, &costs, &mut secret)
            .map_err(|error| anyhow!("scrypt: {error}"))?;
        ensure!(cipher.nonce.len() == 24, "a nonce of {} bytes", cipher.nonce.len());
        let opened = XSalsa20Poly1305::new(&secret.into())
            .decrypt(Nonce::from_slice(&cipher.nonce), sealed.ciphertext.as_slice())
            .map_err(|_| anyhow!("the password is wrong"))?;
        Ok(Self(SigningKey::from_pkcs8_der(&opened).context("no key on the curve P-256")?))
    }

    /// The public key in PEM.
    pub fn public(&self) -> Result<String> {
        Ok(self.0.verifying_key().to_public_key_pem(LineEnding::LF)?)
    }

    /// The signature of the content, in base64.
    pub fn sign(&self, content: &[u8]) -> String {
        let signature: Signature = self.0.sign(content);
        STANDARD.encode(signature.to_der())
    }
}

/// The public half of a key.
#[derive(Debug)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// From PEM.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self(VerifyingKey::from_public_key_pem(text).context("no public key on the curve P-256")?))
    }

    /// Fails unless the text is the signature of the content by this key, in base64.
    pub fn verify(&self, content: &[u8], signature: &str) -> Result<()> {
        let signature = STANDARD.decode(signature.trim()).context("the signature is not in base64")?;
        let signature = Signature::from_der(&signature).context("no signature on the curve P-256")?;
        self.0.verify(content, &signature).map_err(|_| anyhow!("the signature is not of this key and this content"))
    }
}

/// The tag of the manifest with the signatures of another one.
pub fn tag(of: &str) -> String {
    format!("{}.sig", of.replace(':', "-"))
}

/// Keeps the signature of a manifest.
pub fn keep(layout: &mut Layout, key: &Key, repository: &str, of: &str) -> Result<()> {
    let payload = serde_json::to_vec(&json!({
        "critical": {
            "identity": {"docker-reference": repository},
            "image": {"docker-manifest-digest": of},
            "type": "cosign container image signature",
        },
        "optional": null,
    }))?;
    let config = json!({
        "architecture": "",
        "config": {},
        "created": "0001-01-01T00:00:00Z",
        "history": [{"created": "0001-01-01T00:00:00Z"}],
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": [digest(&payload)]},
    });
    let mut layer = layout.blob(SIMPLE_SIGNING, &payload)?;
    layer.annotations = Some(BTreeMap::from([(ANNOTATION.to_owned(), key.sign(&payload))]));
    let config = layout.blob(IMAGE_CONFIG_MEDIA_TYPE, &serde_json::to_vec(&config)?)?;
    let manifest = OciImageManifest { config, layers: vec![layer], ..Default::default() };
    layout.artifact(repository, Some(&tag(of)), manifest)?;
    Ok(())
}

/// Fails unless a manifest holds one signature, by this key, of the manifest with a digest.
pub fn verify(layout: &Layout, key: &PublicKey, manifest: &OciImageManifest, of: &str) -> Result<()> {
    let [layer] = &manifest.layers[..] else { bail!("{} signatures", manifest.layers.len()) };
    let signature = layer.annotations.as_ref().and_then(|all| all.get(ANNOTATION)).context("no signature of cosign")?;
    ensure!(layer.media_type == SIMPLE_SIGNING, "{} is signed", layer.media_type);
    let payload = layout.read(&layer.digest)?;
    key.verify(&payload, signature)?;
    let payload: Value = serde_json::from_slice(&payload)?;
    let found = &payload["critical"]["image"]["docker-manifest-digest"];
    ensure!(found == of, "{found} is signed, not {of}");
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
