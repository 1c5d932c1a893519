//! The verdicts of RegisteredServices on readiness gates, and the pods to look at again.
//!
//! Owns the way from passes and the router to the controller of gates. A pod is in it once, however often something
//! about it changes, and only pods whose gate is closed are. Refuses to decide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tracing::warn;
use twinspan_core::model::{ObjectKey, PodView, READINESS_GATE, ServiceKey};
use twinspan_core::plan::gate::{Passed, Verdict};
use twinspan_core::plan::service::Verdicts;

/// The word of the last pass over a RegisteredService.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Says {
    pub uid: String,
    /// The generation that the pass read: a spec that changed since is judged anew first.
    pub generation: Option<i64>,
    /// The reason why no pod at all waits for it.
    pub whole: Option<Passed>,
    /// The verdicts on the pods that slices name; it has yet to judge any other one.
    pub pods: Verdicts,
}

impl Says {
    /// The verdict on a pod that it selects; `None` while it has not judged it.
    pub fn about(&self, pod: &PodView) -> Option<Verdict> {
        let judged = || self.pods.get(&(pod.name.clone(), pod.uid.clone())).copied();
        self.whole.map(Verdict::Pass).or_else(judged)
    }
}

/// Clones share everything. A default one is off: nothing is kept in it.
#[derive(Clone, Debug, Default)]
pub struct Gates {
    on: bool,
    /// Whether a person knows that pods wait in vain.
    told: Arc<AtomicBool>,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    says: BTreeMap<ServiceKey, Says>,
    due: Due,
}

/// The pods to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    pub everything: bool,
    pub namespaces: BTreeSet<String>,
    pub pods: BTreeSet<ObjectKey>,
}

impl Gates {
    pub fn on() -> Self {
        Self { on: true, ..Self::default() }
    }

    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Tells a person once of a pod that waits for a gate which this operator may not open.
    pub fn tell_of(&self, waiting: Option<&ObjectKey>) {
        let Some(pod) = waiting.filter(|_| !self.on && !self.told.swap(true, Ordering::Relaxed)) else { return };
        warn!(
            %pod,
            "pods wait for the readiness gate {READINESS_GATE}, and this operator may not open it; set rollouts.enabled of the chart \
             (--rollouts, with the permission and the policy that the chart adds)"
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, mark: impl FnOnce(&mut Due)) {
        if self.on {
            mark(&mut self.lock().due);
            self.changed.notify_one();
        }
    }

    /// A pod changed.
    pub fn look_at(&self, pod: &ObjectKey) {
        self.mark(|due| due.pods.extend([pod.clone()]));
    }

    /// Other pods of the namespace may be selected than before.
    pub fn look_in(&self, namespace: &str) {
        self.mark(|due| due.namespaces.extend([namespace.to_owned()]));
    }

    /// The view is complete, or was not heard of for a while.
    pub fn look_everywhere(&self) {
        self.mark(|due| due.everything = true);
    }

    /// A pass ended. Only the pods about which it says something else are looked at.
    pub fn say(&self, key: &ServiceKey, says: Says) {
        if !self.on {
            return;
        }
        let mut state = self.lock();
        let before = state.says.get(key).cloned();
        if before.as_ref() == Some(&says) {
            return;
        }
        match before {
            Some(before) if before == (Says { pods: before.pods.clone(), ..says.clone() }) => {
                let names = before.pods.keys().chain(says.pods.keys());
                let changed = names.filter(|pod| before.pods.get(*pod) != says.pods.get(*pod));
                let changed = changed.map(|(name, _)| ObjectKey::new(&key.namespace, name));
                state.due.pods.extend(changed);
            }
            _ => state.due.namespaces.extend([key.namespace.clone()]),
        }
        state.says.insert(key.clone(), says);
        drop(state);
        self.changed.notify_one();
    }

    /// A RegisteredService is gone.
    pub fn forget(&self, key: &ServiceKey) {
        let gone = self.on && self.lock().says.remove(key).is_some();
        if gone {
            self.look_in(&key.namespace);
        }
    }

    /// The verdict of a RegisteredService on a pod that it selects, if its last pass read this generation of it.
    pub fn about(
        &self,
        key: &ServiceKey,
        uid: Option<&str>,
        generation: Option<i64>,
        pod: &PodView,
    ) -> Option<Verdict> {
        let state = self.lock();
        let says = state.says.get(key).filter(|says| uid == Some(&*says.uid) && says.generation == generation)?;
        says.about(pod)
    }

    /// Waits until there may be a pod to look at.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    pub fn take(&self) -> Due {
        std::mem::take(&mut self.lock().due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ServiceKey {
        ServiceKey::new("shop", "echo")
    }

    fn says(pods: &[(&str, Verdict)]) -> Says {
        let pods = pods.iter().map(|(name, verdict)| (((*name).to_owned(), format!("uid-of-{name}")), *verdict));
        Says { uid: "u".into(), generation: Some(1), whole: None, pods: pods.collect() }
    }

    const DONE: Verdict = Verdict::Pass(Passed::Registered);

    #[test]
    fn a_pass_wakes_the_pods_about_which_it_says_something_else() {
        let gates = Gates::on();
        gates.say(&key(), says(&[("a", Verdict::Wait), ("b", Verdict::Wait)]));
        assert_eq!(gates.take().namespaces, BTreeSet::from(["shop".to_owned()]), "it is new");
        gates.say(&key(), says(&[("a", Verdict::Wait), ("b", Verdict::Wait)]));
        assert_eq!(gates.take(), Due::default());
        gates.say(&key(), says(&[("a", Verdict::Wait), ("b", DONE)]));
        assert_eq!(gates.take().pods, BTreeSet::from([ObjectKey::new("shop", "b")]));
        gates.say(&key(), says(&[("b", DONE)]));
        assert_eq!(gates.take().pods, BTreeSet::from([ObjectKey::new("shop", "a")]));
        gates.say(&key(), Says { whole: Some(Passed::Suspended), ..says(&[("b", DONE)]) });
        assert_eq!(gates.take().namespaces.len(), 1);
        gates.forget(&key());
        assert_eq!(gates.take().namespaces.len(), 1);
        gates.forget(&key());
        assert_eq!(gates.take(), Due::default());
    }

    #[test]
    fn what_was_said_of_another_spec_or_another_pod_of_the_name_does_not_count() {
        let gates = Gates::on();
        gates.say(&key(), says(&[("a", DONE)]));
        let mut pod = crate::cluster::convert::pod(&Default::default());
        (pod.name, pod.uid) = ("a".into(), "uid-of-a".into());
        let about = |uid, generation, pod: &PodView| gates.about(&key(), Some(uid), Some(generation), pod);
        assert_eq!(about("u", 1, &pod), Some(DONE));
        assert_eq!((about("u", 2, &pod), about("other", 1, &pod)), (None, None));
        pod.uid = "another".into();
        assert_eq!(about("u", 1, &pod), None);
    }

    #[test]
    fn nothing_is_kept_where_no_gate_may_be_opened() {
        let gates = Gates::default();
        gates.say(&key(), says(&[("a", DONE)]));
        gates.look_at(&ObjectKey::new("shop", "a"));
        gates.look_everywhere();
        assert_eq!(gates.take(), Due::default());
        assert!(gates.lock().says.is_empty());
    }
}
