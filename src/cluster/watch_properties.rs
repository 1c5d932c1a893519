//! Properties of the watches: any order of lists, events and answers that an API server may give.
//!
//! Owns a server that commits, and tells late. Refuses to give an order that no API server gives: a watch tells every
//! change after its list, in order and once (KEP-5504 and "Efficient detection of changes" in the API concepts).

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;

use super::*;
use crate::api::testing::{object_of, registered_service_spec, repeatable, scratched};
use crate::cluster::convert;

/// Names of objects.
const KEYS: u8 = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Somebody else writes the object, or deletes it.
    Put(u8),
    Delete(u8),
    /// We write the object, or delete it; the answer is under way.
    PutOurs(u8),
    DeleteOurs(u8),
    /// The oldest answer arrives.
    Answer,
    /// The next event arrives.
    Event,
    /// A list begins; the server reads its state; the list arrives.
    List,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..KEYS).prop_map(Step::Put),
        2 => (0..KEYS).prop_map(Step::Delete),
        3 => (0..KEYS).prop_map(Step::PutOurs),
        1 => (0..KEYS).prop_map(Step::DeleteOurs),
        3 => Just(Step::Answer),
        6 => Just(Step::Event),
        2 => Just(Step::List),
    ];
    prop::collection::vec(step, 0..40)
}

/// A kind as the test writes and finds it. An object states its version, so that an outdated one shows.
trait Told: Watched {
    fn object(key: u8, version: u64) -> Value;
    fn found(view: &ClusterView, key: &ObjectKey) -> Option<u64>;
    /// Enters the answer to a write of ours.
    fn wrote(_view: &mut ClusterView, _object: Self) {}
    /// Enters the answer to a delete of ours, of an object of this version.
    fn deleted(_view: &mut ClusterView, _key: &ObjectKey, _version: u64) {}
    /// Whether this process writes the kind and enters the answers.
    const WRITES: bool = false;
}

fn meta(key: u8, version: u64) -> Value {
    let text = version.to_string();
    json!({"name": format!("o{key}"), "namespace": "shop", "uid": format!("uid-{key}"), "resourceVersion": text,
        "labels": {"version": text, "kubernetes.io/service-name": format!("s{}", version % 2),
            "endpointslice.kubernetes.io/managed-by": "twinspan.dev"}})
}

fn version_in(labels: &BTreeMap<String, String>) -> Option<u64> {
    labels.get("version")?.parse().ok()
}

impl Told for EndpointSlice {
    const WRITES: bool = true;

    fn object(key: u8, version: u64) -> Value {
        json!({"metadata": meta(key, version), "addressType": "IPv4", "endpoints": [], "ports": []})
    }

    fn found(view: &ClusterView, key: &ObjectKey) -> Option<u64> {
        let mut found = view.slices.of_namespace(&key.namespace).filter(|slice| slice.name == key.name);
        let slice = found.next().filter(|slice| !slice.deleting)?;
        // The index of Services has it too, and under no other Service.
        for service in ["s0", "s1"] {
            let of_service = view.slices.of_service(&ServiceKey::new("shop", service));
            let has = of_service.iter().any(|other| other.name == key.name);
            assert_eq!(has, slice.service.as_deref() == Some(service), "{slice:?}");
        }
        version_in(&slice.labels)
    }

    fn wrote(view: &mut ClusterView, object: Self) {
        view.slices.wrote("shop", convert::slice(object));
    }

    fn deleted(view: &mut ClusterView, key: &ObjectKey, version: u64) {
        view.slices.set_deleting(key, &version.to_string());
    }
}

impl Told for Service {
    fn object(key: u8, version: u64) -> Value {
        json!({"metadata": meta(key, version), "spec": {}})
    }

    fn found(view: &ClusterView, key: &ObjectKey) -> Option<u64> {
        version_in(&view.services.get(key)?.labels)
    }
}

impl Told for Stored<RegisteredService> {
    fn object(key: u8, version: u64) -> Value {
        let spec = json!({"registryRef": {"name": "main"}, "registryName": format!("{version}"),
            // Every third version is one that this version of Twinspan cannot read.
            "direction": if version.is_multiple_of(3) { "Sideways" } else { "Both" }});
        json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "metadata": meta(key, version),
            "spec": spec})
    }

    fn found(view: &ClusterView, key: &ObjectKey) -> Option<u64> {
        let object = view.registered_services.get(key);
        let version: Option<u64> = object.and_then(|object| object.spec.registry_name.as_ref()?.parse().ok());
        assert_eq!(view.unreadable_services.contains_key(key), version.is_some_and(|v| v.is_multiple_of(3)), "{key}");
        let named = view.index.registry_and_name(key).and_then(|(_, name)| name.parse().ok());
        assert_eq!(named, version, "{key}: the index says the same");
        version
    }
}

