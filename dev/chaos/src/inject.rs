//! Faults on the parts of the bed: their beginning and their end.
//!
//! Owns the undoing of each. Refuses to choose them, and to judge what follows.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};
use twinspan_testbed::Etcd;

use crate::bed::{Bed, clock_file};
use crate::fault::{Action, Fault, SMALL_DISK, Target};
use crate::supervisor::Supervisor;
use crate::truth::Truth;
use crate::{nft, registry};

/// How often the end of a fault is tried: what is left of one would spoil the rest of the run.
const TRIES: usize = 10;

#[derive(Debug)]
pub struct Injector<'a> {
    pub bed: &'a Bed,
    pub supervisor: &'a Supervisor,
    pub truth: &'a Truth,
    /// The beginning of the run.
    pub start: Instant,
    /// Faults that could not begin: an etcd without a quorum moves no leader.
    pub skipped: Mutex<Vec<String>>,
    /// Faults that could not be undone, and why.
    pub failures: Mutex<Vec<String>>,
}

impl Injector<'_> {
    /// Carries out a whole schedule.
    pub async fn run(&self, faults: &[Fault]) {
        join_all(faults.iter().enumerate().map(|(number, fault)| self.carry_out(number, fault))).await;
    }

    async fn carry_out(&self, number: usize, fault: &Fault) {
        sleep_until(self.start + fault.at).await;
        println!("{:>6.1} s  {}", self.start.elapsed().as_secs_f64(), fault.action);
        if let Err(error) = self.begin(number, fault.action).await {
            println!("        it cannot begin: {error:#}");
            self.skipped.lock().unwrap_or_else(PoisonError::into_inner).push(fault.action.to_string());
            return;
        }
        sleep_until(self.start + fault.ends()).await;
        for attempt in 1..=TRIES {
            match self.end(number, fault.action).await {
                Ok(()) => break,
                Err(error) if attempt == TRIES => self.failed(format!("{}: cannot end: {error:#}", fault.action)),
                Err(_) => sleep(Duration::from_secs(1)).await,
            }
        }
        println!("{:>6.1} s  ended: {}", self.start.elapsed().as_secs_f64(), fault.action);
    }

    fn failed(&self, what: String) {
        println!("        {what}");
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    async fn begin(&self, number: usize, action: Action) -> Result<()> {
        let members = &self.bed.members;
        match action {
            Action::Kill(target) => self.kill(target).await,
            Action::Freeze(target) => {
                self.lives(target, false);
                self.bed.parts(target).into_iter().try_for_each(|part| part.freeze())
            }
            Action::Cut { from, to, ways, traffic } => {
                let peer = self.bed.host(to)?.address();
                nft::begin(self.bed.host(from)?, &nft::cut(number, peer, ways, traffic))
            }
            Action::Isolate(target) => nft::begin(self.bed.host(target)?, &nft::isolate(number)),
            Action::Impair(target, impairment) => nft::impair(self.bed.host(target)?, number, impairment),
            Action::Clock(replica, seconds) => self.set_clock(replica, seconds),
            Action::MoveLeader => registry::move_leader(members).await,
            Action::RemoveMember(member) => {
                registry::remove_member(members, member).await?;
                self.kill(Target::Member(member)).await?;
                registry::wipe(members[member].data())
            }
            Action::Defragment(member) => registry::defragment(members, member).await,
            Action::Compact => registry::compact(members).await,
            Action::NoSpace(member) => registry::no_space(members, member, true).await,
            Action::FillDisk => registry::fill(&members[SMALL_DISK]),
            Action::Restore => registry::save(members, &self.snapshot()).await,
            Action::Empty => {
                self.kill_all_members().await?;
                members.iter().map(Etcd::data).try_for_each(registry::wipe)
            }
        }
    }

    async fn end(&self, number: usize, action: Action) -> Result<()> {
        let members = &self.bed.members;
        match action {
            Action::Kill(target) => self.supervisor.keep(target),
            Action::Freeze(target) => {
                self.bed.parts(target).into_iter().try_for_each(|part| part.thaw())?;
                self.lives(target, true);
            }
            Action::Cut { from, .. } => nft::end(self.bed.host(from)?, number)?,
            Action::Isolate(target) => nft::end(self.bed.host(target)?, number)?,
            Action::Impair(target, impairment) => nft::mend(self.bed.host(target)?, number, impairment)?,
            Action::Clock(replica, _) => self.set_clock(replica, 0)?,
            Action::RemoveMember(member) => {
                registry::add_member(members, member).await?;
                self.supervisor.keep(Target::Member(member));
            }
            Action::NoSpace(member) => registry::no_space(members, member, false).await?,
            Action::FillDisk => registry::free(&members[SMALL_DISK])?,
            Action::Restore => {
                self.kill_all_members().await?;
                registry::restore(members, &self.snapshot()).await?;
                self.keep_all_members();
            }
            Action::Empty => self.keep_all_members(),
            Action::MoveLeader | Action::Defragment(_) | Action::Compact => {}
        }
        Ok(())
    }

    async fn kill(&self, target: Target) -> Result<()> {
        self.supervisor.leave(target);
        self.lives(target, false);
        for part in self.bed.parts(target) {
            // A part that has ended by itself is where it should be.
            let _ = part.kill().await;
        }
        Ok(())
    }

    /// Starts hosts again.
    pub async fn restart(&self, targets: &BTreeSet<Target>) {
        for target in targets {
            println!("{:>6.1} s  {target} is started again", self.start.elapsed().as_secs_f64());
            // Nothing of it fails.
            let _ = self.kill(*target).await;
            self.supervisor.keep(*target);
        }
    }

    /// The server of an instance stops or goes on answering.
    fn lives(&self, target: Target, alive: bool) {
        self.truth.serving(target, self.start.elapsed(), alive);
    }

    async fn kill_all_members(&self) -> Result<()> {
        for member in (0..self.bed.members.len()).map(Target::Member) {
            self.kill(member).await?;
        }
        Ok(())
    }

    fn keep_all_members(&self) {
        (0..self.bed.members.len()).map(Target::Member).for_each(|member| self.supervisor.keep(member));
    }

    fn set_clock(&self, replica: usize, seconds: i64) -> Result<()> {
        std::fs::write(clock_file(&self.bed.dir, replica), format!("{seconds:+}"))
            .context("cannot write the clock's file")
    }

    fn snapshot(&self) -> std::path::PathBuf {
        self.bed.dir.join("registry.snapshot")
    }
}
