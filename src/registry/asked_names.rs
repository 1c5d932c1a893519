//! The names that are asked for in a registry, and the scope that follows from them.
//!
//! Owns the names one by one: a session that is told of one more has to look at that one alone. Refuses to know which
//! names are followed, and that own records keep more of them: the session knows the one, and the view the other.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use twinspan_core::codec::Layout;
use twinspan_core::model::RegistryName;

use super::scope::Scope;

/// The names of one registry, which the controllers set and its session reads.
#[derive(Debug, Default)]
pub struct AskedNames {
    state: Mutex<State>,
    changed: Notify,
    listed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Names of RegisteredServices; `None` before they are listed.
    registered: Option<BTreeSet<RegistryName>>,
    /// Names with orphaned own records.
    orphaned: BTreeSet<RegistryName>,
    /// Names that are asked for, or no longer, since the session looked.
    changed: BTreeSet<RegistryName>,
    /// A session has taken all names, and has to be told of others; the next one takes all again.
    is_taken: bool,
    /// The records of the registry when they were counted last.
    records: usize,
    /// The scope in force; `None` before the first session, where no status tells that of an earlier process.
    scope: Option<Scope>,
    /// The layout has no root, so that there is no choice.
    is_bound: bool,
    /// Every name that there is, is asked for.
    asks_for_all: bool,
}

impl State {
    fn is_asked(&self, name: &RegistryName) -> bool {
        self.registered.as_ref().is_some_and(|names| names.contains(name)) || self.orphaned.contains(name)
    }

    fn change(&mut self, names: Vec<RegistryName>) {
        if self.is_taken {
            self.changed.extend(names);
        }
    }

    fn is_outgrown(&self) -> bool {
        self.scope.is_some_and(|scope| scope != self.choose())
    }

    fn choose(&self) -> Scope {
        match self.scope {
            Some(scope) if self.is_bound => scope,
            before if self.asks_for_all && Scope::is_bearable(before, self.records) => Scope::Everything,
            before => Scope::choose(before, self.records, self.registered.as_ref().map(BTreeSet::len)),
        }
    }
}

