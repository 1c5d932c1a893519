//! The end of a sandbox.
//!
//! Owns the removal of its RegisteredServices and ServiceRegistries: stories share a bed and a Twinspan, which would
//! otherwise keep a session for every story before, most of them with a registry that has ended. Refuses to wait, and
//! to judge: the story has ended.

use std::time::Duration;

use kube::api::{Api, DeleteParams, ListParams};
use kube::{Client, ResourceExt};
use twinspan::api::{RegisteredService, ServiceRegistry};
use twinspan_testbed::Bed;

use super::suite::SHARED;

/// The API server may have ended before.
const WITHIN: Duration = Duration::from_secs(30);

/// Removes what a sandbox made, once it is dropped.
pub struct Leaving {
    client: Client,
    /// The name of the sandbox.
    name: String,
}

impl Leaving {
    /// A bed of a story's own ends with it, and nothing has to leave it.
    pub fn of(bed: &Bed, name: &str) -> Option<Self> {
        bed.dir().ends_with(SHARED).then(|| Self { client: bed.client(), name: name.to_owned() })
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let (client, name) = (self.client.clone(), self.name.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(WITHIN, leave(client, name)));
        }
    }
}

/// An object that stays costs later stories a moment, and nothing else.
async fn leave(client: Client, name: String) {
    let everything = (DeleteParams::default(), ListParams::default());
    let services: Api<RegisteredService> = Api::namespaced(client.clone(), &name);
    let _ = services.delete_collection(&everything.0, &everything.1).await;
    let registries: Api<ServiceRegistry> = Api::all(client);
    let Ok(all) = registries.list_metadata(&everything.1).await else { return };
    let further = format!("{name}-");
    for object in all.items.iter().map(ResourceExt::name_any) {
        if object == name || object.starts_with(&further) {
            let _ = registries.delete(&object, &everything.0).await;
        }
    }
}
