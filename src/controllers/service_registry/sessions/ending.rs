//! The end of sessions, and what each leaves to the next one of its name.
//!
//! Owns whether records are withdrawn, drained or left as they are. Refuses to decide that a session ends.

use tracing::info;

use super::{Former, MAX_FORMER, Sessions};
use crate::api::conditions::Reason;
use crate::api::{APPROVE_HOLDER, ServiceRegistry};
use crate::controllers::service_registry::draining;
use crate::controllers::service_registry::settings::Rejection;
use crate::registry::handle::RegistryEvent;
use crate::registry::sessions::{Draining, SessionSettings};

impl Sessions {
    /// Takes a session back that drains, if it can serve the ServiceRegistry that is there again.
    pub(super) fn adopt(&mut self, name: &str, settings: &SessionSettings) {
        let fits = |draining: &mut Draining| {
            let running = &draining.running;
            running.handle.name == name && running.settings.identity.is_alike(&settings.identity)
        };
        let adopted: Vec<Draining> = self.views.registries.draining().extract_if(.., fits).collect();
        for Draining { running, adopted } in adopted {
            adopted.cancel();
            running.handle.kept.set(None);
            self.views.registries.running().insert(name.to_owned(), running);
            // The session that was to follow never begins.
            self.former.remove(name);
            self.update_names(name);
        }
    }

    /// Whether a session of another place may begin: two of one name would raise one epoch in turns. Otherwise what is
    /// in the former place is withdrawn now.
    pub(super) fn may_begin(&mut self, name: &str, settings: &SessionSettings) -> bool {
        let mut draining = self.views.registries.draining();
        // A ServiceRegistry that is created again in its place finds its own records by comparison.
        let here = |draining: &mut Draining| {
            let running = &draining.running;
            running.handle.name == name && running.settings.identity.is_same_place(&settings.identity)
        };
        for Draining { running, adopted } in draining.extract_if(.., here) {
            adopted.cancel();
            running.stop.cancel();
        }
        let former = draining.iter().find(|draining| draining.running.handle.name == name);
        let Some(former) = former else {
            self.waiting.remove(name);
            return true;
        };
        if self.waiting.insert(name.to_owned()) {
            former.running.handle.kept.set(None);
            former.running.handle.requeue_all();
            info!(registry = name, "waiting until what was exported to the former place is withdrawn");
        }
        false
    }

    /// Ends the session of a ServiceRegistry that another release serves. Its records are left as they are: the other
    /// release has a cluster ID of its own, and once nobody keeps them alive they expire.
    pub(super) fn yield_to(&mut self, name: &str, object: &ServiceRegistry, release: &str) {
        let message = format!(
            "the release in namespace {release} serves ServiceRegistry {name}; to serve it from here, annotate it with \
             {APPROVE_HOLDER} and the namespace of this release"
        );
        self.reject(name, object, Rejection::new(Reason::Conflict, message));
        let running = self.views.registries.running().remove(name);
        if let Some(running) = running {
            running.stop.cancel();
            self.judged.remove(name);
            self.send(RegistryEvent::State { registry: name.to_owned() });
        }
    }

    /// Ends the session of a ServiceRegistry that is gone.
    pub(super) fn end(&mut self, name: &str) {
        let unseen = self.views.cluster().vanished_registries.remove(name);
        self.retire(name, Some(unseen));
    }

    /// Lets a session drain. `lost` says whether the object may be lost: `None` if another took its place, and true if
    /// only a list lacks it.
    pub(super) fn retire(&mut self, name: &str, lost: Option<bool>) {
        self.rejections.remove(name);
        self.waiting.remove(name);
        self.last.remove(name);
        self.rivals.remove(name);
        self.met.remove(name);
        self.judged.remove(name);
        self.comparisons.forget(name);
        self.views.guards.forget(name);
        let running = self.views.registries.running().remove(name);
        let Some(running) = running else { return };
        if self.former.len() < MAX_FORMER {
            self.former.insert(name.to_owned(), Former::from(&running));
        }
        draining::begin(&self.views, running, lost, &self.tasks, &self.stop);
        // The owners of its records are reconciled, and withdraw them.
        self.send(RegistryEvent::State { registry: name.to_owned() });
    }
}
