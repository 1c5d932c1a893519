//! Sessions: one runs for each ServiceRegistry that can be used.
//!
//! Owns the start of sessions, their end (`ending`), what each is told of names (`names`), and the rule that no two
//! serve the same registry. A changed connection replaces the session and keeps the view; a session whose
//! ServiceRegistry is gone goes on in [`super::draining`] until its own records are withdrawn, or the ServiceRegistry
//! is there again. Refuses to know the content of records and to write status.

mod ending;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use twinspan_core::plan::service::Incarnation;

use super::comparisons::Comparisons;
use super::duplicates::{Known, LastEtcd, Older, older_duplicates, place, same_keyspace};
use super::settings::{self, Rejection};
use super::upkeep::Upkeep;
use crate::api::conditions::Reason;
use crate::api::{APPROVE_EPOCH, ServiceRegistry};
use crate::cluster::reach::Holding;
use crate::controllers::views::Views;
use crate::registry::fence::FenceState;
use crate::registry::handle::{RegistryEvent, RegistryHandle};
use crate::registry::sessions::{Running, SessionSettings};
use crate::registry::{Connect, session};

/// Starts and ends sessions.
#[derive(Debug)]
pub struct Sessions {
    pub views: Views,
    pub events: mpsc::UnboundedSender<RegistryEvent>,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    /// Absent in a viewer.
    pub upkeep: Option<Upkeep>,
    connect: Connect,
    /// Why there can be no session.
    rejections: BTreeMap<String, Rejection>,
    /// The etcd of ServiceRegistries that were rejected as duplicates.
    last: BTreeMap<String, LastEtcd>,
    comparisons: Comparisons,
    /// The etcd of each session when its possible duplicates were last judged: one that learns its etcd while others
    /// are judged has yet to be weighed by those that came before it.
    judged: BTreeMap<String, u64>,
    /// Older ServiceRegistries that may lead to the same etcd, where a keyspace is its names.
    rivals: BTreeMap<String, Vec<Older>>,
    /// When each session that was confirmed had listed everything.
    met: BTreeMap<String, Option<Instant>>,
    /// ServiceRegistries that wait until the place of their predecessor of the same name is empty.
    waiting: BTreeSet<String>,
    /// The session before, of those whose next one has yet to begin; at most [`MAX_FORMER`].
    former: BTreeMap<String, Former>,
}

/// ServiceRegistries without a session whose epoch is remembered.
const MAX_FORMER: usize = 1000;

/// All that a session leaves to the next one of its name.
#[derive(Debug)]
struct Former {
    fence: Option<Arc<FenceState>>,
    endpoints: Vec<String>,
}

impl From<&Running> for Former {
    fn from(running: &Running) -> Self {
        Self { fence: running.handle.fence.clone(), endpoints: running.settings.connection.endpoints.clone() }
    }
}

impl Sessions {
    pub fn new(
        views: Views,
        events: mpsc::UnboundedSender<RegistryEvent>,
        tasks: TaskTracker,
        stop: CancellationToken,
        upkeep: Option<Upkeep>,
        connect: Connect,
    ) -> Self {
        Self {
            views,
            events,
            tasks,
            stop,
            upkeep,
            connect,
            rejections: BTreeMap::new(),
            last: BTreeMap::new(),
            comparisons: Comparisons::default(),
            judged: BTreeMap::new(),
            rivals: BTreeMap::new(),
            met: BTreeMap::new(),
            waiting: BTreeSet::new(),
            former: BTreeMap::new(),
        }
    }

    /// The reason why there can be no session for a ServiceRegistry.
    pub fn rejection(&self, name: &str) -> Option<&Rejection> {
        self.rejections.get(name)
    }

    /// Every ServiceRegistry that exists or has a session.
    pub fn names(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = self.views.cluster().service_registries.keys().cloned().collect();
        names.extend(self.views.registries.running().keys().cloned());
        names
    }

    /// Checks a session for duplicates once it knows its etcd, before anything is written there. Returns the reconciled
    /// ServiceRegistries.
    pub fn confirm(&mut self, name: &str) -> BTreeSet<String> {
        let handle = self.views.registries.get(name);
        let Some(handle) = handle else {
            return if self.waiting.contains(name) { self.reconcile(name) } else { BTreeSet::new() };
        };
        let learnt = handle.etcd().is_some_and(|etcd| !handle.is_sole() || self.judged.get(name) != Some(&etcd));
        let decided = self.comparisons.is_decided(name);
        let returned = self.returned(&handle);
        if learnt || decided || returned { self.reconcile(name) } else { BTreeSet::new() }
    }

    /// True once after another etcd, or an older state, answered: what was proven about the one before proves nothing.
    fn returned(&mut self, handle: &RegistryHandle) -> bool {
        let (name, at) = (&handle.name, handle.connected_at());
        let met = self.met.insert(name.clone(), at);
        let returned = met.is_some_and(|met| met != at) && handle.view().incarnation() != Incarnation::AsItWas;
        if returned {
            self.comparisons.forget(name);
        }
        returned
    }

