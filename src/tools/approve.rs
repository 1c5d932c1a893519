//! Approvals: release held deletions, and an epoch that nothing explains.
//!
//! Owns the way from the value in the operator's status to the annotation that the operator reads. The value names
//! exactly one set or epoch, so later changes are not released with it. Refuses to release anything itself.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::lookup::{LookupError, reading};
use crate::api::conditions::{self, DELETIONS_HELD, READY};
use crate::api::{APPROVE_DELETIONS, APPROVE_EPOCH, RegisteredService, ServiceRegistry};

/// The object to release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Held deletions of one RegisteredService: namespace and name.
    Service(String, String),
    /// Held deletions of a whole registry.
    Registry(String),
    /// Another leader's epoch in a registry.
    Epoch(String),
}

/// The reason why nothing was approved.
#[derive(Debug, thiserror::Error)]
pub enum ApproveError {
    #[error(transparent)]
    Reach(#[from] LookupError),
    #[error("nothing waits for approval there")]
    NothingHeld,
    #[error("what is held now is {found}, not {wanted}; look again")]
    Another { found: String, wanted: String },
}

/// Approves the held deletions or epoch; with `only`, just if the value is this one. Returns the message of the status.
///
/// # Errors
/// [`ApproveError`] if nothing is held, or if the value differs.
pub async fn approve(client: &Client, held: &Held, only: Option<&str>) -> Result<String, ApproveError> {
    match held {
        Held::Service(namespace, name) => {
            let api: Api<RegisteredService> = Api::namespaced(client.clone(), namespace);
            let object = reading(&format!("RegisteredService {namespace}/{name}"), api.get(name).await)?;
            let all = object.status.map(|status| status.conditions).unwrap_or_default();
            annotate(&api, name, &all, DELETIONS_HELD, APPROVE_DELETIONS, only).await
        }
        Held::Registry(name) => {
            let (api, all) = registry(client, name).await?;
            annotate(&api, name, &all, DELETIONS_HELD, APPROVE_DELETIONS, only).await
        }
        Held::Epoch(name) => {
            let (api, all) = registry(client, name).await?;
            annotate(&api, name, &all, READY, APPROVE_EPOCH, only).await
        }
    }
}

async fn registry(client: &Client, name: &str) -> Result<(Api<ServiceRegistry>, Vec<Condition>), LookupError> {
    let api: Api<ServiceRegistry> = Api::all(client.clone());
    let object = reading(&format!("ServiceRegistry {name}"), api.get(name).await)?;
    Ok((api, object.status.map(|status| status.conditions).unwrap_or_default()))
}

async fn annotate<K>(
    api: &Api<K>,
    name: &str,
    all: &[Condition],
    kind: &str,
    annotation: &str,
    only: Option<&str>,
) -> Result<String, ApproveError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let condition = conditions::find(all, kind).ok_or(ApproveError::NothingHeld)?;
    let found = value(&condition.message, annotation).ok_or(ApproveError::NothingHeld)?;
    if let Some(wanted) = only.filter(|wanted| *wanted != found) {
        return Err(ApproveError::Another { found: found.to_owned(), wanted: wanted.to_owned() });
    }
    let patch = Patch::Merge(json!({"metadata": {"annotations": {annotation: found}}}));
    reading(&format!("{name} after the approval"), api.patch(name, &PatchParams::default(), &patch).await)?;
    Ok(condition.message.clone())
}

/// The value in a message, which has the form `ANNOTATION=VALUE`.
fn value<'a>(message: &'a str, annotation: &str) -> Option<&'a str> {
    let (_, rest) = message.split_once(&format!("{annotation}="))?;
    rest.split(' ').next().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_stands_behind_the_annotation() {
        let message = "they stay until T, or until the annotation twinspan.dev/approve-deletions=0a1b releases them";
        assert_eq!(value(message, APPROVE_DELETIONS), Some("0a1b"));
        assert_eq!(value(message, APPROVE_EPOCH), None);
        assert_eq!(value("", APPROVE_DELETIONS), None);
    }
}
