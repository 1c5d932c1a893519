//! Gets and lists: at the latest version, at one that is not older than asked for, or at exactly one.
//!
//! Owns the meaning of `resourceVersion`, `resourceVersionMatch`, `limit` and `continue`
//! (`k8s.io/apiserver/pkg/storage/cacher`, v0.37.2). Refuses watches.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::cluster::{Cluster, State};
use crate::kinds::{Family, Kind};
use crate::path::{Path, Query};
use crate::selector::Selector;
use crate::status::{Cause, Status};

/// The longest wait for a cache (`blockTimeout` in `cacher/watch_cache.go`).
const WAIT: Duration = Duration::from_secs(3);
const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You \
                                can start a new list without the continue parameter, or use the continue token in this \
                                response to retrieve the remainder of the results. Continuing with the provided token \
                                results in an inconsistent list - objects that were created, modified, or deleted \
                                between the time the first chunk was returned and now may show up in the list.";

/// The state that a list shows.
enum At {
    /// The state of the cache, once it has this version.
    NotOlderThan(u64),
    /// The latest, for which the cache is waited for, and then passed by.
    Latest,
    Exactly(u64),
}

/// The place at which a list goes on.
struct Continue {
    /// `None` for the latest version.
    revision: Option<u64>,
    after: String,
}

impl Continue {
    /// Opaque to clients, as everywhere.
    fn encode(&self) -> String {
        let revision = self.revision.map_or_else(|| "-1".to_owned(), |revision| revision.to_string());
        format!("{revision}:{}", self.after).bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    fn decode(token: &str) -> Option<Self> {
        let bytes: Option<Vec<u8>> =
            (0..token.len()).step_by(2).map(|at| u8::from_str_radix(token.get(at..at + 2)?, 16).ok()).collect();
        let text = String::from_utf8(bytes?).ok()?;
        let (revision, after) = text.split_once(':')?;
        let revision = if revision == "-1" { None } else { Some(revision.parse().ok()?) };
        Some(Self { revision, after: after.to_owned() })
    }
}

impl Cluster {
    pub(crate) async fn get_by_http(
        &self,
        server: usize,
        kind: usize,
        path: &Path,
        query: &Query,
    ) -> Result<Arc<Value>, Status> {
        let rules = &self.shared().kinds[kind];
        let key = rules.key(&path.namespace, &path.name);
        let found = match query.text("resourceVersion") {
            "" => self.state().store.get(kind, &key).cloned(),
            version => {
                self.wait_for(server, number(version)?).await?;
                let now = self.shared().clock.elapsed();
                let mut state = self.state();
                let State { store, servers, .. } = &mut *state;
                store.get_at(kind, &key, servers[server].seen(store, now))
            }
        };
        found.ok_or_else(|| Status::not_found(rules, &path.name))
    }

    pub(crate) async fn list_by_http(
        &self,
        server: usize,
        kind: usize,
        path: &Path,
        query: &Query,
    ) -> Result<Value, Status> {
        let rules = &self.shared().kinds[kind];
        let selector = Selector::parse(rules, query.text("labelSelector"), query.text("fieldSelector"))?;
        check(query)?;
        let limit = query.number("limit").filter(|limit| *limit > 0).and_then(|limit| usize::try_from(limit).ok());
        let (at, after) = place(query, limit.is_some())?;
        // A list at version 0 comes from the cache in one piece (`computeListLimit`).
        let limit = limit.filter(|_| query.text("resourceVersion") != "0");
        let (changes, revision) = self.state_at(server, &at, &after).await?;
        let prefix = if path.namespace.is_empty() { String::new() } else { format!("{}/", path.namespace) };
        let all = self.state().store.list_at(kind, changes);
        let left: Vec<(String, Arc<Value>)> =
            all.into_iter().filter(|(key, _)| key.starts_with(&prefix) && (after.is_empty() || *key > after)).collect();
        let (mut items, mut last, mut more) = (Vec::new(), "", false);
        for (index, (key, object)) in left.iter().enumerate().filter(|(_, (_, object))| selector.matches(object)) {
            items.push(Value::clone(object));
            last = key;
            if limit.is_some_and(|limit| items.len() >= limit) {
                more = index + 1 < left.len();
                break;
            }
        }
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if matches!(rules.family, Family::Custom { .. }) {
            // Lists of custom resources name it always.
            metadata["continue"] = json!("");
        }
        if more {
            metadata["continue"] = json!(Continue { revision: Some(revision), after: last.to_owned() }.encode());
            if selector.is_empty() {
                metadata["remainingItemCount"] = json!(left.len() - items.len());
            }
        }
        Ok(list(rules, metadata, items))
    }

