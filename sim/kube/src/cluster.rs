//! The cluster: what its API servers share, and direct access for actors and oracles.
//!
//! Owns the store behind one lock, and who is told of a change. Refuses the rules of a write ([`crate::write`]) and
//! HTTP ([`crate::server`]).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::faults::Faults;
use crate::identity::Identities;
use crate::kinds::{self, Kind};
use crate::server::Server;
use crate::status::Status;
use crate::store::{Backup, Change, Origin, Store};
use crate::write::{Target, Update, Writer, Written};

/// The namespaces that every cluster begins with.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// How a cluster begins.
#[derive(Clone, Debug)]
pub struct Options {
    /// CustomResourceDefinitions, as objects.
    pub crds: Vec<Value>,
    /// The time of day at the beginning.
    pub base: Timestamp,
    /// Events of each kind from which a watch may begin; an older version is answered by 410.
    pub history: usize,
    /// API servers.
    pub servers: usize,
}

impl Default for Options {
    /// A single server without custom resources, at the beginning of 2026 in UTC.
    fn default() -> Self {
        let base = Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { crds: Vec::new(), base, history: 1000, servers: 1 }
    }
}

/// Reads the documents of a YAML file, such as CustomResourceDefinitions.
///
/// # Errors
/// YAML that cannot be read.
pub fn read_yaml(text: &str) -> Result<Vec<Value>, serde_yaml::Error> {
    let documents: Result<Vec<Value>, _> = serde_yaml::Deserializer::from_str(text).map(Value::deserialize).collect();
    Ok(documents?.into_iter().filter(|document| !document.is_null()).collect())
}

#[derive(Debug)]
pub(crate) struct State {
    pub store: Store,
    pub identities: Identities,
    pub servers: Vec<Faults>,
    /// Counts up when the window is dropped.
    pub compactions: u64,
}

pub(crate) struct Shared {
    pub kinds: Vec<Kind>,
    pub clock: Clock,
    state: Mutex<State>,
    /// Told when a kind changes, by the number of the kind, and when a fault does.
    changed: Vec<Arc<Notify>>,
    /// Told when anything changes.
    any: Arc<Notify>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}

/// A cluster; clones are the same one. Its clock is tokio's, so it has to be made inside the runtime that uses it.
#[derive(Clone, Debug)]
pub struct Cluster(Arc<Shared>);

/// A backup of the store.
#[derive(Clone, Debug)]
pub struct Snapshot {
    backup: Backup,
    goes_back: bool,
}

impl Snapshot {
    /// After its restore the versions of objects continue from the backup's, as if etcd was restored without
    /// `--bump-revision`. Otherwise they go on.
    pub fn going_back(mut self) -> Self {
        self.goes_back = true;
        self
    }
}

impl Cluster {
    pub fn new(options: Options) -> Self {
        let Options { crds, base, history, servers } = options;
        let kinds = kinds::all(&crds);
        let resources = kinds.iter().map(|kind| Arc::from(kind.plural.as_str())).collect();
        let state = State {
            store: Store::new(resources, history),
            identities: Identities::default(),
            servers: vec![Faults::default(); servers],
            compactions: 0,
        };
        let changed = kinds.iter().map(|_| Arc::default()).collect();
        let clock = Clock::new(base);
        let cluster = Self(Arc::new(Shared { kinds, clock, state: Mutex::new(state), changed, any: Arc::default() }));
        for name in NAMESPACES {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            // Nothing has these names yet.
            let _ = cluster.create("kube-apiserver", namespace);
        }
        {
            let mut state = cluster.state();
            let State { store, servers, .. } = &mut *state;
            servers.iter_mut().for_each(|server| server.restart(store));
        }
        cluster
    }

