//! The Helm that `dev/parts/build helm` builds.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_yaml::Value;

use crate::{chart, repository};

/// The release and its namespace, for every test and manifest.
pub const RELEASE: &str = "twinspan";
pub const NAMESPACE: &str = "twinspan-system";

/// Helm, and optionally the cluster that it works on.
#[derive(Clone, Debug)]
pub struct Helm {
    program: String,
    kubeconfig: Option<String>,
    home: String,
}

impl Helm {
    /// Builds Helm if it is missing.
    pub fn find() -> Result<Self> {
        let output = Command::new(repository().join("dev/parts/build"))
            .arg("helm")
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("cannot run dev/parts/build")?;
        ensure!(output.status.success(), "dev/parts/build helm failed");
        let program = String::from_utf8(output.stdout)?.trim().to_owned();
        // Isolated from the user's Helm: no plugins, no repositories, no cluster.
        let home = repository().join("target/helm").display().to_string();
        Ok(Self { program, kubeconfig: None, home })
    }

    /// The same on a cluster.
    pub fn on(&self, kubeconfig: &Path) -> Self {
        Self { kubeconfig: Some(kubeconfig.display().to_string()), ..self.clone() }
    }

    /// Runs Helm and returns its output, whether or not it succeeded.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        Command::new(&self.program)
            .args(args)
            .env("HELM_CACHE_HOME", &self.home)
            .env("HELM_CONFIG_HOME", &self.home)
            .env("HELM_DATA_HOME", &self.home)
            .env("KUBECACHEDIR", &self.home)
            .env("KUBECONFIG", self.kubeconfig.as_deref().unwrap_or("/dev/null"))
            .output()
            .with_context(|| format!("cannot run {}", self.program))
    }

    /// Runs Helm, and fails with its output if it fails.
    pub fn succeed(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "helm {}: {}", args.join(" "), errors.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Standard error of a refusal; fails if Helm does not refuse.
    pub fn refusal(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        ensure!(!output.status.success(), "helm {} was not refused", args.join(" "));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The rendered manifests of the chart, as text.
    pub fn template(&self, args: &[&str]) -> Result<String> {
        let chart = chart().display().to_string();
        let mut all = vec!["template", RELEASE, &chart, "--namespace", NAMESPACE];
        all.extend(args);
        self.succeed(&all)
    }

    /// The same as objects.
    pub fn objects(&self, args: &[&str]) -> Result<Vec<Value>> {
        objects(&self.template(args)?)
    }
}

/// Every document of a YAML text that is not empty.
pub fn objects(text: &str) -> Result<Vec<Value>> {
    let all: Result<Vec<Value>, _> = serde_yaml::Deserializer::from_str(text).map(Value::deserialize).collect();
    Ok(all?.into_iter().filter(|object| !object.is_null()).collect())
}

/// `Kind/name` of an object.
pub fn name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]))
}