    /// How many changes the list shows, and its version.
    async fn state_at(&self, server: usize, at: &At, after: &str) -> Result<(usize, u64), Status> {
        match at {
            At::Exactly(revision) => {
                let current = self.state().store.revision();
                if *revision > current {
                    tokio::time::sleep(WAIT).await;
                    return Err(Status::too_large(*revision, current));
                }
                let store = &self.state().store;
                if *revision < store.oldest_listable() {
                    if after.is_empty() {
                        let message = "The resourceVersion for the provided list is too old.";
                        return Err(Status::expired(message));
                    }
                    let mut expired = Status::expired(CONTINUE_EXPIRED);
                    let token = Continue { revision: None, after: after.to_owned() };
                    expired.continue_token = Some(token.encode());
                    return Err(expired);
                }
                Ok((store.changes_until(*revision), *revision))
            }
            At::Latest => {
                let revision = self.state().store.revision();
                let fresh = self.wait_for(server, revision).await.is_ok();
                let now = self.shared().clock.elapsed();
                let mut state = self.state();
                let State { store, servers, .. } = &mut *state;
                let changes = store.changes().len();
                let stale = !servers[server].stale_lists.is_zero();
                let changes = if fresh || stale { servers[server].seen_by_list(store, now) } else { changes };
                // The counter may be ahead of the last change, as it is at the beginning of an era.
                Ok((changes, if stale { store.revision_at(changes) } else { store.revision_at(changes).max(revision) }))
            }
            At::NotOlderThan(revision) => {
                self.wait_for(server, *revision).await?;
                let now = self.shared().clock.elapsed();
                let mut state = self.state();
                let State { store, servers, .. } = &mut *state;
                let changes = servers[server].seen_by_list(store, now);
                Ok((changes, store.revision_at(changes)))
            }
        }
    }

    /// Waits until the cache of a server has seen a version.
    ///
    /// # Errors
    /// 504 "Too large resource version", after three seconds.
    pub(crate) async fn wait_for(&self, server: usize, revision: u64) -> Result<(), Status> {
        let end = Instant::now() + WAIT;
        loop {
            let changed = self.any_change();
            let told = changed.notified();
            let (seen, next) = {
                let now = self.shared().clock.elapsed();
                let mut state = self.state();
                let State { store, servers, .. } = &mut *state;
                let faults = &mut servers[server];
                let seen = faults.seen(store, now);
                (store.revision_at(seen), faults.next_seen(store))
            };
            if seen >= revision {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(Status::too_large(revision, seen));
            }
            let wake = next.map_or(end, |next| self.shared().clock.instant(next).min(end));
            tokio::select! {
                biased;
                () = told => {}
                () = sleep_until(wake) => {}
            }
        }
    }
}

/// A list object. The items of built-in kinds do not repeat their type, those of custom resources do.
fn list(rules: &Kind, metadata: Value, mut items: Vec<Value>) -> Value {
    if !matches!(rules.family, Family::Custom { .. }) {
        for fields in items.iter_mut().filter_map(Value::as_object_mut) {
            fields.remove("kind");
            fields.remove("apiVersion");
        }
    }
    let mut list = json!({"kind": format!("{}List", rules.kind), "apiVersion": rules.api_version(), "items": items});
    list["metadata"] = metadata;
    list
}

pub(crate) fn number(version: &str) -> Result<u64, Status> {
    version.parse().map_err(|_| {
        let why = format!("strconv.ParseUint: parsing \"{version}\": invalid syntax");
        Status::bad_request(format!("invalid resource version: resourceVersion: Invalid value: \"{version}\": {why}"))
    })
}

/// The parameters that exclude each other (`apis/meta/internalversion/validation`).
fn check(query: &Query) -> Result<(), Status> {
    let (version, matching) = (query.text("resourceVersion"), query.text("resourceVersionMatch"));
    let mut causes = Vec::new();
    let mut forbid = |why: &str| causes.push(Cause::forbidden("resourceVersionMatch", why));
    if !matching.is_empty() && version.is_empty() {
        forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
    }
    if !matching.is_empty() && !query.text("continue").is_empty() {
        forbid("resourceVersionMatch is forbidden when continue is provided");
    }
    if matching == "Exact" && version == "0" {
        forbid("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
    }
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid_list_options(&causes)) }
}

/// The state to list, and the key after which the list goes on.
fn place(query: &Query, is_limited: bool) -> Result<(At, String), Status> {
    let (version, token) = (query.text("resourceVersion"), query.text("continue"));
    if !token.is_empty() {
        let decoded = Continue::decode(token);
        let from = decoded.ok_or_else(|| Status::bad_request("invalid continue token: continue key is not valid"))?;
        if !version.is_empty() && version != "0" {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        return Ok((from.revision.map_or(At::Latest, At::Exactly), from.after));
    }
    let at = match (query.text("resourceVersionMatch"), version) {
        (_, "") => At::Latest,
        ("Exact", version) => At::Exactly(number(version)?),
        ("", version) if is_limited && version != "0" => At::Exactly(number(version)?),
        (_, version) => At::NotOlderThan(number(version)?),
    };
    Ok((at, String::new()))
}
