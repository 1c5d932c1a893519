//! Churn: 200 changes a second over 1,000 services.
//!
//! Owns the load: instances come in the first half and go in the second, in an order that a seed decides. Refuses to
//! know how a latency is measured.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::bed::{Bed, Bridge, Direction, Shape, service};
use crate::cold::{self, GROUP};
use crate::feed::Instance;
use crate::line::{Line, Planned};
use crate::report::{Rounds, Row};
use crate::run::Run;

const RATE: u32 = 200;
pub const SERVICES: usize = 1000;

pub async fn run(run: &mut Run, direction: Direction) -> Result<()> {
    cold::settle(run, direction, Shape::of(SERVICES)).await?;
    run.bed.seed(Bridge::Ideal, GROUP, direction, Shape::of(SERVICES)).await?;
    run.bed.start_ideal(GROUP)?.ready().await?;
    let (rounds, seconds) = run.form.pick((1, 10), (3, 30));
    let mut random = StdRng::seed_from_u64(run.seed);
    let mut found: BTreeMap<&str, Rounds> = BTreeMap::new();
    let mut cpu: BTreeMap<Bridge, Duration> = BTreeMap::new();
    for _ in 0..rounds {
        for bridge in Bridge::BOTH {
            let mut line = Line::new(&run.bed, bridge, GROUP, direction).await?;
            let load = Load { group: GROUP, services: SERVICES, rate: RATE, seconds };
            let plan = plan(&mut run.bed, &mut random, direction, load);
            let process = run.bed.process(bridge, GROUP)?;
            let before = process.cpu()?;
            let samples = line.follow(&plan).await?.iter().map(|sample| sample.bridged).collect();
            *cpu.entry(bridge).or_default() += process.cpu()? - before;
            found.entry(bridge.label()).or_default().push(samples);
        }
    }
    run.bed.clear(Bridge::Ideal, GROUP).await?;

    let scenario = format!("churn, {RATE} changes/s over {SERVICES} services");
    run.report.compare(&scenario, direction.label(), &found, Bridge::BOTH.map(Bridge::label));
    let share = |cpu: &Duration| cpu.as_secs_f64() / f64::from(rounds * seconds) * 100.0;
    for (bridge, cpu) in &cpu {
        let row = Row::new(&scenario, &format!("{}: CPU", direction.label()), bridge.label());
        run.report.rows.push(row.rate(share(cpu), "% of a core"));
        for samples in found.get(bridge.label()).into_iter().flatten() {
            run.report.latency(&format!("{} under churn", direction.label()), bridge.label(), samples);
        }
    }
    Ok(())
}

/// The rate and the place of changes.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub group: &'static str,
    pub services: usize,
    /// Changes a second.
    pub rate: u32,
    pub seconds: u32,
}

/// Instances that come in the first half, and go in the second.
pub fn plan(bed: &mut Bed, random: &mut StdRng, direction: Direction, load: Load) -> Vec<Planned> {
    let half = usize::try_from(load.rate * load.seconds / 2).unwrap_or_default();
    let instance = |address| {
        let service = service(load.group, direction, random.random_range(0..load.services));
        Instance { service, address }
    };
    let mut instances: Vec<Instance> = bed.fresh(half).into_iter().map(instance).collect();
    let coming: Vec<(Instance, bool)> = instances.iter().map(|instance| (instance.clone(), true)).collect();
    // None goes soon after it came: a bridge may write neither, and no event would tell a latency.
    let (early, late) = instances.split_at_mut(half / 2);
    early.shuffle(random);
    late.shuffle(random);
    let going = instances.into_iter().map(|instance| (instance, false));
    let planned =
        |(n, (instance, present))| Planned { after: Duration::from_secs(1) * n / load.rate, instance, present };
    (0..).zip(coming.into_iter().chain(going)).map(planned).collect()
}
