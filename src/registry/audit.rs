//! The audit of a registry at rest: what etcd has, compared with the view.
//!
//! Owns the comparison and its interval; on the way the records are counted, for the scope, and the other clusters.
//! etcd has lost events of watches (etcd#18089, #19179), and nothing else would ever tell. All ranges are read in pages
//! at one revision, once the watch has reached it; a difference counts only if a linearizable read of its key confirms
//! it and its range is followed still. Refuses to judge: a record that is gone without an event is left to the guard.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use twinspan_core::codec::Range;
use twinspan_core::model::{RawRecord, Record, RecordKey, Revision};

use super::handle::{RegistryEvent, RegistryHandle};
use super::records::Affected;
use super::verified::{AuditResult, WatchProgress};
use super::view::RegistryView;
use super::{MAX_BATCH, Registry, RegistryError, Result, look_ups, neighbours, record_count};
use crate::env::{Env, milliseconds};

/// Time in which the watch reaches the revision of the audit.
const CATCH_UP: Duration = Duration::from_secs(10);
/// Interval between two requests for progress meanwhile; etcd answers none while a watch is behind.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Wait in place of progress, where the server does not answer such requests.
const SETTLE: Duration = Duration::from_secs(5);
/// With more differences than this the session lists everything again, which finds them all.
const MOST_DIFFERENCES: usize = 1000;
/// Differences of one audit that are logged one by one.
const LOGGED: usize = 20;
/// Lease look-ups in flight at a time.
const LOOK_UPS: usize = 16;

/// Audits until it is stopped, for the first time after a whole interval.
pub async fn run(handle: Arc<RegistryHandle>, interval: Duration, env: Env, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(env.jittered(interval)) => {}
            // Beside the wait, which goes on.
            never = neighbours::follow(&handle) => match never {},
        }
        let Ok(registry) = handle.connection() else { continue };
        let found = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            found = audit(&handle, &registry, &env) => found,
        };
        let result = match found {
            Ok(0) => AuditResult::Agrees,
            Ok(differences) => {
                warn!(registry = handle.name, differences, "the audit found what no event told");
                AuditResult::Differs
            }
            Err(error) => {
                warn!(registry = handle.name, %error, "the audit could not read the registry; the next one will");
                AuditResult::Failed
            }
        };
        handle.audit.add(result, env.now());
        handle.send(RegistryEvent::Status { registry: handle.name.clone() });
    }
}

/// Audits each range that is followed. Returns the number of differences.
async fn audit(handle: &Arc<RegistryHandle>, registry: &Arc<dyn Registry>, env: &Env) -> Result<usize> {
    let (began, ranges) = (Instant::now(), handle.view().followed());
    neighbours::find(handle, registry.as_ref()).await;
    if let Err(error) = record_count::count_again(handle, registry.as_ref()).await {
        debug!(registry = handle.name, %error, "cannot count the records; the next audit will");
    }
    let mut audit = Audit { handle, registry, env, found: 0, records: 0 };
    if let Some(first) = ranges.first() {
        let at = audit.begin(first).await?;
        for range in &ranges {
            audit.range(range, at).await?;
        }
    }
    let (records, duration_ms) = (audit.records, milliseconds(began.elapsed()));
    let (ranges, differences) = (ranges.len(), audit.found);
    debug!(registry = handle.name, ranges, records, duration_ms, differences, "audited in {duration_ms} ms");
    Ok(audit.found)
}

struct Audit<'a> {
    handle: &'a Arc<RegistryHandle>,
    registry: &'a Arc<dyn Registry>,
    env: &'a Env,
    found: usize,
    records: usize,
}

