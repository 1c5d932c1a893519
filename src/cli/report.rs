//! `twinspan report`: a support bundle.
//!
//! Owns its flags, the name of the file and the exit code. Refuses to collect anything, which [`crate::tools::report`]
//! does.

use std::path::PathBuf;
use std::process::ExitCode;

use super::common::{Common, Error, run as block_on};
use super::networks::NetworkArgs;
use crate::env::Env;
use crate::tools::print::say;
use crate::tools::report::{Request, collect, write};

/// Write a support bundle without secrets: objects, status, doctor, records, Events, and logs of the operator.
///
/// Never in it: Secrets, values of environment variables, users and passwords of URLs, annotations of others, and the
/// values of tags unless they are asked for. Look through it all the same before you hand it on: names and addresses
/// are in it.
///
/// Exit code 0 where everything was collected, 3 where a part is missing (problems.txt names it), 1 where the cluster
/// cannot be asked or nothing can be written.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  twinspan report\n  twinspan report --output /tmp/report --with-values")]
pub struct Args {
    /// A file that ends with .tar.gz or .tgz, or else a directory; without it twinspan-report-TIME.tar.gz
    #[arg(long, value_name = "FILE.tar.gz|DIR")]
    output: Option<PathBuf>,
    /// Show the values of tags as well
    #[arg(long)]
    with_values: bool,
    /// The operator's ServiceAccount in its namespace
    #[arg(long, default_value = "twinspan", value_name = "NAME")]
    service_account: String,
    #[command(flatten)]
    networks: NetworkArgs,
    #[command(flatten)]
    common: Common,
}

/// The exit code if a part is missing.
const INCOMPLETE: u8 = 3;

pub fn run(args: &Args) -> ExitCode {
    block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode, Error> {
    let cluster = args.common.reach().await?;
    let request = Request {
        client: cluster.client,
        server: &cluster.server,
        operator_namespace: &args.common.operator_namespace,
        service_account: &args.service_account,
        networks: args.networks.named(),
        with_values: args.with_values,
    };
    let bundle = collect(&request).await;
    let now = Env::real().now();
    let default = || PathBuf::from(format!("twinspan-report-{}.tar.gz", now.strftime("%Y%m%d-%H%M%S")));
    let path = args.output.clone().unwrap_or_else(default);
    write(&bundle, &path, now)?;
    say(&format!("wrote {} files to {}", bundle.files.len(), path.display()))?;
    for problem in &bundle.problems {
        say(&format!("missing: {problem}"))?;
    }
    Ok(if bundle.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}
