//! The schedule of a run: which faults, when, and for how long, from a seed.
//!
//! Owns the choice, which is made before the run and depends on nothing that happens. Refuses to break anything.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::fault::{Action, Fault, Impairment, MEMBERS, PODS, REPLICAS, Target, Traffic, VMS, Ways};

/// At most so many faults at once.
const AT_ONCE: usize = 3;
const SHORTEST: u64 = 5_000;
const LONGEST: u64 = 45_000;
/// Before the first fault everything is well for so long.
const CALM: Duration = Duration::from_secs(5);
/// A run of at least this length loses the data of the registry once. The guard then holds removals for 300 s, so there
/// is no use in more of it.
const LONG: Duration = Duration::from_secs(300);
/// Two faults of one part are apart by this.
const APART: Duration = Duration::from_secs(2);

/// The faults that a machine is able to make, of those that not every machine is.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// `netem` is in the kernel.
    pub delay: bool,
    /// libfaketime is installed.
    pub clock: bool,
}

/// The faults of a run of this length, in the order of their beginnings; all end before it does.
pub fn schedule(seed: u64, window: Duration, abilities: Abilities) -> Vec<Fault> {
    let mut dice = Dice(StdRng::seed_from_u64(seed));
    let mut faults = Vec::new();
    if window >= LONG {
        let action = if dice.below(2) == 0 { Action::Restore } else { Action::Empty };
        faults.push(Fault { at: window * 2 / 5, lasts: dice.between(SHORTEST, 15_000), action });
    }
    for lane in 0..AT_ONCE {
        // The first lane is nearly always busy, the others now and then.
        let pause = 8_000 * (lane as u64 * 2 + 1);
        let mut at = CALM + dice.between(0, pause);
        while let Some(fault) = dice.fault(at, window, &faults, abilities) {
            at = fault.ends() + dice.between(1_000, pause);
            faults.push(fault);
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

struct Dice(StdRng);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.0.next_u64() % n.max(1) as u64).unwrap_or_default()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A number of milliseconds.
    fn between(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.0.next_u64() % (to - from + 1))
    }

    /// A fault that begins then and shares no part with the others, or none if there is no time for it.
    fn fault(&mut self, at: Duration, window: Duration, others: &[Fault], abilities: Abilities) -> Option<Fault> {
        let left = window.checked_sub(at)?;
        if left < Duration::from_millis(SHORTEST) {
            return None;
        }
        let lasts = self.between(SHORTEST, LONGEST).min(left);
        loop {
            let action = self.action(abilities);
            // An action that is done in a moment needs no more time than that.
            let lasts = if action.is_momentary() { Duration::from_millis(SHORTEST) } else { lasts };
            let fault = Fault { at, lasts, action };
            let beside = || others.iter().filter(|o| o.overlaps(at.saturating_sub(APART), fault.ends() + APART));
            let touched = fault.action.touches();
            if !beside().any(|other| other.action.touches().iter().any(|target| touched.contains(target))) {
                return Some(fault);
            }
        }
    }

    fn action(&mut self, abilities: Abilities) -> Action {
        match self.below(100) {
            0..22 => Action::Kill(self.part()),
            22..40 => Action::Freeze(self.part()),
            40..66 => self.cut(),
            66..72 => Action::Isolate(self.part()),
            72..84 => {
                let all = [Impairment::Loss, Impairment::Rate, Impairment::Delay];
                let kind = self.one(if abilities.delay { &all } else { &all[..2] });
                let target = if self.below(6) == 0 { Target::Client } else { self.part() };
                Action::Impair(target, kind)
            }
            84..88 if abilities.clock => Action::Clock(self.below(REPLICAS), self.one(&[-3_600, -90, 90, 3_600])),
            84..90 => Action::MoveLeader,
            90..92 => Action::RemoveMember(self.below(MEMBERS)),
            92..94 => Action::Defragment(self.below(MEMBERS)),
            94..96 => Action::Compact,
            96..98 => Action::NoSpace(self.below(MEMBERS)),
            _ => Action::FillDisk,
        }
    }

    fn part(&mut self) -> Target {
        match self.below(20) {
            0..5 => Target::Replica(self.below(REPLICAS)),
            5..9 => Target::Member(self.below(MEMBERS)),
            9..11 => Target::ApiServer,
            11 => Target::Store,
            12 => Target::ControllerManager,
            13 => Target::Dns,
            14..17 => Target::Vm(self.below(VMS)),
            _ => Target::Pod(self.below(PODS)),
        }
    }

    fn cut(&mut self) -> Action {
        let member = Target::Member(self.below(MEMBERS));
        let replica = Target::Replica(self.below(REPLICAS));
        let vm = Target::Vm(self.below(VMS));
        let (from, to) = match self.below(12) {
            0..3 => (replica, member),
            3..5 => (replica, Target::ApiServer),
            5 => (replica, vm),
            6 => (Target::ApiServer, Target::Store),
            7 => (member, Target::Member((self.below(MEMBERS - 1) + 1 + member_number(member)) % MEMBERS)),
            8 => (Target::Client, member),
            9 => (vm, member),
            10 => (Target::Dns, Target::ApiServer),
            _ => (Target::ControllerManager, Target::ApiServer),
        };
        let ways = self.one(&[Ways::Both, Ways::Both, Ways::Out, Ways::In]);
        let etcd = matches!(to, Target::Member(_) | Target::Store) && !matches!(from, Target::Member(_));
        let traffic =
            self.one(if etcd { &[Traffic::All, Traffic::Syn, Traffic::Etcd] } else { &[Traffic::All, Traffic::Syn] });
        Action::Cut { from, to, ways, traffic }
    }
}