    /// An API server by its number: the service that a `kube::Client` takes. A number beyond the last names the last.
    pub fn server(&self, index: usize) -> Server {
        let last = self.state().servers.len().saturating_sub(1);
        Server::new(self.clone(), index.min(last))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn changed(&self, kind: usize) -> Arc<Notify> {
        self.0.changed[kind].clone()
    }

    pub(crate) fn any_change(&self) -> Arc<Notify> {
        self.0.any.clone()
    }

    /// Tells everybody, because a switch concerns every kind.
    pub(crate) fn tell_all(&self) {
        self.0.changed.iter().for_each(|changed| changed.notify_waiters());
        self.0.any.notify_waiters();
    }

    /// The number of a kind by its plural name.
    pub(crate) fn kind(&self, resource: &str) -> Option<usize> {
        self.0.kinds.iter().position(|kind| kind.plural == resource)
    }

    /// Runs one write, and tells of its changes.
    pub(crate) fn write<T>(&self, author: &str, write: impl FnOnce(&mut Writer<'_>) -> T) -> T {
        let mut state = self.state();
        let State { store, identities, .. } = &mut *state;
        let before = store.changes().len();
        let shared = &*self.0;
        let mut writer =
            Writer { kinds: &shared.kinds, store, identities, clock: &shared.clock, author: Arc::from(author) };
        let result = write(&mut writer);
        let changed: Vec<Arc<str>> =
            state.store.changes()[before..].iter().map(|change| change.resource.clone()).collect();
        drop(state);
        for kind in changed.iter().filter_map(|resource| self.kind(resource)) {
            self.0.changed[kind].notify_waiters();
        }
        if !changed.is_empty() {
            self.0.any.notify_waiters();
        }
        result
    }

    fn find(&self, resource: &str) -> Result<usize, Status> {
        self.kind(resource).ok_or_else(Status::no_such_resource)
    }

    fn find_of(&self, object: &Value) -> Result<usize, Status> {
        let is = |kind: &Kind| object["kind"] == kind.kind && object["apiVersion"] == kind.api_version();
        self.0.kinds.iter().position(is).ok_or_else(Status::no_such_resource)
    }

    /// Creates an object.
    ///
    /// # Errors
    /// The refusal, as by HTTP.
    pub fn create(&self, author: &str, object: Value) -> Result<Value, Status> {
        let kind = self.find_of(&object)?;
        let (namespace, _) = place(&object);
        self.write(author, |writer| writer.create(kind, &namespace, object)).map(owned)
    }

    /// Replaces an object. Without a resourceVersion the last one wins, where the kind allows that.
    ///
    /// # Errors
    /// The refusal, as by HTTP.
    pub fn replace(&self, author: &str, object: Value) -> Result<Value, Status> {
        let kind = self.find_of(&object)?;
        let (namespace, name) = place(&object);
        self.update(author, kind, &namespace, &name, false, Update::Replace(object))
    }

    /// Applies a merge patch.
    ///
    /// # Errors
    /// The refusal, as by HTTP.
    pub fn patch(
        &self,
        author: &str,
        resource: &str,
        namespace: &str,
        name: &str,
        merge: Value,
    ) -> Result<Value, Status> {
        self.update(author, self.find(resource)?, namespace, name, false, Update::Merge(merge))
    }

    /// Applies a merge patch to the subresource `status`; its fields are below `status`.
    ///
    /// # Errors
    /// The refusal, as by HTTP.
    pub fn patch_status(
        &self,
        author: &str,
        resource: &str,
        namespace: &str,
        name: &str,
        merge: Value,
    ) -> Result<Value, Status> {
        let kind = self.find(resource)?;
        if !self.0.kinds[kind].has_status() {
            return Err(Status::no_such_resource());
        }
        self.update(author, kind, namespace, name, true, Update::Merge(merge))
    }

    fn update(
        &self,
        author: &str,
        kind: usize,
        namespace: &str,
        name: &str,
        is_status: bool,
        update: Update,
    ) -> Result<Value, Status> {
        let target = Target { kind, namespace, name, is_status };
        self.write(author, |writer| writer.update(target, update)).map(|Written { object, .. }| owned(object))
    }

    /// Creates an object, or replaces it whatever its version; its status stays.
    ///
    /// # Errors
    /// The refusal, as by HTTP.
    pub fn apply(&self, author: &str, mut object: Value) -> Result<Value, Status> {
        let kind = self.find_of(&object)?;
        let (namespace, name) = place(&object);
        match self.get(&self.0.kinds[kind].plural, &namespace, &name) {
            None => self.create(author, object),
            Some(found) => {
                object["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"].clone();
                self.replace(author, object)
            }
        }
    }

    /// Deletes an object: a pod on a node begins to terminate, and so does an object with finalizers.
    ///
    /// # Errors
    /// The refusal, as by HTTP.
    pub fn delete(&self, author: &str, resource: &str, namespace: &str, name: &str) -> Result<(), Status> {
        self.delete_with(author, resource, namespace, name, &json!({})).map(drop)
    }

    /// The same with `DeleteOptions`: `gracePeriodSeconds`, `preconditions`. Returns the body of the answer.
    ///
    /// # Errors
    /// The refusal, as by HTTP.
    pub fn delete_with(
        &self,
        author: &str,
        resource: &str,
        namespace: &str,
        name: &str,
        options: &Value,
    ) -> Result<Value, Status> {
        let target = Target { kind: self.find(resource)?, namespace, name, is_status: false };
        self.write(author, |writer| writer.delete(target, options))
    }

    /// An object, by the plural name of its kind; the namespace of a kind without them is empty.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let kind = self.kind(resource)?;
        let key = self.0.kinds[kind].key(namespace, name);
        self.state().store.get(kind, &key).cloned()
    }

    /// All objects of a kind, in the order of their keys.
    pub fn all(&self, resource: &str) -> Vec<Arc<Value>> {
        let Some(kind) = self.kind(resource) else { return Vec::new() };
        self.state().store.all(kind).map(|(_, object)| object.clone()).collect()
    }

    /// Every applied change from the given one on, in order; none is ever forgotten.
    pub fn changes(&self, from_index: usize) -> Vec<Change> {
        self.state().store.changes().get(from_index..).unwrap_or_default().to_vec()
    }

    /// The version of the latest change.
    pub fn revision(&self) -> u64 {
        self.state().store.revision()
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot { backup: self.state().store.back_up(), goes_back: false }
    }

    /// Restores the control plane from a backup: objects are as they were, and every server restarts.
    pub fn restore(&self, snapshot: Snapshot) {
        let mut state = self.state();
        let State { store, servers, .. } = &mut *state;
        let origin = Origin { at: self.0.clock.elapsed(), author: Arc::from("restore"), subresource: "" };
        store.restore(snapshot.backup, snapshot.goes_back, &origin);
        servers.iter_mut().for_each(|server| server.restored(store));
        drop(state);
        self.tell_all();
    }
}

fn place(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn owned(object: Arc<Value>) -> Value {
    Arc::unwrap_or_clone(object)
}
