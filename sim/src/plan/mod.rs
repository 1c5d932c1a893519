//! The plan of a run: timed operations, made from the seed before the run begins.
//!
//! - [`op`]: the operations. [`draw`]: how often each comes. [`theme`]: troubles that seldom meet by chance.
//!
//! Owns the list and the size of the world. Refuses to carry anything out. Plain data, so that an operation can be
//! printed and taken out.

mod draw;
mod op;
mod theme;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::wire::Scripted;
pub use op::Op;
use theme::Theme;

/// How large a world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub clusters: usize,
    pub replicas: usize,
    pub services: usize,
    /// API servers of a cluster.
    pub servers: usize,
    /// Members of the registry's etcd.
    pub members: usize,
    /// Servers outside of each service.
    pub vms: usize,
    /// Pods of each service in each cluster.
    pub pods: usize,
    /// In so many of a thousand turns any ready task runs.
    pub shuffle: u64,
    /// Keys have no prefix, so that each name is a range of its own.
    #[serde(default)]
    pub bare: bool,
    /// The registry asks for a password, and knows what the user may read and write.
    #[serde(default)]
    pub password: bool,
    /// Replicas audit the registry within the run, and its watches may lose events.
    #[serde(default)]
    pub audited: bool,
    /// Others have so many records that replicas follow the names that they ask for.
    #[serde(default)]
    pub crowd: bool,
    /// No replica ever runs: the control. The storm begins this long after the beginning, as in the run beside it.
    #[serde(default)]
    pub control: Option<Duration>,
}

impl Size {
    /// The world of a scene: one cluster of two replicas, one service, and nothing special.
    pub const SCENE: Self = Self {
        clusters: 1,
        replicas: 2,
        services: 1,
        servers: 1,
        members: 1,
        vms: 2,
        pods: 2,
        shuffle: 0,
        bare: false,
        password: false,
        audited: false,
        crowd: false,
        control: None,
    };
}

/// An operation at a time since the storm began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    pub at: Duration,
    pub op: Op,
}

/// The side of a replica that a fault concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Side {
    Cluster,
    Registry,
}

/// The directions of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Way {
    Both,
    There,
    Back,
}

/// A run: everything that happens follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub seed: u64,
    pub size: Size,
    /// The fields of each RegisteredService besides its registry.
    pub spec: Value,
    /// Length of the storm.
    pub storm: Duration,
    pub ops: Vec<Timed>,
    /// After the storm one replica of each cluster and a quorum of the registry are healed, the rest never.
    pub core: bool,
    /// A fault of one replica at one of its messages in the storm.
    pub moment: Option<Scripted>,
    /// Whether the run goes on until it is seen to rest.
    pub rests: bool,
}

/// So many of a thousand seeds have a theme.
const THEMED: u64 = 400;
/// So many have a registry with a password.
const PASSWORDS: u64 = 150;
/// In so many replicas audit the registry.
const AUDITED: u64 = 200;
/// In so many of those with a prefix the records of others come and go.
const CROWDS: u64 = 300;

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "plan");
        let mut size = Size {
            clusters: if dice.permille(400) { 2 } else { 1 },
            replicas: if dice.permille(700) { 2 } else { 1 },
            services: dice.between(1, 2) as usize,
            servers: if dice.permille(300) { 2 } else { 1 },
            members: if dice.permille(300) { 3 } else { 1 },
            vms: dice.between(1, 4) as usize,
            pods: dice.between(1, 4) as usize,
            shuffle: *dice.pick(&[0, 0, 100, 500]).unwrap_or(&0),
            bare: dice.permille(250),
            password: false,
            audited: false,
            crowd: false,
            control: None,
        };
        let storm = Duration::from_secs(dice.between(40, 150));
        let theme = dice.permille(THEMED).then(|| Theme::draw(&mut dice));
        let mut ops = match theme {
            Some(theme) => theme.ops(&mut dice, storm),
            None => draw::ops(&mut dice, storm),
        };
        let on_expiry = *dice.pick(&["Probe", "Probe", "Heal", "Remove"]).unwrap_or(&"Probe");
        let hold = *dice.pick(&[60, 300]).unwrap_or(&60);
        let mut spec = json!({"import": {"onExpiry": on_expiry}, "deletionGuard": {"holdSeconds": hold}});
        if let Some(theme) = theme {
            theme.fit(&mut size, &mut spec);
        }
        let core = dice.permille(200);
        // Of dice of their own: a seed keeps what else it draws.
        let mut dice = Dice::new(seed, "administrators");
        (size.password, size.audited) = (dice.permille(PASSWORDS), dice.permille(AUDITED));
        ops.extend(draw::administration(&mut dice, size, storm));
        let mut dice = Dice::new(seed, "crowd");
        if !size.bare && dice.permille(CROWDS) {
            size.crowd = dice.permille(500);
            ops.extend(draw::crowds(&mut dice, storm));
        }
        ops.sort_by_key(|timed| timed.at);
        Self { seed, size, spec, storm, ops, core, moment: None, rests: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_plan_in_the_order_of_its_times() {
        assert_eq!(Plan::of(3), Plan::of(3));
        for seed in 0..50 {
            let plan = Plan::of(seed);
            assert!(plan.ops.is_sorted_by_key(|timed| timed.at), "{seed}");
            assert!(plan.ops.iter().all(|timed| timed.at < plan.storm), "{seed}");
        }
    }
}
