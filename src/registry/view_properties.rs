//! Properties of the view: any order of lists, events and answers that etcd may give.
//!
//! Owns an etcd that commits, and tells late. Refuses to give an order that no etcd gives: each watch tells every
//! change after its list in order, once, and those of one revision together (etcd API guarantees, v3.5), while two
//! watches, and answers to single requests, overtake each other.

use std::collections::VecDeque;

use proptest::prelude::*;

use twinspan_core::model::LeaseId;
use twinspan_core::plan::RecordOp;

use super::*;
use crate::api::testing::repeatable;

/// Keys: two of each of two services; those with an odd number are ours.
const KEYS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Others write or delete: a second key in the same transaction where there is one.
    Put(usize, Option<usize>),
    Delete(usize, Option<usize>),
    /// We write or delete; the answer is under way.
    PutOurs(usize),
    DeleteOurs(usize),
    /// We read a key; the answer is under way.
    Read(usize),
    /// The answer that has waited for so many others arrives.
    Answer(usize),
    /// The watch of a range delivers so many revisions.
    Events(usize, usize),
    /// Every watch is where etcd is, which says so.
    Progress,
    /// A range is listed again: etcd reads it, then the list arrives.
    List(usize),
    /// The session is lost, and another one lists everything.
    Session,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..KEYS;
    let step = prop_oneof![
        3 => (key(), prop::option::weighted(0.3, key())).prop_map(|(key, other)| Step::Put(key, other)),
        3 => (key(), prop::option::weighted(0.3, key())).prop_map(|(key, other)| Step::Delete(key, other)),
        3 => key().prop_map(Step::PutOurs),
        2 => key().prop_map(Step::DeleteOurs),
        1 => key().prop_map(Step::Read),
        4 => (0_usize..3).prop_map(Step::Answer),
        8 => (0_usize..2, 1_usize..4).prop_map(|(range, count)| Step::Events(range, count)),
        1 => Just(Step::Progress),
        2 => (0_usize..2).prop_map(Step::List),
        1 => Just(Step::Session),
    ];
    prop::collection::vec(step, 0..50)
}

/// An answer under way.
#[derive(Clone, Debug)]
struct Pending {
    key: usize,
    /// The revision of the write, or at which the key was read.
    at: Revision,
    /// The operation, if it was a write.
    op: Option<RecordOp>,
}

#[derive(Debug)]
struct Story {
    view: RegistryView,
    ranges: Vec<Range>,
    /// Every change in order: its revision, the key, and whether it is there then.
    log: Vec<(Revision, usize, bool)>,
    /// The revision up to which the watch of each range has told; `None` while the range is being listed.
    told: Vec<Option<Revision>>,
    /// The revision of the list in flight of each range, if etcd has read it.
    read: Vec<Option<Revision>>,
    answers: VecDeque<Pending>,
    /// The newest revision at which a list, an event or an answer told of each key.
    newest: [Revision; KEYS],
}

impl Story {
    /// With a root there is one range, and otherwise one for each service.
    fn new(rooted: bool) -> Self {
        let layout = if rooted { Layout::new(Format::Kitex, "p") } else { Layout::new(Format::GoZero, "") };
        let names = ["echo", "pay"].map(|name| RegistryName::new(name).unwrap());
        let ranges: Vec<Range> = layout.ranges(&names).into_iter().collect();
        let count = ranges.len();
        Self {
            view: RegistryView::new(layout, "c1", None),
            ranges,
            log: Vec::new(),
            told: vec![None; count],
            read: vec![None; count],
            answers: VecDeque::new(),
            newest: [0; KEYS],
        }
    }

    fn key(&self, key: usize) -> RecordKey {
        let name = RegistryName::new(if key < 2 { "echo" } else { "pay" }).unwrap();
        let root = self.view.layout().service_root(&name);
        match (self.view.layout().root(), key % 2) {
            (None, 1) => format!("{root}twinspan~c1~shop~echo~10.0.0.{key}:80").into(),
            _ => format!("{root}10.0.0.{key}:80").into(),
        }
    }

