//! `twinspan status`: an overview of replicas, registries and services.
//!
//! Owns its flags and exit code. Refuses to read status, which [`crate::tools::status`] does.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use super::common::{Chosen, Common, Error, run as block_on};
use super::duration::duration;
use super::waiting::{told, warn};
use crate::tools::forward::Forward;
use crate::tools::lookup::LookupError;
use crate::tools::print::{Output, named, say};
use crate::tools::status::{Status, status};

/// Show who leads, every registry and every RegisteredService, as the operator says in their status.
///
/// Exit code 0 where nothing needs attention, 3 where something is not ready, held or lost, 1 where the cluster cannot
/// be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  twinspan status\n  twinspan status -n shop -o json\n  twinspan status --wait --timeout 2m\n  twinspan status -l app=user --watch\n  twinspan status --open"
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
    /// Wait until there is something and nothing needs attention
    #[arg(long, conflicts_with = "watch")]
    wait: bool,
    /// How long to wait with --wait, such as 30s or 2m
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = duration, requires = "wait")]
    timeout: Duration,
    /// Open the live status page of the leader in a browser, through a local port that leads to its pod, until Ctrl-C
    #[arg(long, conflicts_with_all = ["watch", "wait", "namespace", "selector", "all_namespaces"])]
    open: bool,
    /// Only print the address of the page
    #[arg(long, requires = "open")]
    no_browser: bool,
    /// The port of the page in the pod, where the pod does not tell it
    #[arg(long, value_name = "PORT", requires = "open")]
    page_port: Option<u16>,
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
    if args.open {
        return page(args).await;
    }
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

/// Leads to the status page until somebody ends it.
async fn page(args: &Args) -> Result<ExitCode, Error> {
    let cluster = args.common.reach_for_long().await?;
    let opening = Forward::open(&cluster.client, &args.common.operator_namespace, args.page_port);
    let forward = told(opening, || "the status page of the leader".to_owned()).await?;
    let url = forward.url();
    say(&format!("{url} leads to the status page of {}; Ctrl-C ends it", forward.pod()))?;
    if !args.no_browser && has_display() {
        // The address is printed, so that nothing is lost without a browser.
        if let Err(error) = open::that_detached(&url) {
            warn(&format!("cannot open a browser: {error}; open the address yourself"));
        }
    }
    tokio::select! {
        () = forward.run(warn) => {}
        // Without signals there is no orderly end, and no harm in another.
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a browser can be shown. Without a display a browser of the terminal would take it over.
fn has_display() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !cfg!(target_os = "linux") || set("DISPLAY") || set("WAYLAND_DISPLAY")
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

/// The first answer in which nothing needs attention, or the last one in time.
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
