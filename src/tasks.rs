//! Tasks that break off: a panic in one of them must neither go unseen nor leave the rest waiting for it.
//!
//! Owns the log line of a panic, the restart of a task that can begin again, and the end of a process that cannot go on
//! without one. Refuses to know what any task does.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::env::Env;

/// Wait before a task begins again.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs a future, and catches its panic.
///
/// # Errors
/// The text of the panic, which is logged.
pub async fn unbroken<T>(name: &str, future: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| {
        let text = text(panic.as_ref());
        error!(task = name, panic = text, "a task broke off; please report this as a bug");
        text
    })
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".to_owned())
}

/// Runs a task until it ends; one that breaks off begins again.
pub async fn repeated<T, F: Future<Output = T>>(name: &str, task: impl Fn() -> F) -> T {
    loop {
        if let Ok(ended) = unbroken(name, task()).await {
            return ended;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The tasks that a process cannot go on without: it stops when one of them breaks off.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    broken: Arc<OnceLock<&'static str>>,
    stop: CancellationToken,
    env: Env,
}

impl Tasks {
    /// `stop` is cancelled when a task breaks off.
    pub fn new(stop: CancellationToken, env: Env) -> Self {
        Self { tracker: TaskTracker::new(), broken: Arc::default(), stop, env }
    }

    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let (broken, stop) = (self.broken.clone(), self.stop.clone());
        self.env.spawn_on(&self.tracker, async move {
            if unbroken(name, task).await.is_err() {
                // Only the first one matters: others may break off because of it.
                let _ = broken.set(name);
                stop.cancel();
            }
        })
    }

    /// The task that broke off.
    pub fn broken(&self) -> Option<&'static str> {
        self.broken.get().copied()
    }

    /// The tracker, for tasks that begin again by themselves.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Waits for the end of every task.
    pub async fn end(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_breaks_off_begins_again_or_ends_the_process() {
        let runs = AtomicUsize::new(0);
        repeated("the task", || async {
            assert!(runs.fetch_add(1, Ordering::Relaxed) >= 2, "it breaks off twice");
        })
        .await;
        assert_eq!(runs.load(Ordering::Relaxed), 3);

        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let tasks = Tasks::new(stop.clone(), Env::real());
        tasks.spawn("ends", async {});
        let until = ended.clone();
        tasks.spawn("waits", async move { until.cancelled().await });
        tokio::task::yield_now().await;
        assert_eq!((tasks.broken(), stop.is_cancelled()), (None, false));
        tasks.spawn("breaks", async { panic!("{}", "why") });
        tokio::time::timeout(AGAIN, stop.cancelled()).await.unwrap();
        assert_eq!(tasks.broken(), Some("breaks"));
        ended.cancel();
        tasks.end().await;
        assert_eq!(unbroken("text", async { panic!("why") }).await, Err::<(), _>("why".to_owned()));
    }
}