    /// Reconciles after a change of an object on which any session may depend. Returns every ServiceRegistry.
    pub fn reconcile_all(&mut self) -> BTreeSet<String> {
        let names = self.names();
        for name in &names {
            self.reconcile_one(name);
            self.update_names(name);
        }
        self.renew();
        names
    }

    /// Starts or ends the session of a ServiceRegistry, and reconciles its possible duplicates. Returns all of them.
    pub fn reconcile(&mut self, name: &str) -> BTreeSet<String> {
        // A session that begins meanwhile has yet to learn its etcd.
        if let Some(etcd) = self.views.registries.get(name).and_then(|handle| handle.etcd()) {
            self.judged.insert(name.to_owned(), etcd);
        }
        self.reconcile_one(name);
        let by_another = |reason| matches!(reason, Reason::Conflict | Reason::ClusterIDInUse);
        let rejected = self.rejections.iter().filter(|(_, rejection)| by_another(rejection.reason));
        let mut others: BTreeSet<String> = rejected.map(|(other, _)| other.clone()).collect();
        {
            let running = self.views.registries.running();
            if let Some(ours) = running.get(name).map(|running| &running.settings.identity) {
                let duplicates = running.iter().filter(|(_, other)| same_keyspace(ours, &other.settings.identity));
                others.extend(duplicates.map(|(other, _)| other.clone()));
            }
        }
        others.remove(name);
        for other in &others {
            self.reconcile_one(other);
        }
        others.insert(name.to_owned());
        others
    }

    pub(super) fn reconcile_one(&mut self, name: &str) {
        let (object, holding, settings, place, older) = {
            let view = self.views.cluster();
            // One that waits for a finalizer is gone.
            let stays = |object: &Arc<ServiceRegistry>| object.metadata.deletion_timestamp.is_none();
            let object = view.service_registries.get(name).cloned().filter(stays);
            if !settings::are_known(&view, object.as_deref()) {
                return;
            }
            let holding = object.as_ref().map(|object| view.holding(object));
            // In namespaced mode nothing but the status shows that no other release has it.
            let holding = holding.filter(|holding| *holding != Holding::Unclaimed || view.reach().is_limited());
            let settings = object.as_ref().map(|object| settings::session_settings(object, &view));
            let running = self.views.registries.running();
            let verdicts = self.comparisons.verdicts();
            let known = Known { view: &view, running: &running, last: self.last.get(name), verdicts: &verdicts };
            let place = object.as_ref().and_then(|object| place(known, object));
            let older = object.as_ref().map(|object| older_duplicates(known, object)).unwrap_or_default();
            (object, holding, settings, place, older)
        };
        let Some(object) = object else {
            self.end(name);
            return;
        };
        match holding {
            Some(Holding::Another(release)) => return self.yield_to(name, &object, &release),
            Some(Holding::Unclaimed) if !self.views.registries.running().contains_key(name) => {
                let message = "waiting until the status names this release as the holder";
                self.rejections.insert(name.to_owned(), Rejection::new(Reason::Connecting, message));
                return;
            }
            Some(Holding::Ours | Holding::Unclaimed) | None => {}
        }
        // Without a common prefix a keyspace is its names, and two ServiceRegistries work side by side.
        let by_names = place.is_some_and(|place| place.identity.layout.root().is_none());
        if let Some(older) = older.iter().find(|older| older.proven && !by_names) {
            self.reject_duplicate(name, &object, &older.name);
            return;
        }
        match settings {
            Some(Ok(settings)) => {
                self.rejections.remove(name);
                self.run_session(name, &object, settings);
            }
            Some(Err(rejection)) => self.reject(name, &object, rejection),
            None => {}
        }
        if by_names {
            self.rivals.insert(name.to_owned(), older.clone());
            self.update_taken(name);
            self.confirm_sole(name);
        } else if older.is_empty() {
            self.confirm_sole(name);
        } else if let Some(handle) = self.views.registries.get(name) {
            handle.confirm_sole(None);
        }
        for older in older.into_iter().filter(|older| !older.proven) {
            self.comparisons.start(&self.views, name, older, &self.tasks, &self.stop);
        }
    }

    /// Confirms that no other known ServiceRegistry has the keyspace, so that its records are its own and may be
    /// written.
    fn confirm_sole(&mut self, name: &str) {
        self.last.remove(name);
        if let Some(handle) = self.views.registries.get(name)
            && let Some(etcd) = handle.etcd()
        {
            handle.confirm_sole(Some(etcd));
        }
    }

    /// Rejects a duplicate, because two sessions for one registry would take each other's records for their own.
    fn reject_duplicate(&mut self, name: &str, object: &ServiceRegistry, older: &str) {
        let message = format!(
            "ServiceRegistry {older} has the same etcd, prefix and cluster ID, and is older; delete one of them, or change its prefix"
        );
        self.reject(name, object, Rejection::new(Reason::Conflict, message));
        let running = self.views.registries.running().remove(name);
        if let Some(running) = running {
            self.judged.remove(name);
            running.handle.confirm_sole(None);
            running.stop.cancel();
            if let Some(etcd) = running.handle.etcd() {
                let endpoints = running.settings.connection.endpoints;
                self.last.insert(name.to_owned(), LastEtcd { endpoints, etcd });
            }
            // The status of RegisteredServices that refer to it must say that they wait.
            self.send(RegistryEvent::State { registry: name.to_owned() });
        }
    }

