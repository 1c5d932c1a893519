//! The ranges that a session lists and watches.
//!
//! Owns which ranges they are, and the step from the list of each to its watch. Refuses to wait for anything else: the
//! session says when names are looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::Instant;
use tracing::{debug, info, warn};
use twinspan_core::codec::Range;
use twinspan_core::plan::service::Incarnation;

use super::Session;
use crate::registry::records::Affected;
use crate::registry::scope::Scope;
use crate::registry::silence::Silence;
use crate::registry::view::Listing;
use crate::registry::{ListResponse, RegistryError, Result, WatchRange, are_two_etcds};

/// Wait before a range without read permission is tried again.
const REFUSED_RETRY: Duration = Duration::from_secs(30);
/// Ranges that are forgotten before somebody else has a turn.
const FORGOTTEN_IN_A_ROW: usize = 500;
/// Ranges that are listed at a time.
const LISTS_AT_ONCE: usize = 16;

impl Session {
    /// Lists and watches every range of the scope, and forgets everything else. A name that is added meanwhile follows
    /// after them.
    pub(super) async fn follow_all(&mut self) -> Result<Affected> {
        let (mut names, mut kept) = (self.handle.asked.take_all(), self.handle.view().names_of_ours());
        kept.retain(|name| !names.contains(name));
        names.extend(kept.iter().cloned());
        let wanted = self.scope.ranges(names);
        if self.scope == Scope::FollowedNames {
            self.kept = kept;
        }
        let known = self.handle.view().ranges();
        for (number, range) in known.difference(&wanted).enumerate() {
            self.handle.view().forget(range);
            if number % FORGOTTEN_IN_A_ROW == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.start_following(wanted).await
    }

    /// Lists and watches the names that are asked for now, and stops watching those that nobody asks for any more.
    pub(super) async fn catch_up(&mut self) -> Result<Affected> {
        let changed = self.handle.asked.take_changed();
        let mut missing = BTreeSet::new();
        if self.scope == Scope::FollowedNames {
            let kept = std::mem::take(&mut self.kept).into_iter().map(|name| (name, false));
            // A name that changed counts as it is now.
            for (name, is_asked) in kept.chain(changed).collect::<BTreeMap<_, _>>() {
                let is_kept = !is_asked && self.handle.view().has_ours(&name);
                let range = Range::Service(name.clone());
                match is_asked || is_kept {
                    true if self.followed.contains_key(&range) || self.refused.contains_key(&range) => {}
                    true => drop(missing.insert(range)),
                    false => self.stop_following(&range).await?,
                }
                if is_kept {
                    self.kept.insert(name);
                }
            }
        }
        let now = Instant::now();
        missing.extend(self.refused.iter().filter(|(_, again)| **again <= now).map(|(range, _)| range.clone()));
        self.start_following(missing).await
    }

    /// Lists the ranges, some at once, and watches each from the revision of its list.
    pub(super) async fn start_following(&mut self, ranges: BTreeSet<Range>) -> Result<Affected> {
        let (registry, layout) = (self.registry.clone(), self.handle.layout.clone());
        let names = ranges.iter().filter(|range| **range != Range::Everything).count();
        let list = |range: Range| {
            let (registry, key_prefix) = (registry.clone(), layout.key_prefix(&range));
            async move { (range, registry.list(&key_prefix).await, key_prefix) }
        };
        let mut lists = stream::iter(ranges.into_iter().map(list)).buffered(LISTS_AT_ONCE);
        let (mut affected, mut refusal) = (Affected::default(), None);
        while let Some((range, listing, key_prefix)) = lists.next().await {
            self.silence.answered();
            let more = match self.listed(&range, listing, &key_prefix).await {
                Ok(more) => more,
                Err(RegistryError::PermissionDenied(why)) if range != Range::Everything => {
                    let error = RegistryError::PermissionDenied(format!("{key_prefix}: {why}"));
                    refusal = Some(error.clone());
                    self.refuse(&range, error)
                }
                Err(error) => return Err(error),
            };
            affected.add(more);
        }
        self.handle.set_listed(self.listed);
        if names > 0 {
            info!(registry = self.handle.name, names, revision = self.listed, "listed the names that are asked for");
        }
        match refusal {
            // No range may be read: the error is the registry's.
            Some(error) if self.followed.is_empty() => Err(error),
            _ => Ok(affected),
        }
    }

    async fn stop_following(&mut self, range: &Range) -> Result<()> {
        self.refused.remove(range);
        self.handle.view().forget(range);
        let watch_id = self.followed.remove(range);
        self.drop_empty_stream();
        if let (Some(watch_id), Some(watch)) = (watch_id, &mut self.watch) {
            watch.unwatch(watch_id).await?;
        }
        Ok(())
    }

    /// etcd never answers a progress request on a stream without watches.
    fn drop_empty_stream(&mut self) {
        if self.followed.is_empty() {
            self.watch = None;
        }
    }

    /// A range without read permission affects only its own services, because every user can request a name
    /// (`docs/decisions/0023`).
    fn refuse(&mut self, range: &Range, error: RegistryError) -> Affected {
        if self.refused.insert(range.clone(), Instant::now() + REFUSED_RETRY).is_none() {
            warn!(registry = self.handle.name, %error, "a service cannot be followed; the others are");
        }
        self.handle.view().refuse(range, error)
    }

    /// A range was listed: enters it, and watches it from there.
    async fn listed(&mut self, range: &Range, listing: Result<ListResponse>, key_prefix: &str) -> Result<Affected> {
        let listing = listing?;
        if are_two_etcds(listing.cluster_id, self.cluster_id) || listing.revision < self.least_revision {
            return Err(RegistryError::WatchEnded("another etcd answers than when the session began".to_owned()));
        }
        let listing = Listing::decoded(&self.handle.layout, listing).await;
        let (cluster_id, revision, records) = (listing.cluster_id, listing.revision, listing.records.len());
        let (mut affected, incarnation) = {
            let mut view = self.handle.view();
            (view.reset(range, listing, self.env.now()), view.incarnation())
        };
        if incarnation != Incarnation::AsItWas {
            self.handle.leases.forget_grants();
        }
        // Immediately: the next list will not show these departures again.
        self.look_up(&mut affected);
        if let Range::Service(name) = range {
            // The services of the name wait for the list itself, even an empty one.
            affected.names.insert(name.as_str().as_bytes().into());
        }
        self.listed = self.listed.max(revision);
        match range {
            Range::Everything => info!(registry = self.handle.name, key_prefix, records, revision, "listed"),
            // A line for each of thousands of names would bury the others.
            Range::Service(_) => debug!(registry = self.handle.name, key_prefix, records, revision, "listed"),
        }
        let follow = WatchRange {
            watch_id: self.next_watch_id,
            key_prefix: key_prefix.to_owned(),
            from: revision + 1,
            cluster_id,
        };
        self.next_watch_id += 1;
        match &mut self.watch {
            Some(watch) => watch.follow(&follow).await?,
            None => {
                self.watch = Some(self.registry.watch(&follow).await?);
                self.silence = Silence::begin();
            }
        }
        self.followed.insert(range.clone(), follow.watch_id);
        self.refused.remove(range);
        Ok(affected)
    }

    /// One watch ended. If one of its revisions is too large, its range is listed again; without read permission it
    /// waits.
    pub(super) async fn lost(&mut self, watch_id: i64, error: RegistryError) -> Result<Affected> {
        let Some(range) = self.followed.iter().find(|(_, id)| **id == watch_id).map(|(range, _)| range.clone()) else {
            return Ok(Affected::default());
        };
        self.followed.remove(&range);
        self.drop_empty_stream();
        match error {
            RegistryError::TooLarge(_) => {
                warn!(registry = self.handle.name, %error, "a watch is too large; listing its range again");
                self.start_following(BTreeSet::from([range])).await
            }
            RegistryError::PermissionDenied(_) if range != Range::Everything => Ok(self.refuse(&range, error)),
            error => Err(error),
        }
    }
}
