//! Changes of one service that follow soon after each other: 150 ms apart, and five within 200 ms.
//!
//! Owns the moments. Refuses to wait for one change before it makes the next.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::bed::{BASE, Bridge, Direction, service};
use crate::feed::Instance;
use crate::line::{Line, Planned};
use crate::report::Rounds;
use crate::run::Run;

const APART: Duration = Duration::from_millis(150);
const BURST: u32 = 5;
const WITHIN_BURST: Duration = Duration::from_millis(45);
/// After a round, until no pace and no echo of it is left.
const REST: Duration = Duration::from_millis(450);

pub async fn spaced(run: &mut Run) -> Result<()> {
    let (rounds, changes) = run.form.pick((2, 6), (10, 30));
    let found = run_rounds(run, rounds, changes, APART).await?;
    for (direction, subjects) in found {
        run.report.compare("150 ms apart", &direction, &subjects, Bridge::BOTH.map(Bridge::label));
    }
    Ok(())
}

pub async fn burst(run: &mut Run) -> Result<()> {
    let rounds = run.form.pick(3, 20);
    let found = run_rounds(run, rounds, BURST, WITHIN_BURST).await?;
    for (direction, subjects) in found {
        let part = |range: std::ops::Range<usize>| -> BTreeMap<&str, Rounds> {
            let cut = |rounds: &Rounds| rounds.iter().map(|round| round[range.clone()].to_vec()).collect();
            subjects.iter().map(|(subject, rounds)| (*subject, cut(rounds))).collect()
        };
        let order = Bridge::BOTH.map(Bridge::label);
        run.report.compare("five within 200 ms", &format!("{direction}, first"), &part(0..1), order);
        run.report.compare("five within 200 ms", &format!("{direction}, second to fifth"), &part(1..5), order);
    }
    Ok(())
}

async fn run_rounds(
    run: &mut Run,
    rounds: usize,
    changes: u32,
    apart: Duration,
) -> Result<BTreeMap<String, BTreeMap<&'static str, Rounds>>> {
    run.base().await?;
    let mut lines = Vec::new();
    for direction in Direction::BOTH {
        for bridge in Bridge::BOTH {
            lines.push((direction, bridge, Line::new(&run.bed, bridge, BASE, direction).await?));
        }
    }
    let mut found: BTreeMap<String, BTreeMap<&'static str, Rounds>> = BTreeMap::new();
    for _ in 0..rounds {
        for (direction, bridge, line) in &mut lines {
            let addresses = run.bed.fresh(usize::try_from(changes)?);
            let planned = |(n, address)| Planned {
                after: apart * n,
                instance: Instance { service: service(BASE, *direction, 0), address },
                present: true,
            };
            let plan: Vec<Planned> = (0..changes).zip(addresses).map(planned).collect();
            let samples = line.follow(&plan).await?.iter().map(|sample| sample.bridged).collect();
            sleep(REST).await;
            let away: Vec<Planned> =
                plan.iter().map(|p| Planned { after: Duration::ZERO, present: false, ..p.clone() }).collect();
            line.follow(&away).await?;
            sleep(REST).await;
            found.entry(direction.label().to_owned()).or_default().entry(bridge.label()).or_default().push(samples);
        }
    }
    Ok(found)
}
