//! The router: routes each change to the objects that must be reconciled.
//!
//! Owns the rule about which objects a change affects. Refuses to know what a pass does about it.

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use twinspan_core::model::ServiceKey;

use super::queue::Enqueuer;
use super::service_registry::Command;
use super::service_registry::settings::last_known;
use super::views::Views;
use crate::cluster::status_queue::Object;
use crate::cluster::status_writer::{Change, StatusWriter};
use crate::cluster::view::{ClusterEvent, ClusterView, KUBE_SYSTEM};
use crate::probe::ProbeEvent;
use crate::registry::handle::RegistryEvent;

/// The destinations of changes.
#[derive(Debug)]
pub struct Router {
    pub views: Views,
    pub enqueuer: Enqueuer,
    pub registries: mpsc::UnboundedSender<Command>,
    /// `None` in a viewer.
    pub statuses: Option<StatusWriter>,
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
        // The cluster and the registries may always have more events. So they take turns.
        let mut registry_had_turn = false;
        loop {
            let turn_of_cluster = registry_had_turn && !sources.cluster.is_empty();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // A leader judges everything anew; one that led forgets its judgements.
                Ok(()) = sources.leading.changed() => {
                    sources.leading.borrow_and_update();
                    self.reconcile_everything();
                }
                // Probes have a pace, so that their answers keep nothing else waiting.
                Some(ProbeEvent { services }) = sources.probe.recv() => self.enqueuer.enqueue_all(&services),
                Some(event) = sources.registry.recv(), if !turn_of_cluster => {
                    registry_had_turn = true;
                    self.registry_changed(event);
                }
                Some(event) = sources.cluster.recv() => {
                    registry_had_turn = false;
                    self.cluster_changed(&event);
                }
            }
        }
    }

    fn cluster_changed(&self, event: &ClusterEvent) {
        if let ClusterEvent::ServiceRegistry(name) | ClusterEvent::StatusChanged(Object::ServiceRegistry(name)) = event
        {
            self.tell_session(name);
        }
        self.wake_discovery(event);
        let view = self.views.cluster();
        if !view.is_complete_somewhere() {
            // No pass may follow from an incomplete view; everything is reconciled once it is complete. Sessions begin
            // before, for leases have to be kept alive.
            drop(view);
            if concerns_sessions(event) {
                self.send(Command::ReconcileAll);
            }
            return;
        }
        match event {
            ClusterEvent::RegisteredService(key) => self.enqueuer.enqueue(key),
            ClusterEvent::Name { registry, name } => {
                self.send(Command::UpdateName { registry: registry.clone(), name: name.clone() });
            }
            ClusterEvent::Service(service) => {
                self.enqueue_with_siblings(&view, view.index.of_service(service));
                self.enqueuer.enqueue_all(&view.nameless(&service.namespace));
                self.enqueuer.enqueue_all(self.views.interest().gone_in(&service.namespace));
            }
            ClusterEvent::Wrote { services, by } => self.enqueue_others(&view, services, by),
            ClusterEvent::Yielded { service, by } => self.enqueue_others(&view, [service], by),
            ClusterEvent::Namespace(name) => {
                self.enqueuer.enqueue_all(view.index.of_namespace(name));
                if name == KUBE_SYSTEM {
                    self.send(Command::ReconcileAll);
                }
            }
            // One that is not served may be the same registry as one of ours.
            ClusterEvent::ServiceRegistry(name) if !view.reach().serves(name) => self.send(Command::ReconcileAll),
            ClusterEvent::ServiceRegistry(name) => {
                self.send(Command::Reconcile(name.clone()));
                self.enqueuer.enqueue_round(view.index.of_registry(name));
                drop(view);
                // A RegisteredService that moved away may have records there under a name that is not allowed any more.
                self.enqueue_owners(name);
            }
            ClusterEvent::StatusChanged(object) => {
                drop(view);
                match self.statuses.as_ref().map(|statuses| statuses.judge(object)) {
                    Some(Change::Ours) => self.status_written(object),
                    Some(Change::Foreign) => self.compare_status(object),
                    Some(Change::Ignored) | None => {}
                }
            }
            ClusterEvent::StatusWritten(object) => {
                drop(view);
                self.status_written(object);
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
            ClusterEvent::Gate(pod) => {
                self.views.gates.look_at(pod);
                self.views.gates.tell_of(view.pods.all_waiting().next());
            }
            ClusterEvent::Selects(namespace) => self.views.gates.look_in(namespace),
            ClusterEvent::Nodes => {
                self.enqueue_with_siblings(&view, view.index.by_node_addresses());
                // A pod that waits on a Node that is lost is not exported.
                let index = self.views.interest();
                for ip in view.pods.addresses_waiting() {
                    self.enqueue_with_siblings(&view, index.of_ip(ip));
                }
            }
            ClusterEvent::Synced(_) | ClusterEvent::Heard => {
                self.views.gates.tell_of(view.pods.all_waiting().next());
                drop(view);
                self.views.gates.look_everywhere();
                self.reconcile_everything();
            }
        }
    }

    /// Discovery looks where something changed that it reads.
    fn wake_discovery(&self, event: &ClusterEvent) {
        let discoveries = &self.views.discoveries;
        match event {
            ClusterEvent::StatusChanged(object) | ClusterEvent::StatusWritten(object) => {
                if let Object::RegisteredService(key) = object {
                    discoveries.status_changed(key, self.is_denied(key));
                }
            }
            ClusterEvent::RegisteredService(key) => {
                // Another spec, or none, needs another grant.
                discoveries.status_changed(key, self.is_denied(key));
                discoveries.wake();
            }
            ClusterEvent::ServiceRegistry(_)
            | ClusterEvent::Service(_)
            | ClusterEvent::Namespace(_)
            | ClusterEvent::Selects(_)
            | ClusterEvent::Synced(_)
            | ClusterEvent::Heard => discoveries.wake(),
            _ => {}
        }
    }

    fn is_denied(&self, key: &ServiceKey) -> bool {
        self.views.cluster().registered_services.get(key).is_some_and(|object| object.is_denied())
    }

    /// The session of a replica that does not lead learns from the status what the leader wrote into the registry since
    /// that session began.
    fn tell_session(&self, name: &str) {
        let known = {
            let view = self.views.cluster();
            view.service_registries.get(name).and_then(|object| last_known(object, &view))
        };
        if let Some((handle, known)) = self.views.registries.get(name).zip(known) {
            handle.view().told(&known);
            handle.fence.iter().for_each(|fence| fence.know(known.highest()));
        }
    }

    /// Somebody else changed a status.
    fn compare_status(&self, object: &Object) {
        match object {
            Object::ServiceRegistry(name) => self.send(Command::Report(name.clone())),
            Object::RegisteredService(key) => self.enqueuer.enqueue(key),
        }
    }

    /// The status of a ServiceRegistry that came back as another one waits for those of its RegisteredServices. Where
    /// only a status shows which release has it, its session begins once that names this one.
    fn status_written(&self, object: &Object) {
        let key = match object {
            Object::RegisteredService(key) => key,
            Object::ServiceRegistry(name) => {
                if self.views.cluster().reach().is_limited() && self.views.registries.get(name).is_none() {
                    self.send(Command::Reconcile(name.clone()));
                }
                return;
            }
        };
        let view = self.views.cluster();
        let registry = view.registered_services.get(key).map(|object| object.spec.registry_ref.name.clone());
        drop(view);
        let settles = |name: &String| self.views.registries.get(name).is_some_and(|handle| handle.settling.is_due());
        registry.filter(settles).into_iter().for_each(|name| self.send(Command::Report(name)));
    }

    fn registry_changed(&self, event: RegistryEvent) {
        match event {
            RegistryEvent::Affected { registry, affected, by } => {
                self.views.discoveries.wake();
                self.views.record_changes.tell(&affected.owners);
                let view = self.views.cluster();
                let mut keys = affected.owners;
                keys.extend(affected.names.iter().flat_map(|name| view.index.around_name(&registry, name)));
                let complete = view.is_complete_somewhere();
                drop(view);
                keys.retain(|key| complete && by.as_ref() != Some(key));
                self.enqueuer.enqueue_all(&keys);
                self.send(Command::Report(registry));
            }
            RegistryEvent::Status { registry } => self.send(Command::Report(registry)),
            RegistryEvent::State { registry } => {
                // A hold may have ended.
                self.views.discoveries.look_again();
                self.views.record_changes.tell_all();
                // A status may have come while the session began.
                self.tell_session(&registry);
                // A session may begin before the view is complete, and no pass.
                if self.views.cluster().is_complete_somewhere() {
                    self.enqueuer.enqueue_round(self.views.cluster().index.of_registry(&registry));
                    self.enqueue_owners(&registry);
                }
                self.send(Command::Report(registry));
            }
        }
    }

    /// Enqueues the owners of records in a registry, whatever they refer to now.
    fn enqueue_owners(&self, registry: &str) {
        for handle in self.views.registries.all().iter().filter(|handle| handle.name == registry) {
            self.enqueuer.enqueue_round(&handle.owners());
        }
    }

    /// Enqueues RegisteredServices, and those that share a name or a Service with them.
    fn enqueue_with_siblings<'a>(&self, view: &ClusterView, keys: impl IntoIterator<Item = &'a ServiceKey>) {
        for key in keys {
            self.enqueuer.enqueue(key);
            self.enqueuer.enqueue_all(&view.index.siblings(key));
        }
    }

    /// Enqueues the other RegisteredServices of these Services.
    fn enqueue_others<'a>(
        &self,
        view: &ClusterView,
        services: impl IntoIterator<Item = &'a ServiceKey>,
        by: &ServiceKey,
    ) {
        for key in services.into_iter().flat_map(|service| view.index.of_service(service)).filter(|key| *key != by) {
            self.enqueuer.enqueue(key);
        }
    }

    /// Reconciles everything, because the views are complete or this process began or ceased to lead.
    fn reconcile_everything(&self) {
        {
            let view = self.views.cluster();
            self.enqueuer.enqueue_round(view.index.all());
            self.enqueuer.enqueue_round(view.unreadable_services.keys());
            // Slices may tell of RegisteredServices that are gone.
            self.enqueuer.enqueue_round(view.slices.keepers());
        }
        for handle in self.views.registries.all() {
            self.enqueuer.enqueue_round(&handle.owners());
        }
        self.send(Command::ReconcileAll);
    }

    fn send(&self, command: Command) {
        // The receiver is dropped only while the process ends.
        let _ = self.registries.send(command);
    }
}

