//! `twinspan status`: an overview of replicas, registries and services.
//!
//! Owns its flags and exit code. Refuses to read status, which [`crate::tools::status`] does.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use super::common::{Chosen, Common, Error, run as block_on};
use super::duration::duration;
use super::waiting::{told, warn};
use crate::tools::lookup::LookupError;
use crate::tools::print::{Output, named, say};
use crate::tools::status::{Status, status};

/// Show who leads, every registry and every RegisteredService, as the operator says in their status.
///
/// Exit code 0 where nothing needs a person, 3 where something is not ready, held or lost, 1 where the cluster cannot
/// be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  twinspan status\n  twinspan status -n shop -o json\n  twinspan status --wait --timeout 2m\n  twinspan status -l app=user --watch"
)]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Go on, and print the answer anew whenever it changes
    #[arg(short, long)]
    watch: bool,
    /// Wait until there is something and nothing needs a person
    #[arg(long, conflicts_with = "watch")]
    wait: bool,
    /// How long to wait with --wait, such as 30s or 2m
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = duration, requires = "wait")]
    timeout: Duration,
    #[command(flatten)]
    common: Common,
}

/// The exit code if something needs attention.
const NOT_WELL: u8 = 3;
/// Interval of the questions of a command that goes on.
const POLL: Duration = Duration::from_secs(1);

pub fn run(args: &Args) -> ExitCode {
    block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode, Error> {
    let common = &args.common;
    let cluster = if args.watch { common.reach_for_long().await? } else { common.reach().await? };
    let chosen = args.chosen.selection();
    let ask = || status(&cluster.client, &args.common.operator_namespace, &chosen, &cluster.namespace);
    if args.watch {
        return watch(ask, args.output).await;
    }
    let status = if args.wait { settled(ask, args.timeout).await? } else { ask().await? };
    named(&status, args.output, || status.names())?;
    Ok(if status.is_well() { ExitCode::SUCCESS } else { ExitCode::from(NOT_WELL) })
}

/// Prints each answer that is another than the one before, until somebody ends it.
async fn watch<F>(ask: impl Fn() -> F, output: Output) -> Result<ExitCode, Error>
where
    F: Future<Output = Result<Status, LookupError>>,
{
    let mut before = None;
    let mut failed = None;
    loop {
        let status = match ask().await {
            Ok(status) => status,
            // The first answer decides whether the question can be asked at all.
            Err(error) if before.is_none() => return Err(error.into()),
            Err(error) => {
                let text = error.to_string();
                if failed.as_ref() != Some(&text) {
                    warn(&text);
                    failed = Some(text);
                }
                tokio::time::sleep(POLL * 5).await;
                continue;
            }
        };
        failed = None;
        let text = format!("{status:#}");
        if before.as_ref() != Some(&text) {
            match output {
                Output::Table | Output::Wide if before.is_some() => say("")?,
                Output::Yaml => say("---")?,
                _ => {}
            }
            named(&status, output, || status.names())?;
            before = Some(text);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The first answer in which nothing needs a person, or the last one in time.
async fn settled<F>(ask: impl Fn() -> F, timeout: Duration) -> Result<Status, Error>
where
    F: Future<Output = Result<Status, LookupError>>,
{
    let deadline = tokio::time::Instant::now() + timeout;
    let awaited = async {
        loop {
            let status = ask().await?;
            let found = !status.registries.is_empty() || !status.services.is_empty();
            if (found && status.is_well()) || tokio::time::Instant::now() + POLL > deadline {
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
    };
    told(awaited, || "everything to be ready".to_owned()).await
}
