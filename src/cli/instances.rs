//! `twinspan instances`: every name in every registry, and the instances behind it.
//!
//! Owns its flags, its output and its exit code. Refuses to ask registries, which [`crate::tools::instances`] does.

use std::process::ExitCode;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::mpsc;

use super::common::{Common, Error, run as block_on};
use super::duration::duration;
use crate::tools::instances::{Answer, Change, Detailed, Gathered, Request, follow, gather};
use crate::tools::lookup::connector;
use crate::tools::print::{Format, PrintError, fit_terminal, harmless_json, print, write};

/// Show who is registered: every name in every registry, with and without a RegisteredService. Changes nothing.
///
/// Asks the registries themselves, with your own rights; an operator need not run. Of a registry without
/// a prefix, and of one with more than 100,000 records, only the names of RegisteredServices are read, and the one that
/// is named.
///
/// Exit code 0 where every registry was read, 3 where one could not be, 1 where the cluster cannot be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  twinspan instances\n  twinspan instances -n shop -o wide\n  twinspan instances team.user --registry main -w"
)]
pub struct Args {
    /// Only this name, with each instance: a name in the registry, or that of a RegisteredService
    name: Option<String>,
    /// Only names of RegisteredServices of this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Every name, also those that no RegisteredService uses; the same as without a namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only this ServiceRegistry; may be repeated
    #[arg(long = "registry", value_name = "NAME")]
    registries: Vec<String>,
    /// How the answer is printed; wide has a line for each instance
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Go on with the changes, one line for each, until interrupted
    #[arg(short, long)]
    watch: bool,
    /// How long to wait for one registry, such as 20s or 1m
    #[arg(long, default_value = "20s", value_name = "DURATION", value_parser = duration)]
    within: Duration,
    #[command(flatten)]
    common: Common,
}

/// Changes that wait to be printed; a registry is read no faster than that.
const WAITING: usize = 1024;
/// The exit code if a part could not be read.
const INCOMPLETE: u8 = 3;

pub fn run(args: &Args) -> ExitCode {
    block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode, Error> {
    let request = Request {
        client: args.common.reach().await?.client,
        operator_namespace: &args.common.operator_namespace,
        namespace: args.namespace.as_deref().filter(|_| !args.all_namespaces),
        registries: &args.registries,
        name: args.name.as_deref(),
        also: &[],
        within: args.within,
    };
    let gathered = gather(&request).await?;
    let answer = Answer::new(&gathered);
    match args.output {
        Format::Table if args.name.is_none() && !args.watch => print(&answer, Format::Table)?,
        Format::Table | Format::Wide => {
            fit_terminal();
            write(Detailed(&answer).to_string().as_bytes())?;
        }
        Format::Json => print(&answer, Format::Json)?,
        Format::Yaml => print(&answer, Format::Yaml)?,
    }
    if args.watch {
        return watch(&gathered, args.output).await;
    }
    Ok(if answer.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}

/// Prints changes until the output is closed, or the process is interrupted.
async fn watch(gathered: &Gathered, output: Format) -> Result<ExitCode, Error> {
    let (sender, mut changes) = mpsc::channel(WAITING);
    let followers = gathered.sources.iter().filter_map(|source| {
        let settings = source.settings.as_ref()?;
        let known = source.contents.as_ref().map(|contents| contents.records.clone()).unwrap_or_default();
        let sender = sender.clone();
        Some(async move {
            let etcd = connector(settings);
            follow(source.name(), etcd.as_ref(), &settings.identity, &source.wanted, known, sender).await;
        })
    });
    let followers = join_all(followers.collect::<Vec<_>>());
    drop(sender);
    let printing = async {
        while let Some(change) = changes.recv().await {
            write(format!("{}\n", line(&change, output)?).as_bytes())?;
        }
        Ok::<(), Error>(())
    };
    tokio::pin!(followers, printing);
    tokio::select! {
        biased;
        printed = &mut printing => printed?,
        _ = &mut followers => {}
    }
    Ok(ExitCode::from(INCOMPLETE))
}

/// One line in the form of the answer: JSON and YAML have one document for each change.
fn line(change: &Change, output: Format) -> Result<String, PrintError> {
    Ok(match output {
        Format::Json => harmless_json(&serde_json::to_string(change)?),
        Format::Yaml => format!("---\n{}", serde_yaml::to_string(change)?.trim_end()),
        Format::Table | Format::Wide => change.to_string(),
    })
}
