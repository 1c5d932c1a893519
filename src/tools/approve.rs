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
use crate::api::{
    APPROVE_DELETIONS, APPROVE_EPOCH, HoldStatus, RegisteredService, ServiceRegistry, ServiceRegistryStatus,
};

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
            let status = object.status.unwrap_or_default();
            let waiting = Waiting::of_deletions(&status.conditions, status.hold)?;
            annotate(&api, name, waiting, only).await
        }
        Held::Registry(name) => {
            let (api, status) = registry(client, name).await?;
            annotate(&api, name, Waiting::of_deletions(&status.conditions, status.hold)?, only).await
        }
        Held::Epoch(name) => {
            let (api, status) = registry(client, name).await?;
            annotate(&api, name, Waiting::in_message(&status.conditions, READY, APPROVE_EPOCH)?, only).await
        }
    }
}

async fn registry(client: &Client, name: &str) -> Result<(Api<ServiceRegistry>, ServiceRegistryStatus), LookupError> {
    let api: Api<ServiceRegistry> = Api::all(client.clone());
    let object = reading(&format!("ServiceRegistry {name}"), api.get(name).await)?;
    Ok((api, object.status.unwrap_or_default()))
}

/// A value that waits for approval.
#[derive(Debug)]
struct Waiting {
    annotation: &'static str,
    value: String,
    message: String,
}

impl Waiting {
    /// The hold that a status has. A leader of a former version has its hash in the message only.
    fn of_deletions(all: &[Condition], hold: Option<HoldStatus>) -> Result<Self, ApproveError> {
        let held = conditions::find_true(all, DELETIONS_HELD).ok_or(ApproveError::NothingHeld)?;
        let Some(hold) = hold.filter(|hold| hold.since == held.last_transition_time) else {
            return Self::in_message(all, DELETIONS_HELD, APPROVE_DELETIONS);
        };
        Ok(Self { annotation: APPROVE_DELETIONS, value: hold.hash, message: held.message.clone() })
    }

    /// The value in a message, which has the form `ANNOTATION=VALUE`.
    fn in_message(all: &[Condition], kind: &str, annotation: &'static str) -> Result<Self, ApproveError> {
        let message = &conditions::find(all, kind).ok_or(ApproveError::NothingHeld)?.message;
        let value = value(message, annotation).ok_or(ApproveError::NothingHeld)?.to_owned();
        Ok(Self { annotation, value, message: message.clone() })
    }
}

async fn annotate<K>(api: &Api<K>, name: &str, waiting: Waiting, only: Option<&str>) -> Result<String, ApproveError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let Waiting { annotation, value, message } = waiting;
    if let Some(wanted) = only.filter(|wanted| *wanted != value) {
        return Err(ApproveError::Another { found: value, wanted: wanted.to_owned() });
    }
    let patch = Patch::Merge(json!({"metadata": {"annotations": {annotation: value}}}));
    reading(&format!("{name} after the approval"), api.patch(name, &PatchParams::default(), &patch).await)?;
    Ok(message)
}

fn value<'a>(message: &'a str, annotation: &str) -> Option<&'a str> {
    let (_, rest) = message.split_once(&format!("{annotation}="))?;
    rest.split(' ').next().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn the_value_stands_behind_the_annotation() {
        let message = "they stay until T, or until the annotation twinspan.dev/approve-deletions=0a1b releases them";
        assert_eq!(value(message, APPROVE_DELETIONS), Some("0a1b"));
        assert_eq!(value(message, APPROVE_EPOCH), None);
        assert_eq!(value("", APPROVE_DELETIONS), None);
    }

    #[test]
    fn the_hash_of_a_hold_is_in_the_status_and_a_former_version_has_it_in_the_message() {
        let time = |second| Time(twinspan_core::Timestamp::from_second(second).unwrap());
        let held = |since| Condition {
            type_: DELETIONS_HELD.to_owned(),
            status: "True".to_owned(),
            reason: "Held".to_owned(),
            message: format!("until the annotation {APPROVE_DELETIONS}=0a1b releases them"),
            last_transition_time: time(since),
            observed_generation: None,
        };
        let hold = HoldStatus { since: time(60), until: time(360), hash: "2c3d".to_owned() };
        let value = |all: &[Condition], hold: &HoldStatus| {
            Waiting::of_deletions(all, Some(hold.clone())).ok().map(|waiting| waiting.value)
        };
        assert_eq!(value(&[held(60)], &hold).as_deref(), Some("2c3d"));
        assert_eq!(value(&[held(90)], &hold).as_deref(), Some("0a1b"), "the hold of a version before a rollback");
        assert_eq!(value(&[], &hold), None, "nothing is held any more");
    }
}
