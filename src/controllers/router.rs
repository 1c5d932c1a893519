//! The router: routes each change to the objects that must be reconciled.
//!
//! Owns the rule about which objects a change affects. Refuses to know what a pass does about it.

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use twinspan_core::model::ServiceKey;

use super::queue::Enqueuer;
use super::service_registry::Command;
use super::views::Views;
use crate::cluster::view::{ClusterEvent, ClusterView};
use crate::probe::ProbeEvent;
use crate::registry::handle::RegistryEvent;

/// The destinations of changes.
#[derive(Debug)]
pub struct Router {
    pub views: Views,
    pub enqueuer: Enqueuer,
    pub registries: mpsc::UnboundedSender<Command>,
}

/// The sources of changes: each door, and the claim to lead.
#[derive(Debug)]
pub struct Sources {
    pub cluster: mpsc::UnboundedReceiver<ClusterEvent>,
    pub registry: mpsc::UnboundedReceiver<RegistryEvent>,
    pub probe: mpsc::UnboundedReceiver<ProbeEvent>,
    pub leading: watch::Receiver<bool>,
}

impl Router {
    pub async fn run(self, mut sources: Sources, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(event) = sources.cluster.recv() => self.cluster_changed(&event),
                Some(event) = sources.registry.recv() => self.registry_changed(event),
                Some(ProbeEvent { services }) = sources.probe.recv() => self.enqueuer.enqueue_all(&services),
                // A leader judges everything anew; one that led forgets its judgements.
                Ok(()) = sources.leading.changed() => {
                    sources.leading.borrow_and_update();
                    self.reconcile_everything();
                }
            }
        }
    }

    fn cluster_changed(&self, event: &ClusterEvent) {
        let view = self.views.cluster();
        if !view.unsynced().is_empty() {
            // Nothing may follow from an incomplete view; everything is reconciled once it is complete.
            return;
        }
        match event {
            ClusterEvent::RegisteredService(key) => self.enqueuer.enqueue(key),
            ClusterEvent::Names(registry) => self.send(Command::UpdateNames(registry.clone())),
            ClusterEvent::Service(service) => {
                self.enqueue_with_siblings(&view, view.index.of_service(service));
                self.enqueuer.enqueue_all(&view.nameless(&service.namespace));
            }
            ClusterEvent::Wrote { services, by } => {
                for key in services.iter().flat_map(|service| view.index.of_service(service)).filter(|key| *key != by) {
                    self.enqueuer.enqueue(key);
                }
            }
            ClusterEvent::Namespace(name) => {
                self.enqueuer.enqueue_all(view.index.of_namespace(name));
                if name == "kube-system" {
                    self.send(Command::ReconcileAll);
                }
            }
            ClusterEvent::ServiceRegistry(name) => {
                self.send(Command::Reconcile(name.clone()));
                self.enqueuer.enqueue_all(view.index.of_registry(name));
                drop(view);
                // A RegisteredService that moved away may have records there under a name that is not allowed any more.
                self.enqueue_owners(name);
            }
            ClusterEvent::Secret => self.send(Command::ReconcileAll),
            ClusterEvent::Addresses(ips) => {
                let index = self.views.interest();
                for ip in ips {
                    self.enqueue_with_siblings(&view, index.of_ip(*ip));
                }
            }
            ClusterEvent::Networks(ranges) => {
                let index = self.views.interest();
                for (first, last) in ranges {
                    self.enqueue_with_siblings(&view, index.of_range(*first, *last));
                }
            }
            ClusterEvent::Synced(_) => {
                drop(view);
                self.reconcile_everything();
            }
        }
    }

    fn registry_changed(&self, event: RegistryEvent) {
        match event {
            RegistryEvent::Affected { registry, affected, by } => {
                let view = self.views.cluster();
                let mut keys = affected.owners;
                for key in affected.names.iter().flat_map(|name| view.index.of_name(&registry, name)) {
                    keys.extend(view.index.siblings(key));
                    keys.insert(key.clone());
                }
                drop(view);
                keys.retain(|key| by.as_ref() != Some(key));
                self.enqueuer.enqueue_all(&keys);
                self.send(Command::Report(registry));
            }
            RegistryEvent::Status { registry } => self.send(Command::Report(registry)),
            RegistryEvent::State { registry } => {
                self.enqueuer.enqueue_all(self.views.cluster().index.of_registry(&registry));
                self.enqueue_owners(&registry);
                self.send(Command::Report(registry));
            }
        }
    }

    /// Enqueues the owners of records in a registry, whatever they refer to now.
    fn enqueue_owners(&self, registry: &str) {
        for handle in self.views.registries.all().iter().filter(|handle| handle.name == registry) {
            self.enqueuer.enqueue_all(&handle.owners());
        }
    }

    /// Enqueues RegisteredServices, and those that share a name or a Service with them.
    fn enqueue_with_siblings<'a>(&self, view: &ClusterView, keys: impl IntoIterator<Item = &'a ServiceKey>) {
        for key in keys {
            self.enqueuer.enqueue(key);
            self.enqueuer.enqueue_all(&view.index.siblings(key));
        }
    }

    /// Reconciles everything, because the views are complete or this process began or ceased to lead.
    fn reconcile_everything(&self) {
        {
            let view = self.views.cluster();
            self.enqueuer.enqueue_all(view.index.all());
            self.enqueuer.enqueue_all(view.unreadable.keys());
            // Slices may tell of RegisteredServices that are gone.
            self.enqueuer.enqueue_all(view.slices.keepers());
        }
        for handle in self.views.registries.all() {
            self.enqueuer.enqueue_all(&handle.owners());
        }
        self.send(Command::ReconcileAll);
    }

    fn send(&self, command: Command) {
        // The receiver is dropped only while the process ends.
        let _ = self.registries.send(command);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::RegisteredService;
    use crate::cluster::view::Kind;
    use crate::controllers::queue;
    use crate::env::Env;
    use crate::registry::records::Affected;

    /// Two RegisteredServices under one name of one registry.
    fn views() -> Views {
        let views = Views::new(Env::real());
        for name in ["x", "y"] {
            let object: RegisteredService = serde_json::from_value(json!({
                "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "metadata": {"name": name, "namespace": "shop"},
                "spec": {"registryRef": {"name": "main"}, "registryName": "echo"},
            }))
            .unwrap();
            views.cluster().index.put(&ServiceKey::new("shop", name), &object);
        }
        views
    }

    #[tokio::test]
    async fn a_slice_that_one_wrote_concerns_the_others_of_its_service() {
        let (registries, _commands) = mpsc::unbounded_channel();
        let (enqueuer, mut queue) = queue::new(Env::real());
        let views = views();
        Kind::ALL.into_iter().for_each(|kind| {
            views.cluster().set_synced(kind);
        });
        let (x, z) = (ServiceKey::new("shop", "x"), ServiceKey::new("shop", "z"));
        let object: RegisteredService = serde_json::from_value(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "metadata": {"name": "z", "namespace": "shop"},
            "spec": {"registryRef": {"name": "other"}, "service": {"name": "x"}},
        }))
        .unwrap();
        views.cluster().index.put(&z, &object);
        let router = Router { views, enqueuer, registries };
        router.cluster_changed(&ClusterEvent::Wrote { services: vec![x.clone()], by: x });
        assert_eq!(queue.take_enqueued(), [z]);
    }

    #[tokio::test]
    async fn what_one_wrote_concerns_the_others_and_the_status_of_the_registry() {
        let (registries, mut commands) = mpsc::unbounded_channel();
        let (enqueuer, mut queue) = queue::new(Env::real());
        let router = Router { views: views(), enqueuer, registries };
        let [x, y] = ["x", "y"].map(|name| ServiceKey::new("shop", name));
        let affected =
            Affected { names: [b"echo"[..].into()].into(), owners: [x.clone()].into(), look_ups: Vec::new() };
        let event = |by| RegistryEvent::Affected { registry: "main".into(), affected: affected.clone(), by };
        router.registry_changed(event(Some(x.clone())));
        assert_eq!(commands.try_recv().ok(), Some(Command::Report("main".into())));
        assert_eq!(queue.take_enqueued(), [ServiceKey::new("shop", "y")]);
        router.registry_changed(event(None));
        assert_eq!(queue.take_enqueued(), [x, y]);
    }
}
