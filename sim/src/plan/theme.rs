//! Themes: troubles that seldom meet by chance, several times in one storm.
//!
//! Owns the list of them, and the worlds in which they can happen. Refuses to know an oracle: a theme makes occasions,
//! and the same oracles judge every run. Each scene needs two events within one await, or one in the seconds that
//! follow another, which general draws reach in one of some thousand seeds.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Op, Side, Size, Timed, Way, draw};
use crate::dice::Dice;
use crate::wire::{Call, Moment};

/// A trouble with several parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// A server loses its record while nobody watches.
    LostUnseen,
    /// Pods end, and only a list tells.
    Blind,
    /// A probe that flaps.
    Flapping,
    /// A clone of the cluster.
    Clone,
    /// A Service with two names.
    Alias,
    /// A leader that is stopped between the grant of a lease and the write that it is for.
    Grant,
    /// A leader that is stopped while it takes over.
    Takeover,
    /// A leader that is stopped between the slices of one service.
    Slices,
    /// A registry that comes back older while nobody runs, and whose lists break off.
    Rollback,
    /// A hold that ends while the registry is away.
    HoldAndOutage,
    /// A kind that cannot be listed after a restart.
    KindRefused,
    /// Leases that end early, with and without the news of it.
    LeaseRevoked,
    /// News that comes late, though in order.
    LateNews,
}

impl Theme {
    const ALL: [Self; 13] = [
        Self::LostUnseen,
        Self::Blind,
        Self::Flapping,
        Self::Clone,
        Self::Alias,
        Self::Grant,
        Self::Takeover,
        Self::Slices,
        Self::Rollback,
        Self::HoldAndOutage,
        Self::KindRefused,
        Self::LeaseRevoked,
        Self::LateNews,
    ];

    pub fn draw(dice: &mut Dice) -> Self {
        dice.pick(&Self::ALL).copied().unwrap_or(Self::LostUnseen)
    }

    /// The world in which it can happen.
    pub fn fit(self, size: &mut Size, spec: &mut Value) {
        match self {
            Self::Grant | Self::Takeover => size.replicas = 2,
            // Servers on two ports are two slices.
            Self::Slices => (size.replicas, size.vms) = (2, 4),
            Self::HoldAndOutage => {
                size.vms = 4;
                spec["deletionGuard"]["holdSeconds"] = json!(60);
            }
            // Lists that break off are several, and no limit but the rollback holds anything.
            Self::Rollback => {
                (size.services, size.vms, size.bare) = (2, 4, true);
                spec["import"]["onExpiry"] = json!("Remove");
                spec["deletionGuard"] = json!({"holdSeconds": 60, "minInstances": 10});
            }
            _ => {}
        }
    }

    /// The operations of a storm with this theme, and some of every day.
    pub fn ops(self, dice: &mut Dice, storm: Duration) -> Vec<Timed> {
        let (mut ops, mut at) = (Vec::new(), Duration::from_secs(dice.between(1, 5)));
        while at < storm {
            let scene = self.scene(dice);
            let last = scene.iter().map(|(millis, _)| *millis).max().unwrap_or_default();
            ops.extend(scene.into_iter().map(|(millis, op)| Timed { at: at + Duration::from_millis(millis), op }));
            at += Duration::from_millis(last) + Duration::from_secs(dice.between(5, 40));
        }
        for _ in 0..dice.below(4) {
            let at = Duration::from_millis(dice.below(storm.as_millis() as u64));
            ops.extend(draw::load_op(dice).map(|op| Timed { at, op }));
        }
        ops.retain(|timed| timed.at < storm);
        ops
    }