/// Whether sessions may begin, or be others, because of a change.
fn concerns_sessions(event: &ClusterEvent) -> bool {
    match event {
        ClusterEvent::ServiceRegistry(_) | ClusterEvent::Secret | ClusterEvent::Synced(_) => true,
        ClusterEvent::Namespace(name) => name == KUBE_SYSTEM,
        _ => false,
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
        Kind::ALL.into_iter().for_each(|kind| {
            views.cluster().set_synced(kind);
        });
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
    async fn a_slice_that_one_wrote_or_an_endpoint_that_it_yields_concerns_the_others_of_its_service() {
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
        let router = Router { views, enqueuer, registries, statuses: None };
        router.cluster_changed(&ClusterEvent::Wrote { services: vec![x.clone()], by: x.clone() });
        assert_eq!(queue.take_enqueued(), std::slice::from_ref(&z));
        router.cluster_changed(&ClusterEvent::Yielded { service: x, by: z });
        assert_eq!(queue.take_enqueued(), [ServiceKey::new("shop", "x")]);
    }

    #[tokio::test]
    async fn a_pod_that_waits_for_a_record_is_told_of_its_change_whoever_wrote_it() {
        let (registries, _commands) = mpsc::unbounded_channel();
        let (enqueuer, _queue) = queue::new(Env::real());
        let router = Router { views: views(), enqueuer, registries, statuses: None };
        let [x, y] = ["x", "y"].map(|name| ServiceKey::new("shop", name));
        let [mut of_x, of_y] = [&x, &y].map(|key| router.views.record_changes.of(key));
        let affected =
            Affected { names: [b"echo"[..].into()].into(), owners: [x.clone()].into(), look_ups: Vec::new() };
        router.registry_changed(RegistryEvent::Affected { registry: "main".into(), affected, by: Some(x) });
        assert!(of_x.has_changed().unwrap() && !of_y.has_changed().unwrap());
        of_x.mark_unchanged();
        // The registry is away, or there again.
        router.registry_changed(RegistryEvent::State { registry: "main".into() });
        assert!(of_x.has_changed().unwrap() && of_y.has_changed().unwrap());
    }

    #[tokio::test]
    async fn what_one_wrote_concerns_the_others_and_the_status_of_the_registry() {
        let (registries, mut commands) = mpsc::unbounded_channel();
        let (enqueuer, mut queue) = queue::new(Env::real());
        let router = Router { views: views(), enqueuer, registries, statuses: None };
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
