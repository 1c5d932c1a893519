//! The waits of a session between its requests, and the read that is a sign of life.
//!
//! Owns the futures of its turns. Refuses to act on what comes, which [`super::session`] does.

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::asked_names::AskedNames;
use super::{Registry, Result, Watch, WatchItem};

/// Where the server answers no progress requests, as etcd's proxy, a linearizable read of any permitted key is the sign
/// of life.
pub async fn read_something(registry: &dyn Registry, key: Option<String>) -> Result<()> {
    match key {
        Some(key) => drop(registry.read(&[key.as_str().into()]).await?),
        None => drop(registry.status().await?),
    }
    Ok(())
}

/// Whether [`something_to_follow`] would not wait.
pub fn names_wait(names: &AskedNames, again: Option<Instant>) -> bool {
    names.has_changed() || again.is_some_and(|at| at <= Instant::now())
}

/// Waits until names change, or a range is due for another attempt.
pub async fn something_to_follow(names: &AskedNames, again: Option<Instant>) {
    match again {
        Some(at) => timeout_at(at, names.changed()).await.unwrap_or_default(),
        None => names.changed().await,
    }
}

/// Waits for a time, or for ever.
pub async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

pub async fn search_ends(search: &mut Option<BoxFuture<'static, Result<()>>>) -> Result<()> {
    match search {
        Some(search) => search.await,
        None => std::future::pending().await,
    }
}

pub async fn next(watch: &mut Option<Box<dyn Watch>>) -> Result<WatchItem> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}
