//! The scheduler: one thread runs the tasks of all processes, in an order that follows from the seed.
//!
//! Owns every task of every process, and what befalls a process: a crash drops its tasks at any await point, a freeze
//! (SIGSTOP) leaves them unpolled while time goes on. Refuses to know what a task does. Tokio gives timers and channels
//! alone: the order in which it wakes tasks does not matter, because the next task is drawn from all that are ready.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::Instant;
use twinspan::env::Executor;

use crate::dice::Dice;

/// Polls in a row before the tasks of the libraries have their turn.
const POLLS_IN_A_ROW: usize = 32;

/// A process: a replica of the operator, a server, or an actor.
pub type ProcessId = u32;

type TaskId = u64;

/// Runs tasks; clones share them.
#[derive(Clone)]
pub struct Scheduler(Arc<Shared>);

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scheduler")
    }
}

struct Shared(Mutex<State>);

struct State {
    tasks: BTreeMap<TaskId, Task>,
    /// Ready tasks, the one that was polled longest ago first.
    ready: BTreeSet<(u64, TaskId)>,
    processes: Vec<Process>,
    next_task: TaskId,
    turn: u64,
    /// In so many of a thousand turns any ready task is drawn, and not the one that waits longest.
    shuffle: u64,
    dice: Dice,
    driver: Option<Waker>,
    panics: Vec<String>,
}

struct Task {
    process: ProcessId,
    /// Absent while it is polled.
    future: Option<BoxFuture<'static, ()>>,
    waker: Waker,
    polled_at: u64,
    ready: bool,
}

#[derive(Default)]
struct Process {
    name: String,
    dead: bool,
    frozen: bool,
    thawed_at: Option<Instant>,
    polls: u64,
    crash_at: Option<u64>,
    /// Called once when it dies.
    on_death: Vec<Box<dyn FnOnce() + Send>>,
}

struct TaskWaker {
    id: TaskId,
    of: Weak<Shared>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.of.upgrade() {
            lock(&shared).wake(self.id);
        }
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn wake(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.ready = true;
        if self.processes.get(task.process as usize).is_some_and(|process| !process.frozen) {
            self.ready.insert((task.polled_at, id));
            if let Some(driver) = self.driver.take() {
                driver.wake();
            }
        }
    }

    fn next(&mut self) -> Option<(TaskId, BoxFuture<'static, ()>, Waker)> {
        loop {
            let shuffled = self.ready.len() > 1 && self.shuffle > 0 && self.dice.permille(self.shuffle);
            let at = if shuffled { self.dice.below(self.ready.len() as u64) as usize } else { 0 };
            let chosen = *self.ready.iter().nth(at)?;
            self.ready.remove(&chosen);
            let Some(task) = self.tasks.get_mut(&chosen.1) else { continue };
            task.ready = false;
            let Some(future) = task.future.take() else { continue };
            self.turn += 1;
            task.polled_at = self.turn;
            return Some((chosen.1, future, task.waker.clone()));
        }
    }
}

impl Scheduler {
    /// `shuffle` in a thousand turns run any ready task.
    pub fn new(seed: u64, shuffle: u64) -> Self {
        Self(Arc::new(Shared(Mutex::new(State {
            tasks: BTreeMap::new(),
            ready: BTreeSet::new(),
            processes: Vec::new(),
            next_task: 0,
            turn: 0,
            shuffle,
            dice: Dice::new(seed, "scheduler"),
            driver: None,
            panics: Vec::new(),
        }))))
    }

    /// A new process.
    pub fn process(&self, name: &str) -> ProcessId {
        let mut state = lock(&self.0);
        state.processes.push(Process { name: name.to_owned(), ..Process::default() });
        (state.processes.len() - 1) as ProcessId
    }

    /// The tasks of a process, for the operator's environment.
    pub fn executor(&self, process: ProcessId) -> Arc<dyn Executor> {
        Arc::new(ProcessExecutor { scheduler: self.clone(), process })
    }

    /// Starts a task of a process. A dead process starts none.
    pub fn spawn(&self, process: ProcessId, task: impl Future<Output = ()> + Send + 'static) {
        self.start(process, Box::pin(task));
    }

    fn start(&self, process: ProcessId, future: BoxFuture<'static, ()>) -> TaskId {
        let mut state = lock(&self.0);
        let id = state.next_task;
        state.next_task += 1;
        if state.processes.get(process as usize).is_none_or(|process| process.dead) {
            drop(state);
            drop(future);
            return id;
        }
        let waker = Waker::from(Arc::new(TaskWaker { id, of: Arc::downgrade(&self.0) }));
        let polled_at = state.turn;
        state.tasks.insert(id, Task { process, future: Some(future), waker, polled_at, ready: false });
        state.wake(id);
        id
    }

    fn end(&self, id: TaskId) {
        let mut state = lock(&self.0);
        let task = state.tasks.remove(&id);
        if let Some(task) = &task {
            let at = (task.polled_at, id);
            state.ready.remove(&at);
        }
        drop(state);
        // The drop of what a task owns may wake others.
        drop(task);
    }

    /// Ends a process without a word: none of its tasks is polled again.
    pub fn crash(&self, process: ProcessId) {
        let mut state = lock(&self.0);
        let Some(dying) = state.processes.get_mut(process as usize).filter(|process| !process.dead) else { return };
        dying.dead = true;
        let last_words = std::mem::take(&mut dying.on_death);
        let ids: Vec<TaskId> =
            state.tasks.iter().filter(|(_, task)| task.process == process).map(|(id, _)| *id).collect();
        let mut dropped = Vec::new();
        for id in ids {
            if let Some(task) = state.tasks.remove(&id) {
                state.ready.remove(&(task.polled_at, id));
                dropped.push(task);
            }
        }
        drop(state);
        drop(dropped);
        last_words.into_iter().for_each(|word| word());
    }

