//! The generated parts of the Helm chart and of the plain manifests, so that each thing is written by hand in one
//! place.
//!
//! | written by hand | generated from it |
//! |---|---|
//! | `crds/*.yaml` (from the Rust types) | `charts/twinspan/files/crds`, the spec of `serviceRegistries` in the schema
//! |
//! | `charts/twinspan/values.schema.json` | `charts/twinspan/values.yaml`, the table of values in its README |
//! | `charts/twinspan/templates` | `deploy/twinspan.yaml`, `deploy/discovery.yaml`, `deploy/rollouts.yaml` |
//!
//! - [`schema`]: the keys of the values. [`values`] and [`table`]: the files that are printed from them.
//! - [`helm`]: Helm itself. [`manifest`]: the input of `kubectl apply -f`.
//!
//! Errors address the person who runs `make manifests` or a test, so they are texts with a context (`anyhow`).

pub mod helm;
pub mod manifest;
pub mod schema;
pub mod table;
pub mod values;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The directory of the chart.
pub fn chart() -> PathBuf {
    repository().join("charts/twinspan")
}

/// One generated file: its path and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    pub path: PathBuf,
    pub text: String,
}

/// Every file that needs no Helm; each needs only those before it.
pub fn files() -> Result<Vec<Generated>> {
    let mut all = Vec::new();
    for name in ["registeredservices.yaml", "serviceregistries.yaml"] {
        let text = read(&repository().join("crds").join(name))?;
        all.push(Generated { path: chart().join("files/crds").join(name), text });
    }
    let path = chart().join("values.schema.json");
    let schema = schema::with_registries(&read(&path)?, &read(&repository().join("crds/serviceregistries.yaml"))?)?;
    all.push(Generated { path, text: schema::print(&schema)? });
    all.push(Generated { path: chart().join("values.yaml"), text: values::print(&schema)? });
    let path = chart().join("README.md");
    let text = table::replace(&read(&path)?, &table::print(&schema)?)?;
    all.push(Generated { path, text });
    Ok(all)
}

pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
