//! Group commit: the writes that wait for a transaction, which those of several services share.
//!
//! Owns their turns, the number of transactions under way, and the services whose operations etcd refused: such a
//! service writes alone until it succeeds, so that its refusal costs no other service anything. A task that writes
//! takes along all that waits; while etcd answers faster than writes come, each goes at once and alone. Refuses to know
//! the request, which [`super::writer`] sends.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::timeout;
use twinspan_core::model::{Revision, ServiceKey};
use twinspan_core::plan::RecordOp;

use super::records::Affected;
use super::{RegistryError, Result};

/// Transactions of one registry under way at a time. More would be smaller ones, which cost etcd more in all.
const AT_ONCE: usize = 4;
/// The deadline of the wait for others' transactions.
const TURN: Duration = Duration::from_secs(60);

/// The result of writing a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteReport {
    pub created: usize,
    pub updated: usize,
    pub deleted: usize,
    /// Operations whose key had changed; the view has the key's current record.
    pub conflicts: usize,
    /// The revision of the last batch.
    pub revision: Revision,
    /// Services affected by conflicting writes of others.
    pub found: Affected,
    /// Services affected by our own writes; the watch will not report these again.
    pub wrote: Affected,
    /// The first error, if not everything was written.
    pub error: Option<RegistryError>,
}

/// The operations of one service, in order.
#[derive(Debug)]
pub struct Submission {
    pub by: Arc<ServiceKey>,
    /// Those that are still to be written.
    pub ops: Vec<RecordOp>,
    pub report: WriteReport,
    /// Leases that it found refused, or gone.
    pub refused_leases: usize,
}

impl Submission {
    pub fn new(by: &ServiceKey, ops: Vec<RecordOp>) -> Self {
        Self { by: Arc::new(by.clone()), ops, report: WriteReport::default(), refused_leases: 0 }
    }

    /// The first error counts.
    pub fn fail(&mut self, error: RegistryError) {
        self.report.error.get_or_insert(error);
    }

    /// Nothing more is written of it.
    pub fn end(&mut self, error: RegistryError) {
        self.fail(error);
        self.ops.clear();
    }
}

/// The place of a submission among those that wait.
#[derive(Debug)]
pub struct Ticket {
    number: u64,
    /// The submission after a transaction, with what is left of it.
    pub back: oneshot::Receiver<Submission>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    submission: Submission,
    back: oneshot::Sender<Submission>,
}

/// The submissions that share a transaction.
#[derive(Debug, Default)]
pub struct Group {
    pub submissions: Vec<Submission>,
    back: Vec<oneshot::Sender<Submission>>,
}

impl Group {
    /// Each goes back to those who submitted it.
    pub fn give_back(self) {
        for (submission, back) in self.submissions.into_iter().zip(self.back) {
            // A pass that was stopped asks no more.
            let _ = back.send(submission);
        }
    }
}

#[derive(Debug)]
pub struct Commits {
    turns: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    numbered: u64,
    /// Services that write alone.
    alone: BTreeSet<ServiceKey>,
}

impl Default for Commits {
    fn default() -> Self {
        Self { turns: Semaphore::new(AT_ONCE), state: Mutex::default() }
    }
}

impl Commits {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a submission to those that wait.
    pub fn enter(&self, submission: Submission) -> Ticket {
        let (sender, back) = oneshot::channel();
        let mut state = self.lock();
        state.numbered += 1;
        let number = state.numbered;
        state.waiting.push_back(Waiting { number, submission, back: sender });
        Ticket { number, back }
    }

    /// Takes a submission out, if it still waits.
    pub fn leave(&self, ticket: &Ticket) -> Option<Submission> {
        let mut state = self.lock();
        let at = state.waiting.iter().position(|waiting| waiting.number == ticket.number)?;
        state.waiting.remove(at).map(|waiting| waiting.submission)
    }

    /// Waits for the permission to send one transaction.
    ///
    /// # Errors
    /// [`RegistryError::Timeout`]; nothing was written.
    pub async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        let late = || RegistryError::Timeout { what: "turn to write", seconds: TURN.as_secs() };
        // Nobody closes it.
        timeout(TURN, self.turns.acquire()).await.ok().and_then(|turn| turn.ok()).ok_or_else(late)
    }

    /// Those that wait longest, up to so many operations.
    pub fn take(&self, most: usize) -> Group {
        let mut state = self.lock();
        let State { waiting, alone, .. } = &mut *state;
        let (mut group, mut count) = (Group::default(), 0);
        while count < most
            && let Some(next) = waiting.pop_front()
        {
            if next.back.is_closed() {
                continue;
            }
            let is_alone = alone.contains(&next.submission.by);
            if is_alone && count > 0 {
                waiting.push_front(next);
                break;
            }
            let Waiting { submission, back, .. } = next;
            count += submission.ops.len();
            group.submissions.push(submission);
            group.back.push(back);
            if is_alone {
                break;
            }
        }
        group
    }

    /// etcd refused the operations of these services together.
    pub fn set_alone<'a>(&self, services: impl IntoIterator<Item = &'a ServiceKey>) {
        self.lock().alone.extend(services.into_iter().cloned());
    }

    /// A transaction with operations of a service was written.
    pub fn succeeded(&self, service: &ServiceKey) {
        self.lock().alone.remove(service);
    }
}
