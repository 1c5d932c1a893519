//! `twinspan parity`: every instance of a service, and the sides that see it.
//!
//! Owns its flags and exit code. Refuses to ask the sides, which [`crate::tools::parity`] does.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use twinspan_core::model::ServiceKey;

use super::common::{Error, Looking, run as block_on};
use crate::tools::lookup::LookupError;
use crate::tools::notes;
use crate::tools::parity::{Request, Resolver, Table, dns_of, gather, risks};
use crate::tools::print::{Format, print};
use crate::tools::viewer::Unsynced;

/// Show every instance of a RegisteredService, who sees it (cluster, registry, DNS, a client of the framework), and why
/// one does not.
///
/// Exit code 0 where all sides agree, 3 where they differ, 1 where one could not be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  twinspan parity user -n shop\n  twinspan parity user -n shop --dns 10.96.0.10 -o json"
)]
pub struct Args {
    /// Name of the RegisteredService
    name: String,
    /// Its namespace; without one that of the context
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The DNS server to ask, as IP or IP:PORT; without one the system's, where it is the cluster's
    #[arg(long, env = "TWINSPAN_DNS", value_name = "ADDR", value_parser = server)]
    dns: Option<SocketAddr>,
    /// The cluster's DNS domain
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    cluster_domain: String,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    looking: Looking,
}

fn server(text: &str) -> Result<SocketAddr, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, 53));
    }
    text.parse().map_err(|_| "want an IP address, or IP:PORT".to_owned())
}

/// The exit code if the sides do not agree.
const DIFFERS: u8 = 3;

pub fn run(args: &Args) -> ExitCode {
    block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode, Error> {
    let common = &args.looking.common;
    let resolver = Resolver::new(args.dns)?;
    let cluster = common.reach().await?;
    let key = ServiceKey::new(args.namespace.as_ref().unwrap_or(&cluster.namespace), &args.name);
    let request = Request {
        client: cluster.client.clone(),
        key: key.clone(),
        operator_namespace: &common.operator_namespace,
        resolver: &resolver,
        cluster_domain: &args.cluster_domain,
    };
    if let Some(owned) = cluster.owned(&common.operator_namespace, Some(&key.namespace)).await? {
        let missing = || LookupError::Missing(format!("RegisteredService {key}"));
        let object = owned.service(&key.name).ok_or_else(missing)?;
        return answer(args, &owned.parity(object, &dns_of(&request, object).await?));
    }
    let gathered = gather(&request).await?;
    let (viewer, missing) = args.looking.look(&cluster.client).await?;
    let preview = viewer.preview(&key).await?;
    let leader = viewer.leader().await.map_err(Box::new)?;
    viewer.end().await;
    let others = |missing: &&Unsynced| match missing {
        Unsynced::Registry(other) => *other != key,
        Unsynced::Names(_) => true,
        Unsynced::List(_) => false,
    };
    let missing = missing.iter().filter(|missing| !others(missing)).map(notes::unsynced);
    let table = Table::new(&gathered.seen_by, gathered.framework)
        .remarked(preview.iter().flat_map(notes::of_service))
        .remarked(notes::of_leader(leader.as_deref()))
        .remarked(missing)
        .remarked(risks(&gathered))
        .explained(preview.map(|preview| preview.instances).unwrap_or_default());
    answer(args, &table)
}

fn answer(args: &Args, table: &Table) -> Result<ExitCode, Error> {
    print(table, args.output)?;
    Ok(if table.agrees() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) })
}
