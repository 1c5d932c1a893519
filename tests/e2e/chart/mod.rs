//! The Helm chart on a real API server. Without a kubelet, stories wait only for objects.

mod lifecycle;
mod objects;
mod waits;

use anyhow::{Result, ensure};
use twinspan_chart::chart;
use twinspan_chart::helm::{Helm, NAMESPACE, RELEASE};
use twinspan_testbed::Bed;

use crate::harness::stories;

stories![
    objects::every_object_is_taken_by_the_api_server,
    objects::the_kustomization_is_the_plain_manifests,
    lifecycle::install_upgrade_rollback_uninstall,
    waits::helm_waits_for_what_can_come_and_for_nothing_else
];

/// Helm on a bed's cluster, as its administrator. Helm blocks, so each call has a thread of its own.
#[derive(Clone)]
pub(crate) struct Cluster {
    helm: Helm,
}

impl Cluster {
    pub(crate) fn of(bed: &Bed) -> Result<Self> {
        Ok(Self { helm: Helm::find()?.on(&bed.cluster.admin.path) })
    }

    /// Runs `helm VERB twinspan [CHART] ARGS` and returns what it printed.
    pub(crate) async fn succeed(&self, verb: &str, args: &[&str]) -> Result<String> {
        let (succeeded, said) = self.run(verb, args).await?;
        ensure!(succeeded, "helm {verb} {}: {said}", args.join(" "));
        Ok(said)
    }

    /// The message with which Helm refuses.
    async fn refusal(&self, verb: &str, args: &[&str]) -> Result<String> {
        let (succeeded, said) = self.run(verb, args).await?;
        ensure!(!succeeded, "helm {verb} {} was not refused: {said}", args.join(" "));
        Ok(said)
    }

    async fn run(&self, verb: &str, args: &[&str]) -> Result<(bool, String)> {
        let mut all = vec![verb.to_owned(), RELEASE.to_owned()];
        if matches!(verb, "install" | "upgrade") && !args.iter().any(|arg| arg.starts_with('/')) {
            all.push(chart().display().to_string());
        }
        all.push(format!("--namespace={NAMESPACE}"));
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        self.helm(all).await
    }

    /// Runs Helm; whether it succeeded, and what it printed.
    async fn helm(&self, all: Vec<String>) -> Result<(bool, String)> {
        let helm = self.helm.clone();
        let output = tokio::task::spawn_blocking(move || {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            helm.run(&all)
        })
        .await??;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }
}
