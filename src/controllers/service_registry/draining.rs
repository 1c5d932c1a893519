//! Sessions whose ServiceRegistry is gone.
//!
//! Owns how long each goes on: until its own records are withdrawn. Where the object was perhaps lost with many others
//! (a CRD that was deleted, a restored control plane), nothing of a ready endpoint is withdrawn for as long as a hold
//! lasts, and the session serves the object that comes back. Refuses to withdraw: the owners of the records do.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;
use twinspan_core::Timestamp;
use twinspan_core::model::Record;
use twinspan_core::plan::departure::guard::QUIET;
use twinspan_core::plan::departure::held;
use twinspan_core::plan::departure::registry_guard::{REGISTRY_HOLD, REGISTRY_MIN, is_mass};

use crate::controllers::views::Views;
use crate::registry::handle::RegistryHandle;
use crate::registry::sessions::{Draining, Running};

/// Time to withdraw the own records of a deleted registry; the rest expires with the leases.
const WITHDRAW: Duration = Duration::from_secs(30);
/// Interval at which a withdrawal is checked.
const POLL: Duration = Duration::from_millis(200);

/// Begins to drain a session. `lost` is true if only a list lacks the ServiceRegistry, and absent if another took its
/// place.
pub(super) fn begin(
    views: &Views,
    running: Running,
    lost: Option<bool>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let (handle, gone_at) = (&running.handle, views.env.now());
    let keep = match lost {
        Some(true) => Some(REGISTRY_HOLD),
        // The object may be the first of many objects that go now.
        Some(false) if handle.owners().len() >= REGISTRY_MIN => Some(QUIET),
        Some(false) | None => None,
    };
    if lost == Some(true) {
        info!(registry = handle.name, "a list lacks the ServiceRegistry; what was exported to it stays for a while");
    } else {
        info!(registry = handle.name, "the ServiceRegistry is gone; withdrawing what was exported to it");
    }
    keep_for(views, handle, gone_at, keep);
    let draining = Draining { running, adopted: CancellationToken::new() };
    views.registries.draining().push(draining.clone());
    let (views, env, stop) = (views.clone(), views.env.clone(), stop.clone());
    env.spawn_on(tasks, async move {
        let adopted = draining.adopted.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = adopted.cancelled() => return,
            () = drain(&views, &draining.running.handle, gone_at) => {}
        }
        if let Some(running) = take(&views, &draining) {
            running.stop.cancel();
            // Another ServiceRegistry of the same name may wait.
            running.handle.report();
            leave_to_others(&views, &running.handle);
        }
    });
}

/// Without a common prefix other ServiceRegistries may see what is left, and withdraw it from now on.
fn leave_to_others(views: &Views, handle: &RegistryHandle) {
    views.registries.all().iter().filter(|other| handle.has_same_keys(other)).for_each(|other| other.requeue_all());
}

/// Takes a session off the list as it runs now, so that nothing can adopt it; `None` if it was adopted before. It may
/// drain again since then.
fn take(views: &Views, draining: &Draining) -> Option<Running> {
    let mut all = views.registries.draining();
    let ours = |other: &mut Draining| Arc::ptr_eq(&other.running.handle, &draining.running.handle);
    let taken = (!draining.adopted.is_cancelled()).then(|| all.extract_if(.., ours).next());
    taken.flatten().map(|taken| taken.running)
}

fn keep_for(views: &Views, handle: &RegistryHandle, gone_at: Timestamp, length: Option<SignedDuration>) {
    let hold = |length| held::Running::begin(gone_at, views.env.api_server_ahead(), None).hold(length);
    handle.kept.set(length.map(hold));
}

/// Returns once none of our records is left, or it takes too long.
async fn drain(views: &Views, handle: &RegistryHandle, gone_at: Timestamp) {
    let mut waits_for_more = handle.kept.hold().is_some_and(|hold| hold.ends <= gone_at + QUIET);
    while let Some(hold) = handle.kept.hold() {
        if waits_for_more && many_are_gone(views, handle) {
            waits_for_more = false;
            keep_for(views, handle, gone_at, Some(REGISTRY_HOLD));
            info!(registry = handle.name, "many RegisteredServices are gone too; what they exported stays for a while");
            handle.requeue_all();
        } else if views.env.now() >= hold.ends {
            handle.kept.set(None);
            handle.requeue_all();
        }
        tokio::time::sleep(POLL).await;
    }
    let deadline = Instant::now() + WITHDRAW;
    while Instant::now() < deadline && has_records_left(views, handle) {
        tokio::time::sleep(POLL).await;
    }
}

/// Whether there are own records that nobody else withdraws: without a common prefix another session may have some.
fn has_records_left(views: &Views, handle: &RegistryHandle) -> bool {
    let mut others = views.registries.all();
    others.retain(|other| handle.layout.root().is_none() && other.name != handle.name && handle.has_same_keys(other));
    let is_left = |record: &Record| !others.iter().any(|other| other.leases.is_ours(record.lease));
    let view = handle.view();
    view.owners().any(|owner| view.owned_by(owner).any(|record| is_left(record)))
}

/// Whether the objects that refer to the registry went with it.
fn many_are_gone(views: &Views, handle: &RegistryHandle) -> bool {
    let owners = handle.owners();
    let view = views.cluster();
    let gone = owners.iter().filter(|owner| !view.stays(owner)).count();
    is_mass(gone, view.staying_in(&handle.name).count())
}
