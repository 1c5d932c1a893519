//! Reads of single objects for the writer of statuses, where the view is not enough.
//!
//! Owns the request: a list of one name, because the operator's role has `list` and not `get`. Refuses to compare what
//! it finds.

use std::fmt::Debug;

use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Result;
use super::calls::Calls;
use super::status_patch::Known;
use super::status_queue::Object;
use super::turns::Line;
use crate::api::{RegisteredService, ServiceRegistry, Stored};

/// The object as the API server has it now, or `None` if it is gone.
pub(super) async fn read(calls: &Calls, object: &Object) -> Result<Option<Known>> {
    let client = calls.client.clone();
    Ok(match object {
        Object::ServiceRegistry(name) => {
            let api: Api<Stored<ServiceRegistry>> = Api::all(client);
            find(calls, &api, object, name).await?.map(|stored| Known::from(&stored.object))
        }
        Object::RegisteredService(key) => {
            let api: Api<Stored<RegisteredService>> = Api::namespaced(client, &key.namespace);
            find(calls, &api, object, &key.name).await?.map(|stored| Known::from(&stored.object))
        }
    })
}

/// The object with the parts of its status that no [`Stored`] keeps.
pub(super) async fn read_whole(calls: &Calls, object: &Object) -> Result<Option<Value>> {
    let client: Client = calls.client.clone();
    let (api, name): (Api<DynamicObject>, _) = match object {
        Object::ServiceRegistry(name) => (Api::all_with(client, &ApiResource::erase::<ServiceRegistry>(&())), name),
        Object::RegisteredService(key) => {
            let resource = ApiResource::erase::<RegisteredService>(&());
            (Api::namespaced_with(client, &key.namespace, &resource), &key.name)
        }
    };
    Ok(find(calls, &api, object, name).await?.map(|found| found.data))
}

async fn find<K>(calls: &Calls, api: &Api<K>, object: &Object, name: &str) -> Result<Option<K>>
where
    K: Clone + Debug + DeserializeOwned,
{
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    let found = calls.call(Line::Reports, format!("read {object}"), || api.list(&named)).await?;
    Ok(found.items.into_iter().next())
}
