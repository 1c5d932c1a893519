//! Turns: which request is the next one while more wait than the API server is asked for at once.
//!
//! Owns the number and the order. Statuses and Events take every other turn; the rest of the turns go around the
//! namespaces whose slices and Services wait, so that a namespace whose webhooks are slow costs the others little.
//! Within one of them first come is first served. Refuses to know requests and their deadlines.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Turns at once: each is a connection, and the API server queues and refuses requests that come all at once.
const AT_ONCE: usize = 16;

/// The waiting line of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// Statuses and Events.
    Reports,
    /// Slices and Services of a namespace.
    Namespace(String),
}

/// All turns; clones share them.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    waiting: BTreeMap<Line, VecDeque<oneshot::Sender<Turn>>>,
    last: Line,
    last_namespace: Line,
}

/// The permission to send one request, until it is dropped.
#[derive(Debug)]
pub struct Turn(Turns);

impl Default for Turns {
    fn default() -> Self {
        let (last, last_namespace) = (Line::Reports, Line::Namespace(String::new()));
        Self(Arc::new(Mutex::new(State { free: AT_ONCE, waiting: BTreeMap::new(), last, last_namespace })))
    }
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn. Dropping the future leaves the line.
    pub async fn take(&self, line: Line) -> Turn {
        loop {
            let turn = {
                let mut state = self.lock();
                if state.free > 0 {
                    state.free -= 1;
                    return Turn(self.clone());
                }
                let (sender, turn) = oneshot::channel();
                state.waiting.entry(line.clone()).or_default().push_back(sender);
                turn
            };
            if let Ok(turn) = turn.await {
                return turn;
            }
        }
    }
}

impl State {
    /// The request whose turn it is; those that no longer wait are left out.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        loop {
            let line = self.line()?;
            let waiting = self.waiting.get_mut(&line)?;
            let sender = waiting.pop_front();
            if waiting.is_empty() {
                self.waiting.remove(&line);
            }
            if let Some(sender) = sender.filter(|sender| !sender.is_closed()) {
                if line != Line::Reports {
                    self.last_namespace = line.clone();
                }
                self.last = line;
                return Some(sender);
            }
        }
    }

    fn line(&self) -> Option<Line> {
        let reports = self.waiting.contains_key(&Line::Reports).then_some(Line::Reports);
        if self.last != Line::Reports && reports.is_some() {
            return reports;
        }
        let after = (Bound::Excluded(&self.last_namespace), Bound::Unbounded);
        let around = self.waiting.range(after).chain(&self.waiting);
        let namespace = around.map(|(line, _)| line).find(|line| **line != Line::Reports);
        namespace.cloned().or(reports)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.lock();
            let next = state.next();
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        if let Some(next) = next {
            // Where nobody waits any more, the turn comes back and is dropped again.
            let _ = next.send(Turn(self.0.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(namespace: &str) -> Line {
        Line::Namespace(namespace.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn reports_take_every_other_turn_and_namespaces_the_rest_in_a_circle() {
        let turns = Turns::default();
        let mut held = Vec::new();
        for _ in 0..AT_ONCE {
            held.push(turns.take(of("a")).await);
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let lines = [of("a"), of("a"), of("a"), of("b"), of("c"), Line::Reports, Line::Reports];
        let waiting: Vec<_> = lines
            .into_iter()
            .map(|line| {
                let (turns, order) = (turns.clone(), order.clone());
                tokio::spawn(async move {
                    let turn = turns.take(line.clone()).await;
                    order.lock().unwrap().push(line);
                    turn
                })
            })
            .collect();
        tokio::task::yield_now().await;
        // One that gives up takes no turn along.
        let gives_up = tokio::time::timeout(std::time::Duration::from_millis(1), turns.take(of("b"))).await;
        assert!(gives_up.is_err());
        for _ in 0..waiting.len() {
            drop(held.pop());
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let a = || of("a");
        assert_eq!(*order.lock().unwrap(), [a(), Line::Reports, of("b"), Line::Reports, of("c"), a(), a()]);
        drop(held);
        for task in waiting {
            drop(task.await.unwrap());
        }
        assert_eq!(turns.lock().free, AT_ONCE);
        assert!(turns.lock().waiting.is_empty());
    }
}