    /// Ends every process. Tasks own what owns this scheduler, so that nothing would ever be freed without it.
    pub fn crash_all(&self) {
        let count = lock(&self.0).processes.len() as ProcessId;
        (0..count).for_each(|process| self.crash(process));
    }

    /// Crashes a process after so many more polls of its tasks, wherever that is.
    pub fn crash_after(&self, process: ProcessId, polls: u64) {
        if let Some(process) = lock(&self.0).processes.get_mut(process as usize) {
            process.crash_at = Some(process.polls + polls);
        }
    }

    /// Runs this when the process dies.
    pub fn on_death(&self, process: ProcessId, word: impl FnOnce() + Send + 'static) {
        if let Some(process) = lock(&self.0).processes.get_mut(process as usize) {
            process.on_death.push(Box::new(word));
        }
    }

    /// Stops the tasks of a process until it thaws; its timers go on.
    pub fn freeze(&self, process: ProcessId) {
        let mut state = lock(&self.0);
        if let Some(freezing) = state.processes.get_mut(process as usize) {
            freezing.frozen = true;
        }
        let State { ready, tasks, .. } = &mut *state;
        ready.retain(|(_, id)| tasks.get(id).is_none_or(|task| task.process != process));
    }

    pub fn thaw(&self, process: ProcessId) {
        let mut state = lock(&self.0);
        if let Some(thawing) = state.processes.get_mut(process as usize) {
            thawing.frozen = false;
            thawing.thawed_at = Some(Instant::now());
        }
        let woken: Vec<TaskId> =
            state.tasks.iter().filter(|(_, task)| task.process == process && task.ready).map(|(id, _)| *id).collect();
        woken.into_iter().for_each(|id| state.wake(id));
    }

    /// True if the process thawed within this time: what it was about to do before it froze, it does now.
    pub fn thawed_within(&self, process: ProcessId, time: Duration) -> bool {
        let state = lock(&self.0);
        let thawed = state.processes.get(process as usize).and_then(|process| process.thawed_at);
        thawed.is_some_and(|at| at.elapsed() <= time)
    }

    pub fn is_dead(&self, process: ProcessId) -> bool {
        lock(&self.0).processes.get(process as usize).is_none_or(|process| process.dead)
    }

    /// The texts of the panics so far: each is a fault of the program.
    pub fn panics(&self) -> Vec<String> {
        lock(&self.0).panics.clone()
    }

    /// The number of polls so far.
    pub fn turns(&self) -> u64 {
        lock(&self.0).turn
    }

    /// Runs until the future ends, which is the first task of the process.
    pub async fn run(&self, process: ProcessId, main: impl Future<Output = ()> + Send + 'static) {
        let (ended, mut end) = tokio::sync::oneshot::channel();
        self.spawn(process, async move {
            main.await;
            // The receiver waits below.
            let _ = ended.send(());
        });
        let drive = poll_fn(|cx| {
            for _ in 0..POLLS_IN_A_ROW {
                // A first task that breaks off is the end too.
                if !matches!(end.try_recv(), Err(TryRecvError::Empty)) {
                    return Poll::Ready(());
                }
                lock(&self.0).driver = Some(cx.waker().clone());
                if !self.poll_one() {
                    return Poll::Pending;
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        // Tokio's budget for one task would make all of them wait for ever.
        tokio::task::unconstrained(drive).await;
    }

    fn poll_one(&self) -> bool {
        let next = lock(&self.0).next();
        let Some((id, mut future, waker)) = next else { return false };
        if self.crashes_now(id) {
            drop(future);
            return true;
        }
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        match polled {
            Ok(Poll::Pending) => {
                let mut state = lock(&self.0);
                match state.tasks.get_mut(&id) {
                    Some(task) => task.future = Some(future),
                    // The process died meanwhile.
                    None => {
                        drop(state);
                        drop(future);
                    }
                }
            }
            Ok(Poll::Ready(())) => self.end(id),
            Err(panic) => {
                self.broke_off(id, panic.as_ref());
                self.end(id);
            }
        }
        true
    }

    /// Counts the poll; true if the process ends with it.
    fn crashes_now(&self, id: TaskId) -> bool {
        let mut state = lock(&self.0);
        let Some(process) = state.tasks.get(&id).map(|task| task.process) else { return true };
        let Some(counting) = state.processes.get_mut(process as usize) else { return true };
        counting.polls += 1;
        let crashes = counting.crash_at.is_some_and(|at| counting.polls >= at);
        drop(state);
        if crashes {
            self.crash(process);
        }
        crashes
    }

    fn broke_off(&self, id: TaskId, panic: &(dyn Any + Send)) {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        let mut state = lock(&self.0);
        let process = state.tasks.get(&id).and_then(|task| state.processes.get(task.process as usize));
        let name = process.map_or("nobody", |process| process.name.as_str());
        let line = format!("{name}: {text}");
        state.panics.push(line);
    }
}

struct ProcessExecutor {
    scheduler: Scheduler,
    process: ProcessId,
}

impl Executor for ProcessExecutor {
    fn submit(&self, task: BoxFuture<'static, ()>) -> Box<dyn Send> {
        let id = self.scheduler.start(self.process, task);
        Box::new(Running { scheduler: self.scheduler.clone(), id })
    }
}

/// Ends the task when nobody waits for it any more.
struct Running {
    scheduler: Scheduler,
    id: TaskId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.scheduler.end(self.id);
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
