//! kubectl and Helm, as an administrator runs them.

use std::path::Path;

use anyhow::{Result, ensure};
use tokio::process::Command;
use twinspan_testbed::namespace::binary;
use twinspan_testbed::repository;

use crate::enclosure;

/// The output of `kubectl`; its standard error is the error.
pub(crate) async fn kubectl(dir: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new(binary("controlplane")?);
    command.arg("kubectl").args(args);
    output(dir, command, &format!("kubectl {}", args.join(" "))).await
}

/// The same for `helm`.
pub(crate) async fn helm(dir: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new(binary("helm")?);
    command.args(args);
    for (variable, place) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
    {
        command.env(variable, dir.join("helm").join(place));
    }
    output(dir, command, &format!("helm {}", args.join(" "))).await
}

async fn output(dir: &Path, mut command: Command, what: &str) -> Result<String> {
    let command = command.env("KUBECONFIG", enclosure::kubeconfig(dir)).current_dir(repository()).kill_on_drop(true);
    let output = command.output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let (printed, complaint) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{what}: {complaint}\n{printed}");
    Ok(printed)
}
