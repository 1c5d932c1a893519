//! Latency one at a time: each change is of another service, and waits for the one before.
//!
//! Owns the order of the rounds. Refuses to know how a latency is measured.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::bed::{BASE, Bed, Bridge, Direction, SERVICES, Shape, service};
use crate::cold;
use crate::feed::Instance;
use crate::line::{Line, Sample};
use crate::report::Rounds;
use crate::run::Run;
use crate::stats::Spread;

/// Between two changes, so that a service has been quiet for longer than any pace of a bridge when its turn comes.
const GAP: Duration = Duration::from_millis(12);
const MEASURES: [&str; 5] = [
    "import: etcd put → slice event",
    "import: deregistration → slice event",
    "export: slice event → etcd event",
    "export: slice write → etcd event",
    "export: endpoint removed → etcd event",
];

/// Rounds by measure, and by subject.
pub type Found<'a> = BTreeMap<&'static str, BTreeMap<&'a str, Rounds>>;

/// The ideal bridge beside itself, in two halves of the rounds.
pub async fn resolution(run: &mut Run) -> Result<()> {
    run.base().await?;
    let halves = [("ideal", Bridge::Ideal), ("ideal again", Bridge::Ideal)];
    rounds(run, "resolution", halves).await.map(drop)
}

/// Both bridges, beside so many settled services.
pub async fn beside(run: &mut Run, others: usize) -> Result<()> {
    match others {
        0 => run.base().await?,
        _ => cold::settle(run, Direction::Import, Shape::of(others)).await?,
    }
    let both = Bridge::BOTH.map(|bridge| (bridge.label(), bridge));
    let found = rounds(run, &format!("latency beside {others}"), both).await?;
    for (measure, subjects) in &found {
        for (subject, rounds) in subjects {
            let samples = rounds.concat();
            run.report.latency(&format!("{measure}, beside {others}"), subject, &samples);
            if let Some(spread) = Spread::of(&samples) {
                run.report.size(
                    &format!("p50 ms of {measure}, by services"),
                    subject,
                    (others + 2 * SERVICES) as f64,
                    spread.p50,
                );
            }
        }
    }
    Ok(())
}

/// Both bridges in turns, and their rows.
pub async fn rounds<'a>(run: &mut Run, scenario: &str, subjects: [(&'a str, Bridge); 2]) -> Result<Found<'a>> {
    let (rounds, cycles) = run.form.pick((4, 1), (10, 15));
    let mut found = Found::new();
    for n in 0..rounds {
        let mut order = subjects;
        if n % 2 == 1 {
            order.reverse();
        }
        for (subject, bridge) in order {
            round(run, bridge, subject, cycles, &mut found).await?;
        }
    }
    report(run, scenario, &found, subjects.map(|(subject, _)| subject));
    Ok(found)
}

/// One round of one subject: so many cycles in each direction.
pub async fn round<'a>(
    run: &mut Run,
    bridge: Bridge,
    subject: &'a str,
    cycles: usize,
    found: &mut Found<'a>,
) -> Result<()> {
    let mut samples: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for direction in Direction::BOTH {
        let mut line = Line::new(&run.bed, bridge, BASE, direction).await?;
        for _ in 0..cycles {
            cycle(&mut run.bed, &mut line, direction, &mut samples).await?;
        }
    }
    for (measure, samples) in samples {
        found.entry(measure).or_default().entry(subject).or_default().push(samples);
    }
    Ok(())
}

/// The rows of all measures: a subject, and the one beside which it was measured.
pub fn report(run: &mut Run, scenario: &str, found: &Found, [below, measured]: [&str; 2]) {
    for measure in MEASURES {
        if let Some(rounds) = found.get(measure) {
            run.report.compare(scenario, measure, rounds, [below, measured]);
        }
    }
}

/// One instance comes to each service, and goes again.
async fn cycle(
    bed: &mut Bed,
    line: &mut Line,
    direction: Direction,
    samples: &mut BTreeMap<&'static str, Vec<f64>>,
) -> Result<()> {
    let instances: Vec<Instance> = bed
        .fresh(SERVICES)
        .into_iter()
        .enumerate()
        .map(|(n, address)| Instance { service: service(BASE, direction, n), address })
        .collect();
    for present in [true, false] {
        for instance in &instances {
            let Sample { whole, bridged } = line.change(instance, present).await?;
            let mut add = |measure: usize, sample| samples.entry(MEASURES[measure]).or_default().push(sample);
            match (direction, present) {
                (Direction::Import, true) => add(0, whole),
                (Direction::Import, false) => add(1, whole),
                (Direction::Export, true) => {
                    add(2, bridged);
                    add(3, whole);
                }
                (Direction::Export, false) => add(4, bridged),
            }
            sleep(GAP).await;
        }
    }
    Ok(())
}
