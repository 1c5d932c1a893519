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
            RegistryEvent::Touched { registry, touched } => {
                let view = self.context.cluster();
                for name in &touched.names {
                    self.mark_with_siblings(&view, view.index.of_name(&registry, name));
                }
                self.marker.mark_all(&touched.owners);
                drop(view);
                self.tell(Command::Report(registry));
            }
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
