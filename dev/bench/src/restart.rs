//! A restart with everything in sync: the time until Twinspan is ready and leads, and that it writes nothing.
//!
//! Owns the comparison of both sides before and after. Refuses to count status, which is no part of either side.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use tokio::time::{Instant, sleep};

use crate::bed::{Bed, Bridge, Direction, Shape};
use crate::cold::{self, GROUP};
use crate::floors;
use crate::process::QUIET;
use crate::records::{self, BRIDGE, MANAGER_LABEL};
use crate::registry;
use crate::report::{Row, number};
use crate::run::Run;
use crate::stats::Ratio;

const POLL: Duration = Duration::from_millis(10);
const DEADLINE: Duration = Duration::from_secs(120);

pub async fn run(run: &mut Run, direction: Direction, shape: Shape) -> Result<()> {
    cold::settle(run, direction, shape).await?;
    run.bed.process(Bridge::Twinspan, GROUP)?.quiet(DEADLINE).await?;
    let (mut ready, mut leads, mut lists, mut quiet) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut cpu, mut writes) = (Vec::new(), 0);
    for _ in 0..run.form.pick(2, 5) {
        run.bed.stop_twinspan().await?;
        let before = versions(&run.bed).await?;
        lists.push(floors::lists(&run.bed).await?.as_secs_f64() * 1000.0);
        let start = Instant::now();
        run.bed.start_twinspan()?;
        let (at_ready, at_lead) = started(&run.bed, start).await?;
        ready.push(at_ready.as_secs_f64() * 1000.0);
        leads.push(at_lead.as_secs_f64() * 1000.0);
        let process = run.bed.process(Bridge::Twinspan, GROUP)?;
        process.quiet(DEADLINE).await?;
        quiet.push(start.elapsed().saturating_sub(QUIET).as_secs_f64());
        cpu.push(process.cpu()?.as_secs_f64());
        writes += differences(&before, &versions(&run.bed).await?);
    }
    let scenario = format!("restart in sync, {} {shape}", direction.label());
    let rounds = |measured: &[f64]| measured.iter().copied().zip(lists.iter().copied()).collect::<Vec<_>>();
    run.report.rows.push(Row::new(&scenario, "raw lists", "raw").samples(&lists));
    let all = |of: &[f64]| of.iter().map(|one| number(*one)).collect::<Vec<_>>().join(", ");
    let row = Row::new(&scenario, "ready", Bridge::Twinspan.label()).samples(&ready);
    let row = row
        .ratio("to raw lists", Ratio::of(&rounds(&ready)))
        .fact("writes of records and slices", writes.to_string())
        .fact("s until quiet", all(&quiet))
        .fact("CPU s until then", all(&cpu));
    run.report.rows.push(row);
    let row = Row::new(&scenario, "leads", Bridge::Twinspan.label()).samples(&leads);
    run.report.rows.push(row.ratio("to raw lists", Ratio::of(&rounds(&leads))));
    Ok(())
}

/// The times until a Twinspan that was just started is ready, and until it leads.
pub async fn started(bed: &Bed, start: Instant) -> Result<(Duration, Duration)> {
    let twinspan = bed.twinspan()?;
    let (mut ready, mut leads) = (None, None);
    while start.elapsed() < DEADLINE {
        twinspan.part().check_running()?;
        // The address is not there at once.
        if ready.is_none() && twinspan.get("/readyz").await.is_ok_and(|(status, _)| status == 200) {
            ready = Some(start.elapsed());
        }
        if leads.is_none() && twinspan.metric("twinspan_leader").await.is_ok_and(|leader| leader == Some(1.0)) {
            leads = Some(start.elapsed());
        }
        if let (Some(ready), Some(leads)) = (ready, leads) {
            return Ok((ready, leads));
        }
        sleep(POLL).await;
    }
    bail!("Twinspan is not ready and does not lead within {DEADLINE:?}")
}

/// The version of each record and of each slice that Twinspan may write.
async fn versions(bed: &Bed) -> Result<BTreeMap<String, String>> {
    let prefix = format!("{}/", Bridge::Twinspan.place(GROUP).prefix);
    let (listed, _) = registry::list(&bed.etcd, &prefix).await?;
    let mut versions: BTreeMap<String, String> = listed
        .iter()
        .map(|kv| (String::from_utf8_lossy(kv.key()).into_owned(), kv.mod_revision().to_string()))
        .collect();
    let ours = ListParams::default().labels(&format!("{MANAGER_LABEL}={BRIDGE}"));
    for slice in Api::<EndpointSlice>::all(bed.admin.clone()).list(&ours).await?.items {
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        let version = slice.metadata.resource_version.clone().unwrap_or_default();
        versions.insert(format!("{namespace} {}", records::name(&slice)), version);
    }
    Ok(versions)
}

/// The number of keys and objects that are not in both with the same version.
fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> usize {
    let changed = before.iter().filter(|(name, version)| after.get(*name) != Some(version)).count();
    changed + after.keys().filter(|name| !before.contains_key(*name)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_write_is_a_difference() {
        let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let before = of(&[("same", "1"), ("gone", "1"), ("changed", "1")]);
        let after = of(&[("same", "1"), ("new", "1"), ("changed", "2")]);
        assert_eq!(differences(&before, &after), 3);
    }
}