    /// One scene: operations and their times in milliseconds.
    fn scene(self, dice: &mut Dice) -> Vec<(u64, Op)> {
        let (cluster, service) = (dice.below(2) as usize, dice.below(2) as usize);
        let (any, seconds, soon) = (dice.below(16) as usize, dice.between(1, 20), dice.below(3000));
        match self {
            Self::LostUnseen => {
                vec![(0, Op::VmStart { vm: any }), (4000, Op::LostUnseen { vm: any, seconds: dice.between(3, 20) })]
            }
            Self::Blind => {
                let while_blind = soon.min(seconds * 900);
                vec![
                    (0, Op::ApiBlind { cluster, seconds }),
                    (while_blind, Op::PodDelete { pod: any }),
                    (while_blind, Op::PodUnready { pod: any + 1, seconds: seconds + 20 }),
                ]
            }
            Self::Flapping => {
                (0..3).map(|n| (n * 8000, Op::PodUnready { pod: any, seconds: dice.between(2, 7) })).collect()
            }
            Self::Clone => vec![(0, Op::Clone { cluster, seconds: 20 }), (soon, Op::PodDelete { pod: any })],
            Self::Alias => vec![(0, Op::VmStart { vm: any }), (3000, Op::Alias { cluster, vm: any })],
            Self::Grant => {
                let mut scene = traps(0, Call::Grant, 0, frozen(dice));
                scene.extend([(1, Op::LeaseRevoked { pod: any }), (soon, Op::PodAdd { cluster, service })]);
                scene
            }
            Self::Takeover => {
                let mut scene = traps(0, Call::LeaseRead, dice.below(8), frozen(dice));
                scene.extend(traps(0, Call::Txn, dice.below(3), frozen(dice)));
                scene.extend([
                    (1, Op::Crash { replica: dice.below(2) as usize, polls: 1, seconds: 5 }),
                    (soon, Op::PodDelete { pod: any }),
                ]);
                scene
            }
            Self::Slices => {
                let starts = (0..4).map(|n| (0, Op::VmStart { vm: any + n }));
                let recreated = [(4000, Op::Recreate { cluster, service, seconds: 8 })];
                let traps = traps(11_900, Call::Slice, dice.below(2), Moment::FreezeAnswered);
                starts.chain(recreated).chain(traps).collect()
            }
            Self::Rollback => {
                // The list of the second name, or the first watch, of the processes that find it.
                let (call, skip) = if dice.permille(700) { (Call::Range, 1) } else { (Call::Watch, 0) };
                let starts = (0..8).map(|n| (0, Op::VmStart { vm: n }));
                let restored = [
                    (4000, Op::EtcdRestored { new_cluster_id: true, bumped: dice.permille(300) }),
                    (4001, Op::LostUnseen { vm: any, seconds: 1 }),
                ];
                starts.chain(restored).chain(traps(4002, call, skip, Moment::LoseAnswer)).collect()
            }
            Self::HoldAndOutage => {
                let mut scene = vec![(0, Op::VmStart { vm: any }), (3000, Op::DeletePrefix { service })];
                let away = dice.between(20_000, 50_000);
                scene.extend(registry_away(dice).into_iter().map(|op| (away, op)));
                scene
            }
            Self::KindRefused => {
                vec![(0, Op::KindRefused { cluster, kind: dice.below(8) as usize, seconds: dice.between(15, 40) })]
            }
            Self::LeaseRevoked => {
                vec![(0, Op::EtcdWatchesStalled { seconds: 9 }), (soon, Op::LeaseRevoked { pod: any })]
            }
            Self::LateNews => vec![
                (0, Op::Messages { kind: 5, seconds: 40 }),
                (soon, Op::DeletePrefix { service }),
                (soon + 1000, Op::PodUnready { pod: any, seconds: dice.between(1, 5) }),
                (soon + 1500, Op::PodUnready { pod: any + 1, seconds: dice.between(1, 5) }),
            ],
        }
    }
}

/// The same trap for both replicas of each cluster: one of the two leads.
fn traps(at: u64, call: Call, skip: u64, moment: Moment) -> Vec<(u64, Op)> {
    (0..4).map(|replica| (at, Op::Trap { replica, call, skip, moment })).collect()
}

fn frozen(dice: &mut Dice) -> Moment {
    if dice.permille(500) { Moment::Freeze } else { Moment::FreezeAnswered }
}

fn registry_away(dice: &mut Dice) -> Vec<Op> {
    let seconds = 90;
    if dice.permille(500) {
        let partition = |replica| Op::Partition { replica, side: Side::Registry, way: Way::Both, seconds };
        (0..4).map(partition).collect()
    } else {
        (0..3).map(|member| Op::EtcdDown { member, seconds }).collect()
    }
}
