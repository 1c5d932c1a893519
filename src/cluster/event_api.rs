//! The requests for one Event: `events.k8s.io/v1`.
//!
//! Owns the check of the claim to lead, the deadline, the name and the series. The name follows from the content, so
//! that an Event whose answer was lost is not published twice; one that repeats within [`SERIES`] counts up the last,
//! as in client-go. Refuses to know when an Event is sent, which [`super::events`] does.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::Instant;

use super::calls::Calls;
use super::turns::Line;
use super::{ClusterError, Result};
use crate::env::Env;

/// The deadline of one request.
const CALL: Duration = Duration::from_secs(5);
/// The time within which an Event that repeats counts up the last one.
const SERIES: Duration = Duration::from_secs(600);
/// The bytes that the API server takes of a note.
const NOTE: usize = 1024;
/// The bytes of an object's name that are in the name of an Event.
const NAME: usize = 200;
/// Events about objects without a namespace are in this one.
const CLUSTER_SCOPED: &str = "default";
const CONTROLLER: &str = "twinspan";

/// The word for why there is an Event, and its type.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Reason {
    pub word: &'static str,
    pub kind: &'static str,
}

/// Publishes Events.
#[derive(Clone)]
pub(super) struct EventApi {
    calls: Calls,
    env: Env,
    replica: String,
    /// The Events that may repeat, by name.
    series: BTreeMap<String, Series>,
}

#[derive(Clone, Copy, Debug)]
struct Series {
    count: i32,
    last: Instant,
}

impl std::fmt::Debug for EventApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventApi")
    }
}

impl EventApi {
    pub fn new(calls: Calls, env: Env, replica: &str) -> Self {
        Self { calls, env, replica: replica.to_owned(), series: BTreeMap::new() }
    }

    fn ask(&self) -> Result<()> {
        self.calls.ask()
    }

    pub async fn publish(&mut self, regarding: &ObjectReference, reason: Reason, note: &str) -> Result<()> {
        let note = truncated(note);
        let name = self.name(regarding, reason, note);
        let now = Instant::now();
        self.series.retain(|_, series| series.last + SERIES > now);
        let known = self.series.get(&name).map(|series| series.count);
        let count = match known {
            Some(count) => self.repeat(regarding, reason, note, &name, count + 1).await?,
            None => match self.first(regarding, reason, note, &name).await {
                Ok(()) => 1,
                // Its answer was lost, or it is older than the series.
                Err(ClusterError::Conflict { .. }) => self.repeat(regarding, reason, note, &name, 2).await?,
                Err(error) => return Err(error),
            },
        };
        self.series.insert(name, Series { count, last: now });
        Ok(())
    }

    /// Counts an Event up; one that the API server has deleted meanwhile begins again.
    async fn repeat(
        &self,
        regarding: &ObjectReference,
        reason: Reason,
        note: &str,
        name: &str,
        count: i32,
    ) -> Result<i32> {
        self.ask()?;
        let last = MicroTime(self.env.now());
        let patch = Patch::Merge(json!({"series": {"count": count, "lastObservedTime": last}}));
        let (api, what) = (self.api(regarding), format!("patch Event {name}"));
        let (api, patch, params) = (&api, &patch, PatchParams::default());
        let params = &params;
        let patched = || async move {
            match api.patch(name, params, patch).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
                other => other.map(|_| true),
            }
        };
        if self.calls.call_once(Line::Reports, CALL, what, patched).await? {
            return Ok(count);
        }
        self.first(regarding, reason, note, name).await.map(|()| 1)
    }

    async fn first(&self, regarding: &ObjectReference, reason: Reason, note: &str, name: &str) -> Result<()> {
        self.ask()?;
        let event = Event {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            action: Some("Sync".to_owned()),
            reason: Some(reason.word.to_owned()),
            note: Some(note.to_owned()),
            type_: Some(reason.kind.to_owned()),
            event_time: Some(MicroTime(self.env.now())),
            regarding: Some(regarding.clone()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.replica.clone()),
            ..Event::default()
        };
        let (api, params) = (self.api(regarding), PostParams::default());
        let what = format!("create Event {name}");
        self.calls.call_once(Line::Reports, CALL, what, || api.create(&params, &event)).await.map(drop)
    }

    fn api(&self, regarding: &ObjectReference) -> Api<Event> {
        Api::namespaced(self.calls.client.clone(), regarding.namespace.as_deref().unwrap_or(CLUSTER_SCOPED))
    }

    /// Another replica has names of its own, so that each counts its own Events.
    fn name(&self, regarding: &ObjectReference, reason: Reason, note: &str) -> String {
        let mut hasher = DefaultHasher::new();
        (regarding.uid.as_deref(), reason, note, &self.replica).hash(&mut hasher);
        let object: String = regarding.name.iter().flat_map(|name| name.chars()).take(NAME).collect();
        format!("{}.{:016x}", object.trim_end_matches(['.', '-']), hasher.finish())
    }
}

/// A note that the API server takes.
fn truncated(note: &str) -> &str {
    let end = (0..=note.len().min(NOTE)).rev().find(|at| note.is_char_boundary(*at));
    &note[..end.unwrap_or_default()]
}
