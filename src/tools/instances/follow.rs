//! The changes of one registry from a list on: watch, and list again whenever the watch ends.
//!
//! Owns the comparison of a list with what was known, and the waits between tries. Refuses to print, and to follow
//! names that nobody used when the command began.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

use super::contents::{Contents, Records, Wanted, entry};
use super::instance::Instance;
use crate::registry::handle::Identity;
use crate::registry::{Change as RecordChange, Connector, RegistryError, Result, WatchItem, WatchRange};
use crate::tools::print::clean;

/// A quiet watch is asked for a sign of life after this time, and is given up after the same again.
const QUIET: Duration = Duration::from_secs(15);
/// The waits before another try: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
    /// The registry cannot be followed for now.
    Problem,
}

impl ChangeKind {
    /// The word of `kubectl get --output-watch-events`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Problem => "PROBLEM",
        }
    }
}

/// One instance that came, changed or went, or the reason why none is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub kind: ChangeKind,
    pub registry: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.as_str();
        write!(f, "{kind:<8}  {}", self.registry)?;
        if let Some(instance) = &self.instance {
            let [address, whose, weight, lease] = instance.cells();
            let all = format!("{}  {address}  {whose}  weight {weight}  lease {lease}", self.name);
            write!(f, "  {}", clean(&all))?;
        }
        if let Some(problem) = &self.problem {
            write!(f, "  {}", clean(problem))?;
        }
        Ok(())
    }
}

/// One registry whose changes are followed.
struct Follower<'a> {
    identity: &'a Identity,
    wanted: &'a Wanted,
    known: Records,
    told: Told,
    changes: Sender<Change>,
}

/// The changes of a registry that are still to be handed over.
struct Told {
    registry: String,
    changes: Vec<Change>,
}

impl Told {
    fn tell(&mut self, kind: ChangeKind, name: &str, instance: Option<Instance>, problem: Option<String>) {
        let (registry, name) = (self.registry.clone(), name.to_owned());
        self.changes.push(Change { kind, registry, name, instance, problem });
    }

    /// Tells the difference between two writes of a record, address by address.
    fn compare(&mut self, name: &str, then: &[Instance], now: &[Instance]) {
        for gone in then.iter().filter(|it| !now.iter().any(|other| it.address == other.address)) {
            self.tell(ChangeKind::Deleted, name, Some(gone.clone()), None);
        }
        for instance in now {
            match then.iter().find(|before| before.address == instance.address) {
                None => self.tell(ChangeKind::Added, name, Some(instance.clone()), None),
                Some(before) if before != instance => {
                    self.tell(ChangeKind::Modified, name, Some(instance.clone()), None);
                }
                Some(_) => {}
            }
        }
    }
}

