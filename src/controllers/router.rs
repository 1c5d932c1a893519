//! A change → whoever must look again.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use twinspan_core::model::ServiceKey;

use super::context::Context;
use super::queue::Marker;
use super::registries::Command;
use crate::cluster::view::{ClusterEvent, ClusterView};
use crate::registry::handle::RegistryEvent;

/// Where changes come from and where they go.
#[derive(Debug)]
pub struct Router {
    pub context: Context,
    pub marker: Marker,
    pub registries: mpsc::UnboundedSender<Command>,
}

impl Router {
    pub async fn run(
        self,
        mut cluster: mpsc::UnboundedReceiver<ClusterEvent>,
        mut registry: mpsc::UnboundedReceiver<RegistryEvent>,
        stop: CancellationToken,
    ) {
        let mut leading = self.context.claim.changes();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(event) = cluster.recv() => self.cluster_changed(&event),
                Some(event) = registry.recv() => self.registry_changed(event),
                Ok(()) = leading.changed() => {
                    let leads = *leading.borrow_and_update();
                    self.context.metrics.leader.set(u64::from(leads));
                    if leads {
                        self.everything();
                    } else {
                        // What the leader could not write is no trouble of ours any more.
                        self.tell(Command::CheckAll);
                    }
                }
            }
        }
    }

    fn cluster_changed(&self, event: &ClusterEvent) {
        let view = self.context.cluster();
        if !view.waiting_for().is_empty() {
            // Nothing may follow from a picture that is not complete; when it is, everything is looked after.
            return;
        }
        match event {
            ClusterEvent::RegisteredService(key) => self.marker.mark(key),
            ClusterEvent::Names(registry) => self.tell(Command::Names(registry.clone())),
            ClusterEvent::Service(service) => self.mark_with_siblings(&view, view.index.of_service(service)),
            ClusterEvent::Namespace(name) => {
                self.marker.mark_all(view.index.of_namespace(name));
                if name == "kube-system" {
                    self.tell(Command::CheckAll);
                }
            }
            ClusterEvent::ServiceRegistry(name) => {
                self.tell(Command::Check(name.clone()));
                self.marker.mark_all(view.index.of_registry(name));
            }
            ClusterEvent::Secret => self.tell(Command::CheckAll),
            ClusterEvent::Addresses(ips) => {
                let index = self.context.addresses();
                for ip in ips {
                    self.mark_with_siblings(&view, index.of_ip(*ip));
                }
            }
            ClusterEvent::Networks(ranges) => {
                let index = self.context.addresses();
                for (first, last) in ranges {
                    self.mark_with_siblings(&view, index.of_range(*first, *last));
                }
            }
            ClusterEvent::Listed(_) => {
                drop(view);
                self.everything();
            }
        }
    }

    fn registry_changed(&self, event: RegistryEvent) {
        match event {
            RegistryEvent::Touched { registry, touched, by } => {
                let view = self.context.cluster();
                let mut concerned = touched.owners;
                for key in touched.names.iter().flat_map(|name| view.index.of_name(&registry, name)) {
                    concerned.extend(view.index.siblings(key));
                    concerned.insert(key.clone());
                }
                drop(view);
                concerned.retain(|key| by.as_ref() != Some(key));
                self.marker.mark_all(&concerned);
                self.tell(Command::Report(registry));
            }
            RegistryEvent::Status { registry } => self.tell(Command::Report(registry)),
            RegistryEvent::State { registry } => {
                self.marker.mark_all(self.context.cluster().index.of_registry(&registry));
                for handle in self.context.registries.all().iter().filter(|h| h.name == registry) {
                    self.marker.mark_all(&handle.owners());
                }
                self.tell(Command::Report(registry));
            }
        }
    }

    /// What one of them wants concerns those that share a name or a Service with it.
    fn mark_with_siblings<'a>(&self, view: &ClusterView, keys: impl IntoIterator<Item = &'a ServiceKey>) {
        for key in keys {
            self.marker.mark(key);
            self.marker.mark_all(&view.index.siblings(key));
        }
    }

    /// The views are complete, or it is our turn to write.
    fn everything(&self) {
        self.marker.mark_all(self.context.cluster().index.all());
        for handle in self.context.registries.all() {
            self.marker.mark_all(&handle.owners());
        }
        self.tell(Command::CheckAll);
    }

    fn tell(&self, command: Command) {
        // Nobody listens only while the process ends.
        let _ = self.registries.send(command);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::api::RegisteredService;
    use crate::cluster::events::Events;
    use crate::controllers::queue;
    use crate::registry::view::Touched;
    use crate::world::World;

    /// Two RegisteredServices under one name of one registry.
    fn context() -> Context {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        let (events, _) = Events::new(client.clone(), "test", CancellationToken::new());
        let context = Context {
            client,
            world: World::real(),
            cluster: Arc::default(),
            registries: Default::default(),
            guards: Default::default(),
            probes: Default::default(),
            claim: crate::leadership::Claim::none(),
            metrics: Arc::default(),
            events,
            memory: Arc::default(),
            addresses: Arc::default(),
            status_budget: Arc::default(),
            dry_run: false,
        };
        for name in ["x", "y"] {
            let object: RegisteredService = serde_json::from_value(json!({
                "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "metadata": {"name": name, "namespace": "shop"},
                "spec": {"registryRef": {"name": "main"}, "registryName": "echo"},
            }))
            .unwrap();
            context.cluster().index.put(&ServiceKey::new("shop", name), &object);
        }
        context
    }

    #[tokio::test]
    async fn what_one_wrote_concerns_the_others_and_the_status_of_the_registry() {
        let (registries, mut commands) = mpsc::unbounded_channel();
        let (marker, mut queue) = queue::new(World::real());
        let router = Router { context: context(), marker, registries };
        let [x, y] = ["x", "y"].map(|name| ServiceKey::new("shop", name));
        let touched = Touched { names: [b"echo"[..].into()].into(), owners: [x.clone()].into(), look_ups: Vec::new() };
        let event = |by| RegistryEvent::Touched { registry: "main".into(), touched: touched.clone(), by };
        router.registry_changed(event(Some(x.clone())));
        assert_eq!(commands.try_recv().ok(), Some(Command::Report("main".into())));
        assert_eq!(queue.take_marks(), [ServiceKey::new("shop", "y")]);
        router.registry_changed(event(None));
        assert_eq!(queue.take_marks(), [x, y]);
    }
}
