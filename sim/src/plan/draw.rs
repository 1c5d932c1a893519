//! The draw of operations.
//!
//! Owns how often servers, people and faults do what. Refuses to know what an operation does.

use std::time::Duration;

use super::{Op, Side, Size, Timed, Way};
use crate::dice::Dice;
use crate::wire::{Call, Moment};

/// The operations of a storm.
pub fn ops(dice: &mut Dice, storm: Duration) -> Vec<Timed> {
    // A third of the kinds never comes in a run, so that the others come more often.
    let kinds: Vec<u64> = (0..KINDS).filter(|_| dice.permille(667)).collect();
    let mut ops = Vec::new();
    for _ in 0..dice.between(6, 30) {
        let at = Duration::from_millis(dice.below(storm.as_millis() as u64));
        let load = dice.permille(500);
        let op = if load { load_op(dice) } else { fault(dice, &kinds) };
        ops.extend(op.map(|op| Timed { at, op }));
    }
    ops
}

/// Something that servers or people do.
pub fn load_op(dice: &mut Dice) -> Option<Op> {
    let (cluster, service, any) = (dice.below(2) as usize, dice.below(2) as usize, dice.below(16) as usize);
    let seconds = dice.between(1, 60);
    Some(match dice.below(35) {
        0..4 => Op::PodAdd { cluster, service },
        4..8 => Op::PodDelete { pod: any },
        8..11 => Op::PodUnready { pod: any, seconds },
        11 => Op::ScaleToZero { cluster, service, seconds },
        12..16 => Op::VmStart { vm: any },
        16..19 => Op::VmStop { vm: any },
        19..21 => Op::VmKill { vm: any },
        21 => Op::VmFreeze { vm: any, seconds: seconds * 2 },
        22 => Op::VmLoses { vm: any },
        23 => Op::DeleteKey { vm: any },
        24 => Op::DeletePrefix { service },
        25 => Op::Junk { service },
        26 => Op::Suspend { cluster, service, seconds },
        27 => Op::Recreate { cluster, service, seconds },
        28 => Op::Approve { cluster, service },
        29 => Op::JunkAtPod { pod: any, seconds },
        30 => Op::Duplicate { cluster, service, seconds },
        31 => Op::Alias { cluster, vm: any },
        32 => Op::LeaseRevoked { pod: any },
        33 => Op::Hostile { cluster },
        _ => Op::DeleteSlice { cluster, service },
    })
}

/// The deeds of administrators of the registry, and the losses of its watches.
pub fn administration(dice: &mut Dice, size: Size, storm: Duration) -> Vec<Timed> {
    let mut ops = Vec::new();
    let mut draw = |dice: &mut Dice, times: u64, op: &dyn Fn(&mut Dice, usize, u64) -> Op| {
        for _ in 0..times {
            let at = Duration::from_millis(dice.below(storm.as_millis() as u64));
            let (number, seconds) = (dice.below(2) as usize, dice.between(5, 60));
            ops.push(Timed { at, op: op(dice, number, seconds) });
        }
    };
    if size.password {
        let times = dice.between(1, 2);
        draw(dice, times, &|dice, service, seconds| Op::EtcdForbids { service, reads: dice.permille(500), seconds });
        let times = dice.between(0, 2);
        draw(dice, times, &|_, _, seconds| Op::EtcdPassword { seconds });
    }
    if size.audited {
        let times = dice.between(1, 3);
        draw(dice, times, &|_, _, seconds| Op::EventsLost { seconds });
    }
    let times = u64::from(dice.permille(80));
    draw(dice, times, &|_, cluster, seconds| Op::Reconnect { cluster, seconds });
    let times = u64::from(dice.permille(80) && !size.bare);
    draw(dice, times, &|_, cluster, seconds| Op::Move { cluster, seconds });
    let times = u64::from(dice.permille(80));
    draw(dice, times, &|dice, cluster, seconds| Op::Created { cluster, service: dice.below(2) as usize, seconds });
    ops
}

/// Times at which the records of others come or go. The watches are cut there now and then: a session that begins
/// counts.
pub fn crowds(dice: &mut Dice, storm: Duration) -> Vec<Timed> {
    let mut ops = Vec::new();
    for _ in 0..dice.between(1, 3) {
        let at = Duration::from_millis(dice.below(storm.as_millis() as u64));
        ops.push(Timed { at, op: Op::Crowd { seconds: dice.between(5, 60) } });
        if dice.permille(600) {
            ops.push(Timed { at, op: Op::EtcdWatchesCut });
        }
    }
    ops
}

/// Kinds of faults.
const KINDS: u64 = 34;

fn fault(dice: &mut Dice, kinds: &[u64]) -> Option<Op> {
    let kind = *dice.pick(kinds)?;
    let (cluster, server) = (dice.below(2) as usize, dice.below(2) as usize);
    let (replica, member) = (dice.below(4) as usize, dice.below(3) as usize);
    let long = dice.permille(300);
    let seconds = if long { dice.between(20, 120) } else { dice.between(1, 20) };
    let way = *dice.pick(&[Way::Both, Way::There, Way::Back])?;
    Some(match kind {
        0 | 1 => Op::Crash { replica, polls: dice.between(1, 2000), seconds: dice.between(1, 20) },
        2 => Op::Stop { replica, seconds: dice.between(1, 20) },
        3 | 4 => Op::Freeze { replica, seconds },
        5 => Op::Clock { replica, seconds: *dice.pick(&[-3600, -60, 60, 3600])? },
        6 => Op::Partition { replica, side: Side::Cluster, way, seconds },
        7 => Op::Partition { replica, side: Side::Registry, way, seconds },
        8 => Op::EtcdDown { member, seconds },
        9 => Op::EtcdFrozen { member, seconds },
        10 => Op::EtcdNoLeader { seconds: seconds.min(30) },
        11 => Op::EtcdLeaderMoved,
        12 => Op::EtcdWatchesCut,
        13 => Op::EtcdWatchesStalled { seconds },
        14 => Op::EtcdCompacted,
        15 => Op::EtcdFull { seconds },
        16 => Op::EtcdRestored { new_cluster_id: dice.permille(500), bumped: dice.permille(300) },
        17 => Op::EtcdEmptied { new_cluster_id: dice.permille(500) },
        18 => Op::ApiDown { cluster, server, seconds },
        19 => Op::ApiFrozen { cluster, server, seconds },
        20 => Op::ApiWatchesCut { cluster },
        21 => Op::ApiCompacted { cluster },
        22 => Op::ApiBlind { cluster, seconds },
        23 => Op::ApiWatchesStalled { cluster, seconds },
        24 => Op::ApiLags { cluster, server, seconds: seconds.min(30) },
        25 => Op::ApiErrors {
            cluster,
            code: *dice.pick(&[429, 500, 503, 504])?,
            count: dice.between(1, 10),
            applied: dice.permille(500),
        },
        26 => Op::KindRefused { cluster, kind: dice.below(8) as usize, seconds: dice.between(10, 40) },
        27 => Op::LostUnseen { vm: dice.below(16) as usize, seconds: dice.between(3, 20) },
        28 => Op::Clone { cluster, seconds },
        29 | 30 => {
            let (call, moment) = (*dice.pick(&Call::ALL)?, *dice.pick(&Moment::ALL)?);
            Op::Trap { replica, call, skip: dice.below(4), moment }
        }
        _ => Op::Messages { kind: *dice.pick(&[0, 1, 2, 3, 3, 4, 4, 5, 6])?, seconds },
    })
}
