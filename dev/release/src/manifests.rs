//! Twinspan without Helm as one file of a release: the CRDs, and `deploy/twinspan.yaml` with the released image. Owns
//! that file; refuses to know what the manifests say.

use anyhow::{Context, Result, ensure};
use twinspan_image::{repository, twinspan};

use crate::VERSION;

/// In the order in which kustomization.yaml has them.
const SOURCES: [&str; 3] = ["crds/registeredservices.yaml", "crds/serviceregistries.yaml", "deploy/twinspan.yaml"];

/// The name of the file.
pub fn name() -> String {
    format!("twinspan-{VERSION}.yaml")
}

/// The file with an image of this name, without a tag.
pub fn of(image: &str) -> Result<String> {
    let mut all = format!("# Twinspan {VERSION} without Helm: kubectl apply --server-side -f {}\n", name());
    for path in SOURCES {
        let text = std::fs::read_to_string(repository().join(path)).with_context(|| path.to_owned())?;
        // A comment in front of the documents is about a checkout.
        let documents = text.split_once("---\n").map_or(text.as_str(), |(_, documents)| documents);
        all = all + "---\n" + documents;
    }
    let local = format!("image: {}\n", twinspan::default_name());
    let found = all.matches(&local).count();
    ensure!(found == 1, "{found} times '{}' in deploy/twinspan.yaml; run `make manifests`", local.trim());
    Ok(all.replace(&local, &format!("image: {image}:{VERSION}\n")))
}
