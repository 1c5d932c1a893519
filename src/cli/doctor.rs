//! `twinspan doctor`: the checks of a cluster and its registries.
//!
//! Owns its flags and exit code. Refuses to check anything, which [`crate::tools::doctor`] does.

use std::process::ExitCode;

use super::common::{Common, Error, run as block_on};
use super::etcd_args::EtcdArgs;
use super::networks::NetworkArgs;
use super::waiting::told;
use crate::tools::doctor::{Report, Request, audit, examine, examine_etcd, reach};
use crate::tools::print::{Format, print};

/// Look at the cluster and every registry from here: reachability, versions, permissions, clocks, round trips. Changes
/// nothing.
///
/// Exit code 0 where nothing fails (warnings are none), 3 where something does, 1 where the API server
/// cannot be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  twinspan doctor\n  twinspan doctor main --audit\n  twinspan doctor main --reach\n  twinspan doctor --etcd https://etcd-0:2379 --ca ca.crt --etcd-user twinspan --password-file password\n  kubectl exec -n twinspan-system deploy/twinspan -- twinspan doctor main"
)]
pub struct Args {
    /// Only these ServiceRegistries; all without any
    #[arg(conflicts_with = "etcd")]
    registries: Vec<String>,
    /// Compare all slices and own records with etcd as well
    #[arg(long, conflicts_with = "etcd")]
    audit: bool,
    /// Connect from here to every address that this cluster exported
    #[arg(long, conflicts_with = "etcd")]
    reach: bool,
    /// The namespaces that the operator looks at, if it is in namespaced mode, separated by commas
    #[arg(
        long,
        env = "TWINSPAN_WATCH_NAMESPACES",
        value_name = "NAMES",
        value_delimiter = ',',
        conflicts_with = "etcd"
    )]
    watch_namespaces: Vec<String>,
    /// The operator's ServiceAccount in its namespace
    #[arg(long, default_value = "twinspan", value_name = "NAME")]
    service_account: String,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    networks: NetworkArgs,
    #[command(flatten)]
    etcd: EtcdArgs,
    #[command(flatten)]
    common: Common,
}

/// The exit code if a check fails.
const FAILS: u8 = 3;

pub fn run(args: &Args) -> ExitCode {
    block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode, Error> {
    if let Some(settings) = args.etcd.settings() {
        let findings = told(examine_etcd(settings?), || "the etcd".to_owned()).await;
        return answer(&Report { findings, asked: true }, args.output);
    }
    let cluster = args.common.connect()?;
    let request = Request {
        client: cluster.client,
        server: &cluster.server,
        operator_namespace: &args.common.operator_namespace,
        service_account: &args.service_account,
        networks: args.networks.named(),
        socket: args.common.socket(),
        registries: &args.registries,
        watched: &args.watch_namespaces,
    };
    let mut report = told(examine(&request), || format!("the checks of {}", cluster.server)).await;
    if report.asked && args.audit {
        report.findings.extend(told(audit(&request), || "the audit".to_owned()).await);
    }
    if report.asked && args.reach {
        report.findings.extend(told(reach(&request), || "the exported addresses".to_owned()).await);
    }
    answer(&report, args.output)
}

fn answer(report: &Report, output: Format) -> Result<ExitCode, Error> {
    print(report, output)?;
    Ok(match (report.asked, report.fails()) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(FAILS),
        (true, false) => ExitCode::SUCCESS,
    })
}