fn member_number(target: Target) -> usize {
    if let Target::Member(number) = target { number } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: Abilities = Abilities { delay: true, clock: true };

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    #[test]
    fn a_seed_gives_one_schedule() {
        assert_eq!(schedule(7, minutes(10), ALL), schedule(7, minutes(10), ALL));
        assert_ne!(schedule(7, minutes(10), ALL), schedule(8, minutes(10), ALL));
    }

    #[test]
    fn one_to_three_at_once_for_5_to_45_s_each_inside_the_run() {
        for seed in 0..50 {
            let faults = schedule(seed, minutes(10), ALL);
            assert!(faults.len() >= 20, "seed {seed}: {}", faults.len());
            for fault in &faults {
                assert!(
                    fault.lasts >= Duration::from_millis(SHORTEST) && fault.lasts <= Duration::from_millis(LONGEST)
                );
                assert!(fault.at >= CALM && fault.ends() <= minutes(10), "seed {seed}: {fault}");
                let at_once = faults.iter().filter(|other| other.at <= fault.at && fault.at < other.ends()).count();
                // The loss of all data comes in addition.
                assert!(at_once <= AT_ONCE + 1, "seed {seed}: {at_once} at {fault}");
            }
        }
    }

    #[test]
    fn no_two_faults_at_once_touch_one_part() {
        for seed in 0..50 {
            let faults = schedule(seed, minutes(10), ALL);
            for (n, one) in faults.iter().enumerate() {
                for other in faults[n + 1..].iter().filter(|other| other.overlaps(one.at, one.ends())) {
                    let both: Vec<Target> =
                        one.action.touches().into_iter().filter(|t| other.action.touches().contains(t)).collect();
                    assert!(both.is_empty(), "seed {seed}: {one} and {other}");
                }
            }
        }
    }

    #[test]
    fn every_kind_of_fault_comes_in_fifty_seeds() {
        let kind = |fault: &Fault| format!("{:?}", fault.action).split(['(', ' ']).next().unwrap().to_owned();
        let kinds: BTreeSet<String> =
            (0..50).flat_map(|seed| schedule(seed, minutes(10), ALL)).map(|fault| kind(&fault)).collect();
        assert_eq!(kinds.len(), 14, "{kinds:?}");
    }

    #[test]
    fn a_machine_without_an_ability_gets_no_fault_that_needs_it() {
        let none = Abilities { delay: false, clock: false };
        for fault in (0..50).flat_map(|seed| schedule(seed, minutes(10), none)) {
            let needs = matches!(fault.action, Action::Clock(..) | Action::Impair(_, Impairment::Delay));
            assert!(!needs, "{fault}");
        }
    }

    #[test]
    fn a_short_run_keeps_the_data_of_the_registry() {
        let lost = |fault: &Fault| matches!(fault.action, Action::Restore | Action::Empty);
        assert!((0..50).all(|seed| !schedule(seed, minutes(1), ALL).iter().any(lost)));
        assert!((0..50).all(|seed| schedule(seed, minutes(10), ALL).iter().filter(|f| lost(f)).count() == 1));
    }
}