impl AskedNames {
    pub fn new(layout: &Layout) -> Self {
        let scope = Some(Scope::at_first(layout)).filter(|scope| *scope == Scope::FollowedNames);
        let state = State { scope, is_bound: scope.is_some(), ..State::default() };
        Self { state: Mutex::new(state), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of all RegisteredServices.
    pub fn set_registered(&self, registered: BTreeSet<RegistryName>) {
        let mut state = self.lock();
        let before = state.registered.replace(registered).unwrap_or_default();
        let differ = state.registered.iter().flat_map(|now| before.symmetric_difference(now)).cloned().collect();
        state.change(differ);
        drop(state);
        self.listed.notify_waiters();
        self.changed.notify_one();
    }

    /// Whether a RegisteredService has this name. Before all of them are known, one alone says nothing.
    pub fn set_name(&self, name: RegistryName, is_registered: bool) {
        let mut state = self.lock();
        let Some(registered) = &mut state.registered else { return };
        let changes = if is_registered { registered.insert(name.clone()) } else { registered.remove(&name) };
        if changes {
            state.change(vec![name]);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Whether every name of the registry is asked for, as far as it has not too many records.
    pub fn ask_for_all(&self, asks: bool) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.asks_for_all, asks) != asks {
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Names that may have to be followed for their records, whoever asks for them.
    pub fn look_at(&self, names: Vec<RegistryName>) {
        if !names.is_empty() {
            self.lock().change(names);
            self.changed.notify_one();
        }
    }

    /// The names with own records that nothing else may refer to.
    pub fn set_orphaned(&self, orphaned: BTreeSet<RegistryName>) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.orphaned, orphaned);
        let differ = before.symmetric_difference(&state.orphaned).cloned().collect();
        state.change(differ);
        drop(state);
        self.changed.notify_one();
    }

    /// The number of records in the whole registry.
    pub fn set_records(&self, records: usize) {
        self.lock().records = records;
        self.changed.notify_one();
    }

    /// The scope of an earlier process, or of one that counted.
    pub fn set_scope(&self, scope: Scope) {
        let mut state = self.lock();
        if !state.is_bound {
            state.scope = Some(scope);
        }
    }

    /// The scope in force.
    pub fn scope(&self) -> Option<Scope> {
        self.lock().scope
    }

    /// A session begins. Returns its scope.
    pub fn begin(&self) -> Scope {
        let mut state = self.lock();
        let scope = state.choose();
        state.scope = Some(scope);
        scope
    }

    /// Whether a session in the scope in force has to begin again, in the other one.
    pub fn is_outgrown(&self) -> bool {
        self.lock().is_outgrown()
    }

    /// Every name that is asked for; a session that takes them all has seen every change.
    pub fn take_all(&self) -> BTreeSet<RegistryName> {
        let mut state = self.lock();
        state.changed.clear();
        state.is_taken = true;
        state.registered.iter().flatten().chain(&state.orphaned).cloned().collect()
    }

    /// The session has ended.
    pub fn release(&self) {
        let mut state = self.lock();
        state.changed.clear();
        state.is_taken = false;
    }

    /// The names that changed since the last call, and whether each is asked for.
    pub fn take_changed(&self) -> Vec<(RegistryName, bool)> {
        let mut state = self.lock();
        let changed = std::mem::take(&mut state.changed);
        changed.into_iter().map(|name| (name.clone(), state.is_asked(&name))).collect()
    }

    /// Whether a session has something to look at.
    pub fn has_changed(&self) -> bool {
        let state = self.lock();
        !state.changed.is_empty() || state.is_outgrown()
    }

    /// Waits until [`Self::has_changed`].
    pub async fn changed(&self) {
        while !self.has_changed() {
            self.changed.notified().await;
        }
    }

    /// Waits until the RegisteredServices are known.
    pub async fn known(&self) {
        loop {
            let listed = self.listed.notified();
            if self.lock().registered.is_some() {
                return;
            }
            listed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use twinspan_core::codec::Format;

    use super::*;
    use crate::registry::scope::{BEARABLE, SMALL};

    fn name(name: &str) -> RegistryName {
        RegistryName::new(name).unwrap()
    }

    fn names(all: &[&str]) -> BTreeSet<RegistryName> {
        all.iter().map(|one| name(one)).collect()
    }

    #[test]
    fn a_session_is_told_of_the_names_that_changed_alone() {
        let asked = AskedNames::new(&Layout::new(Format::GoZero, ""));
        asked.set_name(name("early"), true);
        asked.set_registered(names(&["a", "b"]));
        assert!(!asked.has_changed(), "a session takes all of them first");
        assert_eq!(asked.take_all(), names(&["a", "b"]));
        asked.set_name(name("c"), true);
        asked.set_name(name("a"), false);
        asked.set_name(name("b"), true);
        assert!(asked.has_changed());
        assert_eq!(asked.take_changed(), [(name("a"), false), (name("c"), true)]);
        assert!(!asked.has_changed());
        asked.set_orphaned(names(&["a", "b"]));
        asked.set_registered(names(&["b", "c", "d"]));
        assert_eq!(asked.take_changed(), [(name("a"), true), (name("b"), true), (name("d"), true)]);
        asked.set_orphaned(names(&[]));
        assert_eq!(asked.take_changed(), [(name("a"), false), (name("b"), true)]);
        asked.look_at(vec![name("z")]);
        assert_eq!(asked.take_changed(), [(name("z"), false)]);
        asked.release();
        asked.set_name(name("e"), true);
        assert!(!asked.has_changed(), "without a session");
        assert_eq!(asked.take_all(), names(&["b", "c", "d", "e"]));
    }

    #[test]
    fn a_registry_that_grows_and_one_that_is_asked_for_more_outgrow_a_scope() {
        let asked = AskedNames::new(&Layout::new(Format::Kitex, "p"));
        asked.set_registered(names(&["a", "b"]));
        asked.set_records(10);
        assert_eq!(asked.begin(), Scope::Everything);
        asked.take_all();
        asked.set_records(SMALL - 1);
        assert!(!asked.has_changed());
        asked.set_records(SMALL);
        assert!(asked.has_changed() && asked.is_outgrown());
        assert_eq!(asked.begin(), Scope::FollowedNames);
        assert!(!asked.has_changed());
        asked.set_registered((0..SMALL).map(|n| name(&format!("n-{n}"))).collect());
        assert_eq!(asked.begin(), Scope::Everything);
        assert!(!asked.is_outgrown());
    }

    #[test]
    fn a_registry_of_which_every_name_is_asked_for_is_followed_as_a_whole_while_that_can_be_borne() {
        let asked = AskedNames::new(&Layout::new(Format::Kitex, "p"));
        asked.set_registered(names(&["a"]));
        asked.set_records(BEARABLE);
        assert_eq!(asked.begin(), Scope::FollowedNames);
        asked.ask_for_all(true);
        assert!(!asked.is_outgrown(), "too many records");
        asked.set_records(BEARABLE / 2 - 1);
        assert!(asked.is_outgrown());
        assert_eq!(asked.begin(), Scope::Everything);
        asked.set_records(BEARABLE - 1);
        assert!(!asked.is_outgrown(), "a few more change nothing");
        asked.set_records(BEARABLE);
        assert!(asked.is_outgrown());
        asked.set_records(SMALL);
        asked.ask_for_all(false);
        assert!(asked.is_outgrown());
    }

    #[test]
    fn without_a_root_there_is_no_choice() {
        let asked = AskedNames::new(&Layout::new(Format::GoZero, ""));
        asked.set_scope(Scope::Everything);
        asked.set_registered((0..SMALL).map(|n| name(&format!("n-{n}"))).collect());
        asked.set_records(10);
        assert!(!asked.is_outgrown());
        assert_eq!((asked.begin(), asked.scope()), (Scope::FollowedNames, Some(Scope::FollowedNames)));
    }

    #[test]
    fn the_names_are_known_once_all_of_them_are_set() {
        let asked = AskedNames::new(&Layout::new(Format::Kitex, "p"));
        let mut known = Box::pin(asked.known());
        assert_eq!(known.as_mut().now_or_never(), None);
        asked.set_name(name("a"), true);
        assert_eq!(known.as_mut().now_or_never(), None, "one alone says nothing");
        asked.set_registered(names(&[]));
        assert_eq!(known.now_or_never(), Some(()));
    }
}
