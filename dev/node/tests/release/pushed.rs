//! In the registry: everything that was promised, nothing over it, and signatures that only their own key explains.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use twinspan_image::binary::Source;
use twinspan_node::images;
use twinspan_release::{Options, Promise, Registry};
use twinspan_testbed::namespace::binary;

use crate::built::{KEYS, key};
use crate::directory;

/// A second release of the same commit changes nothing, as after one that was cut off.
pub async fn what_was_promised_is_there() -> Result<()> {
    let (registry, directory) = (Registry::new(&images(), true)?, directory()?);
    ensure!(registry.check(&directory).await.is_err(), "everything is there before the push");
    let options = Options {
        registry: format!("{}/twinspan", images()),
        architectures: Vec::new(),
        key: None,
        url: None,
        directory: directory.clone(),
        rehearsal: true,
    };
    for _ in 0..2 {
        registry.prepare(&options, &Source::find()?).await?;
        registry.push(&directory).await?;
        registry.check(&directory).await?;
    }
    Ok(())
}

/// A version that somebody may have installed does not change.
pub async fn a_version_is_released_once(dir: &Path) -> Result<()> {
    let registry = Registry::new(&images(), true)?;
    let other = dir.join("other");
    std::fs::create_dir_all(&other)?;
    let mut promise = Promise::read(&directory()?)?;
    promise.chart.digest = promise.image.digest.clone();
    promise.write(&other)?;
    let error = registry.push(&other).await.err().context("a version was released twice")?;
    ensure!(error.to_string().contains("a version is released once"), "{error:#}");
    Ok(())
}

/// The image by its tag, the chart by its digest, and the checksums.
pub async fn cosign_verifies(dir: &Path) -> Result<()> {
    let promise = Promise::read(&directory()?)?;
    let image = promise.image.tagged();
    let chart = format!("{}@{}", promise.chart.repository, promise.chart.digest);
    let sums = directory()?.join("SHA256SUMS").display().to_string();
    let signature = format!("-signature={sums}.sig");
    for name in KEYS {
        let public = key(name, "pub")?.display().to_string();
        for args in [
            ["verify", "-plain-http", &public, &image],
            ["verify", "-plain-http", &public, &chart],
            ["verify-blob", &signature, &public, &sums],
        ] {
            let outcome = cosign(&args).await;
            if name == "signing" {
                outcome?;
            } else {
                let error = outcome.err().with_context(|| format!("a strange key explains {}", args[3]))?;
                ensure!(format!("{error:#}").contains("invalid signature"), "{error:#}");
            }
        }
    }
    let public = key("signing", "pub")?.display().to_string();
    let found = std::fs::read_to_string(directory()?.join("cosign.pub"))?;
    ensure!(found == std::fs::read_to_string(&public)?, "cosign.pub is another key");
    let changed = dir.join("changed");
    std::fs::write(&changed, std::fs::read_to_string(&sums)?.replacen('0', "1", 1))?;
    let changed = changed.display().to_string();
    ensure!(cosign(&["verify-blob", &signature, &public, &changed]).await.is_err(), "changed checksums are accepted");
    Ok(())
}

async fn cosign(args: &[&str]) -> Result<()> {
    let output = Command::new(binary("cosign")?).args(args).kill_on_drop(true).output().await?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cosign {}: {}", args.join(" "), complaint.trim());
    Ok(())
}