impl Audit<'_> {
    /// Waits until the watch has reached the revision of the audit. Returns that revision; the range is one that our
    /// user may read.
    async fn begin(&self, first: &Range) -> Result<Revision> {
        let key_prefix = self.handle.layout.key_prefix(first);
        let at = self.registry.read(&[key_prefix.as_str().into()]).await?.revision;
        self.catch_up(at).await?;
        Ok(at)
    }

    async fn range(&mut self, range: &Range, at: Revision) -> Result<()> {
        let key_prefix = self.handle.layout.key_prefix(range);
        let mut suspects = self.compare(range, &key_prefix, at).await?.into_iter().collect::<VecDeque<_>>();
        if suspects.len() > MOST_DIFFERENCES {
            if self.view()?.is_listed(range) {
                self.found += suspects.len();
                self.handle.write_unknown(self.registry.as_ref());
            }
            return Ok(());
        }
        while !suspects.is_empty() {
            let keys: Vec<RecordKey> = suspects.drain(..suspects.len().min(MAX_BATCH)).collect();
            let reading = self.registry.read(&keys).await?;
            self.confirm(range, &reading.records, at, reading.revision)?;
        }
        Ok(())
    }

    /// Waits until the view has every event up to the revision.
    async fn catch_up(&self, at: Revision) -> Result<()> {
        let state = &self.handle.audit;
        let mut progress = state.progress();
        let enough = |progress: &WatchProgress| match progress {
            WatchProgress::Unknown => false,
            WatchProgress::Reached(revision) => *revision >= at,
            WatchProgress::Unanswered => true,
        };
        let began = Instant::now();
        while began.elapsed() < CATCH_UP {
            state.progress_wanted.notify_one();
            let asked = async { progress.wait_for(enough).await.map(|reached| *reached) };
            match timeout(ASK_AGAIN, asked).await {
                Ok(Ok(WatchProgress::Unanswered)) => {
                    sleep(SETTLE).await;
                    return Ok(());
                }
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Err(RegistryError::Timeout { what: "progress of a watch", seconds: CATCH_UP.as_secs() })
    }

    /// Reads the range at the revision. Returns the keys whose record differs from the known one. Only records up to
    /// the revision are compared.
    async fn compare(&mut self, range: &Range, key_prefix: &str, at: Revision) -> Result<BTreeSet<RecordKey>> {
        let mut known: Vec<Arc<Record>> = self.view()?.up_to(range, at);
        known.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let mut known = known.into_iter().peekable();
        let (mut pages, mut suspects) = (self.registry.pages(key_prefix, at), BTreeSet::new());
        while let Some(page) = pages.next_page().await? {
            self.records += page.len();
            let view = self.view()?;
            for RawRecord { key, mod_revision, .. } in page {
                while let Some(vanished) = known.next_if(|record| record.key < key) {
                    suspects.insert(vanished.key.clone());
                }
                let same = known.next_if(|record| record.key == key).is_some_and(|r| r.mod_revision == mod_revision);
                if !same && view.is_behind(&key, mod_revision) {
                    suspects.insert(key);
                }
            }
        }
        suspects.extend(known.map(|vanished| vanished.key.clone()));
        Ok(suspects)
    }

    /// Corrects the view where a linearizable read contradicts it too. A change after the revision of the audit is the
    /// watch's matter, and so is a range that was forgotten since the audit began: its next list is still to come.
    fn confirm(
        &mut self,
        range: &Range,
        found: &[(RecordKey, Option<RawRecord>)],
        at: Revision,
        now: Revision,
    ) -> Result<()> {
        let (mut affected, mut vanished) = (Affected::default(), BTreeSet::new());
        let mut lost = Vec::new();
        let mut view = self.view()?;
        if !view.is_listed(range) {
            return Ok(());
        }
        for (key, record) in found {
            match record {
                Some(raw) if raw.mod_revision <= at && view.is_behind(key, raw.mod_revision) => {
                    let Some(more) = view.correct(raw, now) else { continue };
                    lost.push((key, raw.mod_revision, "a put"));
                    affected.add(more);
                }
                None if view.has(key, at) => {
                    lost.push((key, at, "a delete"));
                    vanished.insert(key.clone());
                }
                Some(_) | None => {}
            }
        }
        affected.add(view.vanished(&vanished, self.env.now()));
        drop(view);
        for (key, revision, what) in &lost {
            self.found += 1;
            if self.found <= LOGGED {
                warn!(registry = self.handle.name, %key, revision, "{what} was not told by the watch; found by the audit");
            }
        }
        let permits = Arc::new(Semaphore::new(LOOK_UPS));
        look_ups::start(self.handle, self.registry, &permits, self.env, &mut affected);
        self.handle.notify(affected);
        Ok(())
    }

    /// The view, while the session is the one of our connection.
    fn view(&self) -> Result<MutexGuard<'_, RegistryView>> {
        self.handle.view_of(self.registry.as_ref()).ok_or(RegistryError::NotConnected)
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
