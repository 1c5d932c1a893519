//! The start of the watches that keep the view of the cluster true: one for each part of a kind.
//!
//! Owns which watches there are, and that a silent kind is told of. Refuses to know how a watch goes on, which
//! [`super::watch`] does.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::{Api, Client, Resource};
use tokio::time::sleep;
use tracing::{info, warn};

use super::kinds::Watched;
use super::reach::WHOLE;
use super::view::{ClusterEvent, SILENT_AFTER};
use super::watch::{Watch, Watches};
use crate::api::{RegisteredService, ServiceRegistry, Stored};

/// Interval at which silence is noticed.
const LISTEN: Duration = Duration::from_secs(5);

impl Watches {
    /// Starts the watches of each kind: one, or in namespaced mode one for each namespace.
    pub fn start(&self, client: &Client, operator_namespace: &str) {
        self.follow_namespaced::<Stored<RegisteredService>>(client);
        self.follow_namespaced::<Service>(client);
        self.follow_namespaced::<EndpointSlice>(client);
        self.follow_namespaced::<Pod>(client);
        self.follow_cluster::<Stored<ServiceRegistry>>(client);
        self.follow_cluster::<Namespace>(client);
        self.follow_cluster::<Node>(client);
        self.follow_cluster::<ServiceCIDR>(client);
        self.follow::<Secret>(Api::namespaced(client.clone(), operator_namespace), WHOLE.to_owned());
        let watches = self.clone();
        self.tasks.spawn("silent watches", async move {
            tokio::select! {
                biased;
                () = watches.stop.cancelled() => {}
                () = watches.listen() => {}
            }
        });
    }

    fn follow_namespaced<K: Watched + Resource<Scope = NamespaceResourceScope>>(&self, client: &Client) {
        let parts = self.view().reach().parts(K::KIND);
        for part in parts {
            let api = if part == WHOLE { Api::all(client.clone()) } else { Api::namespaced(client.clone(), &part) };
            self.follow::<K>(api, part);
        }
    }

    /// A part of a kind without namespaces is one object, by its name.
    fn follow_cluster<K: Watched>(&self, client: &Client) {
        let parts = self.view().reach().parts(K::KIND);
        parts.into_iter().for_each(|part| self.follow::<K>(Api::all(client.clone()), part));
    }

    pub(super) fn follow<K: Watched>(&self, api: Api<K>, part: String) {
        self.view().watching.heard(K::KIND, &part, self.env.now());
        let watch = Watch::new(api, part, self.clone());
        let stop = self.stop.clone();
        self.tasks.spawn(K::KIND.as_str(), async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = watch.repeat() => {}
            }
        });
    }

    /// Tells when a kind falls silent, and when it is heard of again.
    pub(super) async fn listen(&self) {
        let mut known = BTreeSet::new();
        loop {
            sleep(LISTEN).await;
            let (silent, ended) = {
                let mut view = self.view();
                (view.silent(self.env.now()), view.take_silence_ended())
            };
            if silent != known {
                let kinds: Vec<&str> = silent.iter().map(|kind| kind.as_str()).collect();
                match kinds.as_slice() {
                    [] => info!(server = self.server, "every kind is heard of again"),
                    kinds => warn!(
                        server = self.server,
                        "no news for {} s of {}; nothing is deleted because of it",
                        SILENT_AFTER.as_secs(),
                        kinds.join(", ")
                    ),
                }
            }
            // A silence between two looks counts too: a pass may have met it.
            if ended || silent != known {
                self.send(vec![ClusterEvent::Heard]);
            }
            known = silent;
        }
    }
}