    fn run_session(&mut self, name: &str, object: &ServiceRegistry, settings: SessionSettings) {
        let approved = object.metadata.annotations.as_ref().and_then(|all| all.get(APPROVE_EPOCH)).cloned();
        let (refused, known, former_ttls) = {
            let view = self.views.cluster();
            let status = view.own_status(object);
            let former_ttls = status.map(|status| status.lease_ttls.clone()).unwrap_or_default();
            (status.and_then(|it| it.epoch_in_use.clone()), settings::last_known(object, &view), former_ttls)
        };
        let asks_for_all = object.spec.discovery.as_ref().is_some_and(|discovery| discovery.import.is_some());
        let set_up = |handle: &RegistryHandle| {
            handle.asked.ask_for_all(asks_for_all);
            if let Some(fence) = &handle.fence {
                refused.iter().for_each(|refused| fence.refuse(refused));
                fence.approve(approved);
            }
        };
        self.adopt(name, &settings);
        let running = self.views.registries.running().get(name).cloned();
        let handle = match running {
            Some(running) if running.settings == settings => {
                set_up(&running.handle);
                return;
            }
            Some(running) if running.settings.identity.is_alike(&settings.identity) => {
                if running.settings.connection == settings.connection {
                    info!(
                        registry = name,
                        "created again, or the same connection under other names; its session goes on"
                    );
                    set_up(&running.handle);
                    running.handle.requeue_all();
                    self.views.registries.running().insert(name.to_owned(), Running { settings, ..running });
                    self.update_names(name);
                    return;
                }
                info!(registry = name, "the connection of the ServiceRegistry changed; connecting anew");
                running.stop.cancel();
                running.handle
            }
            other => {
                match other {
                    Some(running) if running.settings.identity.is_same_place(&settings.identity) => {
                        running.stop.cancel();
                        self.former.insert(name.to_owned(), Former::from(&running));
                    }
                    Some(_) => self.retire(name, None),
                    None => {}
                }
                if !self.may_begin(name, &settings) {
                    return;
                }
                let handle = RegistryHandle::new(name, &settings.identity, known, self.events.clone());
                settings::last_scope(object).into_iter().for_each(|scope| handle.asked.set_scope(scope));
                handle
            }
        };
        set_up(&handle);
        // A status may have yet to tell of it.
        if let Some(Former { fence: Some(fence_before), endpoints }) = self.former.remove(name)
            && let Some(fence) = &handle.fence
        {
            fence.succeed(&fence_before, settings.connection.endpoints.iter().any(|one| endpoints.contains(one)));
        }
        handle.set_former_ttls(&former_ttls);
        let running = self.begin(handle, settings);
        self.judged.remove(name);
        self.views.registries.running().insert(name.to_owned(), running);
        self.update_names(name);
    }

    fn begin(&self, handle: Arc<RegistryHandle>, settings: SessionSettings) -> Running {
        let stop = self.stop.child_token();
        let (connector, env) = (self.connect.connector(&handle.name, &settings.connection), &self.views.env);
        env.spawn_on(&self.tasks, session::run(handle.clone(), connector, env.clone(), stop.clone()));
        if let Some(upkeep) = &self.upkeep {
            upkeep.start(&handle, env, &self.tasks, &stop);
        }
        Running { handle, settings, stop }
    }

    /// Connects sessions anew whose Secrets changed, and which go on although their ServiceRegistry is gone, or asks
    /// for something that cannot be used: with a former password nothing is kept alive or withdrawn.
    fn renew(&self) {
        let view = self.views.cluster();
        let renew = |one: &mut Running| {
            // One without its Secret goes on as it is.
            let Ok(connection) = settings::connection(&one.settings.etcd, &view) else { return };
            if connection != one.settings.connection {
                info!(registry = one.handle.name, "a Secret of a session that goes on changed; connecting anew");
                one.stop.cancel();
                *one = self.begin(one.handle.clone(), SessionSettings { connection, ..one.settings.clone() });
            }
        };
        self.views.registries.running().values_mut().for_each(renew);
        self.views.registries.draining().iter_mut().for_each(|draining| renew(&mut draining.running));
    }

    /// Rejects a spec or Secrets that cannot be used. A running session continues, because nothing says that it should
    /// end.
    fn reject(&mut self, name: &str, object: &ServiceRegistry, rejection: Rejection) {
        if self.rejections.get(name) != Some(&rejection) {
            warn!(
                registry = name,
                generation = object.metadata.generation,
                reason = rejection.reason.as_str(),
                "{}",
                rejection.message
            );
        }
        self.rejections.insert(name.to_owned(), rejection);
    }

    fn send(&self, event: RegistryEvent) {
        // The receiver is dropped only while the process ends.
        let _ = self.events.send(event);
    }
}