/// Follows a registry until nobody listens any more.
pub async fn follow(
    registry: &str,
    connector: &dyn Connector,
    identity: &Identity,
    wanted: &Wanted,
    known: Records,
    changes: Sender<Change>,
) {
    let told = Told { registry: registry.to_owned(), changes: Vec::new() };
    let mut follower = Follower { identity, wanted, known, told, changes };
    let (mut told, mut wait) = (None, RETRY.0);
    while !follower.changes.is_closed() {
        let mut connected = false;
        let Err(error) = follower.session(connector, &mut connected).await else { return };
        if connected {
            (told, wait) = (None, RETRY.0);
        }
        let problem = error.to_string();
        // A watch ends now and then, and a reason is told once.
        let ordinary = matches!(error, RegistryError::Compacted(_) | RegistryError::WatchEnded(_));
        if !ordinary && told.as_ref() != Some(&problem) {
            follower.told.tell(ChangeKind::Problem, "", None, Some(problem.clone()));
            follower.hand_over().await;
            told = Some(problem);
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

impl Follower<'_> {
    /// Waits for whoever reads the changes.
    async fn hand_over(&mut self) {
        for change in self.told.changes.drain(..) {
            // Nobody listens where the command ends.
            let _ = self.changes.send(change).await;
        }
    }

    /// Lists and watches until the connection ends, or nobody listens any more.
    async fn session(&mut self, connector: &dyn Connector, connected: &mut bool) -> Result<()> {
        let registry = connector.connect().await?;
        let contents = Contents::read(registry.as_ref(), self.identity, self.wanted).await?;
        let (from, key_prefixes) = (contents.revision + 1, contents.key_prefixes.clone());
        self.listed(contents);
        self.hand_over().await;
        *connected = true;
        let cluster_id = registry.status().await?.cluster_id;
        let range = |(watch_id, key_prefix): (i64, String)| WatchRange { watch_id, key_prefix, from, cluster_id };
        let mut ranges = (1..).zip(key_prefixes).map(range);
        let Some(first) = ranges.next() else {
            // Nothing is wanted of it.
            self.changes.closed().await;
            return Ok(());
        };
        let mut watch = registry.watch(&first).await?;
        for another in ranges {
            watch.follow(&another).await?;
        }
        let mut asked = false;
        loop {
            let listening = self.changes.clone();
            let item = tokio::select! {
                biased;
                () = listening.closed() => return Ok(()),
                item = timeout(QUIET, watch.next()) => item,
            };
            match item {
                Ok(Ok(WatchItem::Changes(changes))) => {
                    changes.into_iter().for_each(|change| self.changed(change));
                    self.hand_over().await;
                }
                Ok(Ok(WatchItem::Lost { error, .. }) | Err(error)) => return Err(error),
                Ok(Ok(WatchItem::Progress(_) | WatchItem::Alive)) => {}
                Err(_) if asked => return Err(RegistryError::Silent { seconds: 2 * QUIET.as_secs() }),
                Err(_) => {
                    // A proxy that answers no such request shows its end by the end of the connection.
                    asked = watch.request_progress().await?;
                    continue;
                }
            }
            asked = false;
        }
    }

    /// Tells the difference between a list and what is known.
    fn listed(&mut self, contents: Contents) {
        let before = std::mem::replace(&mut self.known, contents.records);
        for (key, (name, instances)) in &before {
            if !self.known.contains_key(key) {
                instances.iter().for_each(|it| self.told.tell(ChangeKind::Deleted, name, Some(it.clone()), None));
            }
        }
        for (key, (name, now)) in &self.known {
            let then = before.get(key).map(|(_, then)| then.as_slice()).unwrap_or_default();
            self.told.compare(name, then, now);
        }
    }

    fn changed(&mut self, change: RecordChange) {
        match change {
            RecordChange::Put(raw) => {
                let (key, (name, now)) = entry(self.identity, &raw);
                let before = self.known.insert(key, (name.clone(), now.clone()));
                let then = before.map(|(_, then)| then).unwrap_or_default();
                self.told.compare(&name, &then, &now);
            }
            RecordChange::Delete { key, .. } => {
                if let Some((name, instances)) = self.known.remove(&key) {
                    instances.into_iter().for_each(|it| self.told.tell(ChangeKind::Deleted, &name, Some(it), None));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use twinspan_core::codec::{Format, Layout};
    use twinspan_core::model::LeaseId;

    use super::*;
    use crate::registry::testing::{FakeEtcd, Faults};

    fn value(address: &str, weight: u32) -> String {
        format!(r#"{{"network":"tcp","address":"{address}","weight":{weight},"tags":null}}"#)
    }

    #[tokio::test(start_paused = true)]
    async fn instances_that_come_change_and_go_are_told_also_across_a_lost_connection() {
        let etcd = FakeEtcd::new();
        let put = |address: &str, weight| etcd.put(&format!("p/a/{address}"), &value(address, weight), LeaseId::NONE);
        put("10.0.0.1:1", 10);
        let layout = Layout::new(Format::Kitex, "p");
        let (uid, cluster_id) = ("uid".to_owned(), "ours".to_owned());
        let identity = Identity { uid, cluster_id, layout, ttl_seconds: 60, fence_prefix: None };
        let wanted = Wanted::default();
        let registry = etcd.connect().await.unwrap();
        let known = Contents::read(registry.as_ref(), &identity, &wanted).await.unwrap().records;
        let (sender, mut changes) = mpsc::channel(16);
        let following = follow("main", &etcd, &identity, &wanted, known, sender);
        let story = async {
            let mut next = async || {
                let change = timeout(Duration::from_secs(120), changes.recv()).await.unwrap().unwrap();
                let address = change.instance.map(|instance| instance.address).unwrap_or_default();
                (change.kind.as_str(), address)
            };
            let change = |kind, address: &str| (kind, address.to_owned());
            // Before the watch is open, the list tells it.
            put("10.0.0.2:1", 10);
            assert_eq!(next().await, change("ADDED", "10.0.0.2:1"));
            while etcd.calls("watch") == 0 {
                tokio::task::yield_now().await;
            }
            put("10.0.0.2:1", 20);
            assert_eq!(next().await, change("MODIFIED", "10.0.0.2:1"));
            etcd.delete(&["p/a/10.0.0.1:1"]);
            assert_eq!(next().await, change("DELETED", "10.0.0.1:1"));
            etcd.set_faults(Faults { away: true, ..Faults::default() });
            assert_eq!(next().await, change("PROBLEM", ""));
            etcd.delete(&["p/a/10.0.0.2:1"]);
            put("10.0.0.3:1", 10);
            etcd.set_faults(Faults::default());
            assert_eq!(next().await, change("DELETED", "10.0.0.2:1"));
            assert_eq!(next().await, change("ADDED", "10.0.0.3:1"));
        };
        tokio::select! {
            () = following => panic!("it ended"),
            () = story => {}
        }
    }
}