/// A server, and what it has told.
struct Story<K> {
    watch: Watch<K>,
    /// Every commit in order: its version, the object, and whether it is there then.
    log: Vec<(u64, u8, bool)>,
    /// The number of commits that the watch has told.
    told: usize,
    /// Answers to our own writes: version, object, and for a delete the version that it deleted.
    answers: VecDeque<(u64, u8, Option<u64>)>,
    /// The list in flight: `Some(None)` before the server reads its state, then the number of commits that it has.
    list: Option<Option<usize>>,
    /// The newest version of each object of which a list, an event or an answer told.
    newest: BTreeMap<u8, u64>,
}

fn object_key(key: u8) -> ObjectKey {
    ObjectKey::new("shop", format!("o{key}"))
}

impl<K: Told> Story<K> {
    fn new(api: Api<K>) -> Self {
        let (watches, _) = watches();
        Self {
            watch: Watch::new(api, WHOLE.to_owned(), watches),
            log: Vec::new(),
            told: 0,
            answers: VecDeque::new(),
            list: None,
            newest: BTreeMap::new(),
        }
    }

    /// The version of an object among the first commits; `None` if it is not there.
    fn at(&self, commits: usize, key: u8) -> Option<u64> {
        let last = self.log[..commits].iter().rev().find(|(_, other, _)| *other == key)?;
        last.2.then_some(last.0)
    }

    fn now(&self, key: u8) -> Option<u64> {
        self.at(self.log.len(), key)
    }

    fn read(key: u8, version: u64) -> K {
        serde_json::from_value(K::object(key, version)).unwrap()
    }

    fn commit(&mut self, key: u8, is_there: bool) -> u64 {
        let version = 10 + self.log.len() as u64;
        self.log.push((version, key, is_there));
        version
    }

    fn tell(&mut self, key: u8, version: u64) {
        let newest = self.newest.entry(key).or_default();
        *newest = version.max(*newest);
    }

    /// Lists and events tell of every object up to the version.
    fn tell_all(&mut self, version: u64) {
        (0..KEYS).for_each(|key| self.tell(key, version));
    }

    fn found(&self, key: u8) -> Option<u64> {
        K::found(&self.watch.watches.view(), &object_key(key))
    }

    fn step(&mut self, step: Step) {
        let waits = |story: &Self, key: u8| story.answers.iter().any(|(_, other, _)| *other == key);
        match step {
            Step::Put(key) => drop(self.commit(key, true)),
            Step::Delete(key) if self.now(key).is_some() => drop(self.commit(key, false)),
            // One pass after the other writes, and each write has a precondition.
            Step::PutOurs(key) if K::WRITES && !waits(self, key) => {
                if self.now(key).is_none() || self.now(key) == self.found(key) {
                    let version = self.commit(key, true);
                    self.answers.push_back((version, key, None));
                }
            }
            Step::DeleteOurs(key) if K::WRITES && !waits(self, key) => {
                if let Some(known) = self.now(key).filter(|_| self.now(key) == self.found(key)) {
                    let version = self.commit(key, false);
                    self.answers.push_back((version, key, Some(known)));
                }
            }
            Step::Answer => self.answer(),
            Step::Event => self.event(),
            Step::List => self.list(),
            Step::Delete(_) | Step::PutOurs(_) | Step::DeleteOurs(_) => {}
        }
    }

    fn answer(&mut self) {
        let Some((version, key, deleted)) = self.answers.pop_front() else { return };
        {
            let mut view = self.watch.watches.view();
            match deleted {
                None => K::wrote(&mut view, Self::read(key, version)),
                Some(known) => K::deleted(&mut view, &object_key(key), known),
            }
        }
        self.tell(key, version);
    }

    fn event(&mut self) {
        if self.list.is_some() {
            return;
        }
        let Some((version, key, is_there)) = self.log.get(self.told).copied() else { return };
        self.told += 1;
        let object = Self::read(key, version);
        let event = if is_there { WatchEvent::Modified(object) } else { WatchEvent::Deleted(object) };
        self.watch.event(event, &mut String::new()).unwrap();
        self.tell_all(version);
    }