    fn raw(&self, key: usize, mod_revision: Revision) -> RawRecord {
        let rooted = self.view.layout().root().is_some();
        let tags = if key % 2 == 1 { r#"{"twinspan.dev/owner":"c1/shop/echo"}"# } else { "null" };
        let value = if rooted {
            format!(r#"{{"network":"tcp","address":"10.0.0.{key}:80","weight":{mod_revision},"tags":{tags}}}"#)
        } else {
            format!("10.0.0.{key}:80")
        };
        RawRecord { key: self.key(key), value: value.into(), mod_revision, lease: LeaseId(70) }
    }

    fn range_of(&self, key: usize) -> usize {
        if self.ranges.len() == 1 { 0 } else { key / 2 }
    }

    fn revision(&self) -> Revision {
        self.log.last().map_or(10, |last| last.0)
    }

    /// The revision of a key's record at a revision of etcd; `None` if it does not exist then.
    fn at(&self, key: usize, at: Revision) -> Option<Revision> {
        let last = self.log.iter().rev().find(|(revision, other, _)| *other == key && *revision <= at)?;
        last.2.then_some(last.0)
    }

    fn now(&self, key: usize) -> Option<Revision> {
        self.at(key, self.revision())
    }

    fn found(&self, key: usize) -> Option<Revision> {
        let key = self.key(key);
        self.view.all().find(|record| record.key == key).map(|record| record.mod_revision)
    }

    /// etcd refuses a transaction that changes a key twice, and a delete of a key that does not exist changes nothing.
    fn commit(&mut self, keys: &BTreeSet<usize>, is_there: bool) -> Revision {
        let revision = self.revision() + 1;
        let changed: Vec<usize> = keys.iter().copied().filter(|key| is_there || self.now(*key).is_some()).collect();
        self.log.extend(changed.into_iter().map(|key| (revision, key, is_there)));
        revision
    }

    fn tell(&mut self, range: usize, revision: Revision) {
        for key in 0..KEYS {
            if self.range_of(key) == range {
                self.newest[key] = self.newest[key].max(revision);
            }
        }
    }

    fn step(&mut self, step: Step) {
        let range = |range: usize, story: &Self| range % story.ranges.len();
        match step {
            Step::Put(key, other) => drop(self.commit(&[key].into_iter().chain(other).collect(), true)),
            Step::Delete(key, other) => drop(self.commit(&[key].into_iter().chain(other).collect(), false)),
            Step::PutOurs(key) if !self.waits(key) && self.now(key) == self.found(key) => {
                let if_revision = self.now(key).unwrap_or_default();
                let op = RecordOp::Update { key: self.key(key), value: Vec::new(), if_revision, lease: LeaseId::NONE };
                self.write(key, op);
            }
            Step::DeleteOurs(key) if !self.waits(key) && self.now(key) == self.found(key) => {
                if let Some(known) = self.now(key) {
                    let lease = LeaseId::NONE;
                    self.write(key, RecordOp::Delete { key: self.key(key), if_revision: known, lease });
                }
            }
            Step::PutOurs(_) | Step::DeleteOurs(_) => {}
            Step::Read(key) => {
                let at = self.revision();
                self.answers.push_back(Pending { key, at, op: None });
            }
            Step::Answer(index) => self.answer(index),
            Step::Events(of, count) => self.events(range(of, self), count),
            Step::Progress => self.progress(),
            Step::List(of) => self.list(range(of, self)),
            Step::Session => {
                self.view.set_stale();
                self.view.begin(None);
                self.told.fill(None);
                self.read.fill(None);
            }
        }
    }

    /// One write of a key is under way at a time.
    fn waits(&self, key: usize) -> bool {
        self.answers.iter().any(|pending| pending.key == key && pending.op.is_some())
    }

    fn write(&mut self, key: usize, op: RecordOp) {
        self.view.begin_write(&ServiceKey::new("shop", "echo").into(), &op);
        let at = self.commit(&[key].into(), !matches!(op, RecordOp::Delete { .. }));
        self.answers.push_back(Pending { key, at, op: Some(op) });
    }

    fn answer(&mut self, index: usize) {
        let index = index.min(self.answers.len().saturating_sub(1));
        let Some(Pending { key, at, op }) = self.answers.remove(index) else { return };
        let raw = self.at(key, at).map(|revision| self.raw(key, revision));
        let name = self.key(key);
        self.view.learnt(&name, raw.as_ref(), at, &mut Affected::default());
        if let Some(op) = op {
            // No event told the writer of the key meanwhile.
            let knows = self.found(key) == self.at(key, at);
            assert!(knows || self.view.is_overtaken(&op, at), "nobody tells the writer of {op:?} at {at}");
            self.view.end_write(&op);
        }
        self.newest[key] = self.newest[key].max(at);
    }

    fn events(&mut self, range: usize, count: usize) {
        let Some(told) = self.told[range] else { return };
        let mut revisions: Vec<Revision> = self.log.iter().map(|change| change.0).filter(|at| *at > told).collect();
        revisions.dedup();
        let Some(until) = revisions.get(count - 1).or(revisions.last()).copied() else { return };
        let within =
            |(at, key, _): &&(Revision, usize, bool)| *at > told && *at <= until && self.range_of(*key) == range;
        let change = |(at, key, is_there): &(Revision, usize, bool)| match is_there {
            true => Change::Put(self.raw(*key, *at)),
            false => Change::Delete { key: self.key(*key), revision: *at },
        };
        let changes: Vec<Change> = self.log.iter().filter(within).map(change).collect();
        self.view.apply(&changes, super::at(0));
        self.told[range] = Some(until);
        let last = changes.last().map(Change::revision);
        last.into_iter().for_each(|last| self.tell(range, last));
    }

    fn progress(&mut self) {
        let now = self.revision();
        let up_to_date = |range: usize| {
            let told = self.told[range]?;
            let within = |(at, key, _): &&(Revision, usize, bool)| *at > told && self.range_of(*key) == range;
            (!self.log.iter().any(|change| within(&change))).then_some(())
        };
        if (0..self.ranges.len()).all(|range| up_to_date(range).is_some()) {
            self.view.progressed(now, super::at(0));
            (0..self.ranges.len()).for_each(|range| self.tell(range, now));
        }
    }

    fn list(&mut self, range: usize) {
        let Some(at) = self.read[range].take() else {
            // The watch of the range ended.
            self.told[range] = None;
            self.read[range] = Some(self.revision());
            return;
        };
        let here = (0..KEYS).filter(|key| self.range_of(*key) == range);
        let records = here.filter_map(|key| Some(self.raw(key, self.at(key, at)?))).collect();
        self.view.reset_to(
            &self.ranges[range].clone(),
            &ListResponse { cluster_id: 1, revision: at, records },
            super::at(0),
        );
        self.told[range] = Some(at);
        self.tell(range, at);
        if self.told.iter().all(Option::is_some) {
            self.view.set_settled();
        }
    }

    /// Every key is as the newest that was told of it says, and nobody suspects another etcd.
    fn check(&self) -> Result<(), TestCaseError> {
        // No plan rests on a range that this session has not listed.
        for key in (0..KEYS).filter(|key| self.view.is_listed(&self.ranges[self.range_of(*key)])) {
            let newest = self.newest[key];
            let found = self.found(key);
            prop_assert_eq!(found, self.at(key, newest), "key {} at {}: {:?}", key, newest, self.log);
        }
        prop_assert_eq!(self.view.incarnation(), Incarnation::AsItWas);
        prop_assert!(!self.view.is_contradicted());
        Ok(())
    }

    fn tell_everything(&mut self) {
        while !self.answers.is_empty() {
            self.answer(0);
        }
        for range in 0..self.ranges.len() {
            while self.told[range].is_none() {
                self.list(range);
            }
            self.events(range, self.log.len() + 1);
        }
    }
}

fn run(rooted: bool, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut story = Story::new(rooted);
    story.step(Step::Session);
    story.tell_everything();
    for step in steps {
        story.step(*step);
        story.check()?;
    }
    story.tell_everything();
    story.check()?;
    let there = |odd: usize| (0..KEYS).filter(|key| key % 2 == odd && story.now(*key).is_some()).count();
    prop_assert_eq!(story.view.counts(), Counts { own: there(1), foreign: there(0), undecodable: 0 });
    prop_assert_eq!(story.view.own_leases().values().map(BTreeSet::len).sum::<usize>(), there(1));
    prop_assert_eq!(story.view.owners().count(), usize::from(there(1) > 0));
    Ok(())
}

proptest! {
    #![proptest_config(repeatable(350))]

    #[test]
    fn a_registry_in_one_range_is_as_the_newest_list_event_or_answer_says(steps in steps()) {
        run(true, &steps)?;
    }

    #[test]
    fn a_registry_in_many_ranges_is_as_the_newest_list_event_or_answer_says(steps in steps()) {
        run(false, &steps)?;
    }
}