    fn list(&mut self) {
        match self.list {
            None => {
                K::list_begins(&mut self.watch.watches.view(), WHOLE);
                self.list = Some(None);
            }
            Some(None) => self.list = Some(Some(self.log.len())),
            Some(Some(commits)) => {
                let objects = (0..KEYS).filter_map(|key| Some(Self::read(key, self.at(commits, key)?))).collect();
                let version = commits.checked_sub(1).map_or(9, |last| self.log[last].0);
                let mut listed = BTreeSet::new();
                self.watch.page(objects, &mut listed);
                self.watch.complete(&listed, Some(&version.to_string()));
                (self.list, self.told) = (None, commits);
                self.tell_all(version);
            }
        }
    }

    /// Every object is as the newest that was told of it says.
    fn check(&self) -> Result<(), TestCaseError> {
        for key in 0..KEYS {
            let newest = self.newest.get(&key).copied().unwrap_or_default();
            let commits = self.log.iter().filter(|(version, _, _)| *version <= newest).count();
            prop_assert_eq!(self.found(key), self.at(commits, key), "o{} at {}: {:?}", key, newest, self.log);
        }
        Ok(())
    }

    fn tell_everything(&mut self) {
        while self.list.is_some() {
            self.list();
        }
        while !self.answers.is_empty() {
            self.answer();
        }
        while self.told < self.log.len() {
            self.event();
        }
    }
}

fn run<K: Told>(steps: &[Step]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _within = runtime.enter();
    let mut story = Story::new(Api::<K>::all(Server::new([]).client()));
    // Every watch begins with a list.
    (0..3).for_each(|_| story.list());
    for step in steps {
        story.step(*step);
        story.check()?;
    }
    story.tell_everything();
    story.check()?;
    for key in 0..KEYS {
        prop_assert_eq!(story.found(key), story.now(key));
    }
    Ok(())
}

proptest! {
    #![proptest_config(repeatable(300))]

    #[test]
    fn slices_are_as_the_newest_list_event_or_answer_says(steps in steps()) {
        run::<EndpointSlice>(&steps)?;
    }

    #[test]
    fn services_are_as_the_newest_list_or_event_says(steps in steps()) {
        run::<Service>(&steps)?;
    }

    #[test]
    fn registered_services_are_as_the_newest_list_or_event_says_readable_or_not(steps in steps()) {
        run::<Stored<RegisteredService>>(&steps)?;
    }
}

proptest! {
    #![proptest_config(repeatable(40))]

    #[test]
    fn an_object_with_any_json_in_it_stops_no_list_and_no_watch(
        listed in prop::collection::vec(scratched(registered_service_spec()), 1..4),
        changed in scratched(registered_service_spec()),
    ) {
        let object = |name: &str, spec: &Value, status: &Value| object_of("RegisteredService", name, spec, status);
        let broken = listed.iter().enumerate();
        let objects = broken.map(|(n, found)| object(&format!("o{n}"), &found.scratched, &found.status));
        let mut objects: Vec<Value> = objects.collect();
        objects.insert(objects.len() / 2, object("good", &changed.spec, &Value::Null));
        let events = vec![
            event("MODIFIED", &object("o0", &changed.scratched, &changed.status)),
            event("ADDED", &object("late", &changed.spec, &Value::Null)),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let answers = [list(7, &objects), Answer::Silent(events)];
            let bench = watch(Api::<Stored<RegisteredService>>::all, answers);
            let requests = bench.after(1).await;
            prop_assert_eq!(requests, owned(&[(0, "list"), (0, "watch 7")]), "nothing is asked for again");
            let view = bench.watches.view();
            prop_assert!(view.has_listed(&[Kind::RegisteredService]));
            prop_assert_eq!(view.registered_services.len(), objects.len() + 1);
            for name in ["good", "late"] {
                let key = ServiceKey::new("shop", name);
                let expected: Stored<RegisteredService> =
                    serde_json::from_value(object(name, &changed.spec, &Value::Null)).unwrap();
                prop_assert_eq!(&view.registered_services[&key].spec, &expected.object.spec);
                prop_assert!(!view.unreadable_services.contains_key(&key));
            }
            Ok(())
        })?;
    }
}
