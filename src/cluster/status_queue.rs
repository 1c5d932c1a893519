//! The statuses that wait to be written: which is the next one, and when.
//!
//! Owns the order and the pace. The latest status of an object replaces the one before. One object is written at most
//! every [`PACE`], all together [`PER_SECOND`] times a second: statuses, which people read, must not cost the API
//! server the capacity that slices need. A status whose `DeletionsHeld` changes goes first, then those of
//! ServiceRegistries; within a class the one that waits longest, so that objects that change all the time hold up no
//! other. Refuses to do I/O and to know what a status says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use twinspan_core::model::ServiceKey;

use super::pace::Pace;
use crate::api::{RegisteredServiceStatus, ServiceRegistryStatus};

/// Least time between two writes of one status.
pub const PACE: Duration = Duration::from_secs(5);
/// Writes a second, over all objects.
const PER_SECOND: u32 = 20;
/// Writes that are under way at once; more wait.
const UNDER_WAY: usize = 16;

/// An object with a status of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    ServiceRegistry(String),
    RegisteredService(ServiceKey),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceRegistry(name) => write!(f, "ServiceRegistry {name}"),
            Self::RegisteredService(key) => write!(f, "RegisteredService {key}"),
        }
    }
}

/// The status of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    ServiceRegistry(Box<ServiceRegistryStatus>),
    RegisteredService(Box<RegisteredServiceStatus>),
}

/// The order of statuses; the first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// People have to act while there is a hold, and the next leader resumes it from the status.
    Hold,
    ServiceRegistry,
    RegisteredService,
}

/// A status that waits, or is under way.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub uid: String,
    pub status: Status,
    class: Class,
    /// Its place among those of its class.
    number: u64,
    due: Instant,
    /// Writes that failed one after another.
    pub failures: u32,
    /// The `resourceVersion` that turned out to be outdated.
    pub outdated: Option<String>,
}

#[derive(Debug)]
pub struct StatusQueue {
    waiting: BTreeMap<Object, Waiting>,
    /// The same, by class and number.
    order: BTreeSet<(Class, u64, Object)>,
    under_way: BTreeMap<Object, Waiting>,
    /// The time before which an object is not written again.
    paced: BTreeMap<Object, Instant>,
    numbered: u64,
    pace: Pace,
}

impl Default for StatusQueue {
    fn default() -> Self {
        let (waiting, order, under_way, paced) = Default::default();
        Self { waiting, order, under_way, paced, numbered: 0, pace: Pace::new(PER_SECOND) }
    }
}

impl StatusQueue {
    /// The latest status of an object with this UID, if it is not written yet.
    pub fn latest(&self, object: &Object, uid: &str) -> Option<&Status> {
        let waiting = self.waiting.get(object).or_else(|| self.under_way.get(object));
        waiting.filter(|waiting| waiting.uid == uid).map(|waiting| &waiting.status)
    }

    pub fn is_under_way(&self, object: &Object) -> bool {
        self.under_way.contains_key(object)
    }

    /// The number of statuses that wait.
    pub fn count(&self) -> usize {
        self.waiting.len()
    }

    /// Adds the latest status of an object. `hold_changes` if it begins or ends a hold.
    pub fn put(&mut self, object: Object, uid: &str, status: Status, hold_changes: bool) {
        let now = Instant::now();
        let class = match object {
            _ if hold_changes => Class::Hold,
            Object::ServiceRegistry(_) => Class::ServiceRegistry,
            Object::RegisteredService(_) => Class::RegisteredService,
        };
        let due = self.paced.get(&object).map_or(now, |paced| now.max(*paced));
        let waiting = match self.take(&object) {
            None => {
                self.numbered += 1;
                let (uid, number) = (uid.to_owned(), self.numbered);
                Waiting { uid, status, class, number, due, failures: 0, outdated: None }
            }
            // One that failed waits for its own time.
            Some(known) => {
                let due = if known.failures == 0 { known.due.min(due) } else { known.due };
                Waiting { uid: uid.to_owned(), status, class, due, ..known }
            }
        };
        self.insert(object, waiting);
    }

    fn insert(&mut self, object: Object, waiting: Waiting) {
        self.order.insert((waiting.class, waiting.number, object.clone()));
        self.waiting.insert(object, waiting);
    }

    fn take(&mut self, object: &Object) -> Option<Waiting> {
        let waiting = self.waiting.remove(object)?;
        self.order.remove(&(waiting.class, waiting.number, object.clone()));
        Some(waiting)
    }

    pub fn remove(&mut self, object: &Object) {
        self.take(object);
    }

    /// Forgets everything that waits. What is under way ends by itself.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.order.clear();
    }

    /// The object whose status is to be written now.
    ///
    /// # Errors
    /// The time at which there may be one; `None` if something else has to happen first.
    pub fn next(&self) -> Result<Object, Option<Instant>> {
        if self.under_way.len() >= UNDER_WAY {
            return Err(None);
        }
        let now = Instant::now();
        let permit = self.pace.next(now);
        if permit > now {
            return Err((!self.waiting.is_empty()).then_some(permit));
        }
        let due = |object: &Object| self.waiting.get(object).map_or(now, |waiting| waiting.due);
        let startable =
            self.order.iter().map(|(.., object)| object).filter(|object| !self.under_way.contains_key(*object));
        // Few are passed over: one that was written lately, or failed, waits for its time, and the pace makes them few.
        match startable.clone().find(|object| due(object) <= now) {
            Some(object) => Ok(object.clone()),
            None => Err(startable.map(due).min()),
        }
    }

    /// The status that waits for an object.
    pub fn get(&self, object: &Object) -> Option<&Waiting> {
        self.waiting.get(object)
    }

    /// The status of an object is sent now.
    pub fn start(&mut self, object: &Object) -> Option<Waiting> {
        let now = Instant::now();
        let waiting = self.take(object)?;
        self.pace.take(now);
        self.under_way.insert(object.clone(), waiting.clone());
        self.paced.retain(|_, paced| *paced > now);
        self.paced.insert(object.clone(), now + PACE);
        Some(waiting)
    }

    /// A write ended for good.
    pub fn end(&mut self, object: &Object) {
        self.under_way.remove(object);
    }

    /// A write has to be repeated after this time, with the latest status then.
    pub fn retry(&mut self, object: &Object, after: Duration, sent: Waiting) {
        self.under_way.remove(object);
        let due = Instant::now() + after;
        let Waiting { number, failures, outdated, .. } = sent.clone();
        let latest = self.take(object).unwrap_or(sent);
        self.insert(object.clone(), Waiting { number, failures, outdated, due, ..latest });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> Object {
        Object::RegisteredService(ServiceKey::new("shop", name))
    }

    fn registry(name: &str) -> Object {
        Object::ServiceRegistry(name.to_owned())
    }

    /// A status that can be told from others.
    fn status(generation: i64) -> Status {
        let status = RegisteredServiceStatus { observed_generation: Some(generation), ..Default::default() };
        Status::RegisteredService(Box::new(status))
    }

    fn write_next(queue: &mut StatusQueue) -> Result<Object, Option<Instant>> {
        let object = queue.next()?;
        queue.start(&object).unwrap();
        queue.end(&object);
        Ok(object)
    }

    #[tokio::test(start_paused = true)]
    async fn twenty_a_second() {
        let mut queue = StatusQueue::default();
        (0..1000).for_each(|n| queue.put(service(&n.to_string()), "uid", status(0), false));
        let (mut written, start) = (0, Instant::now());
        while start.elapsed() < Duration::from_secs(10) {
            match write_next(&mut queue) {
                Ok(_) => written += 1,
                Err(at) => tokio::time::sleep_until(at.unwrap()).await,
            }
        }
        assert!((200..=210).contains(&written), "{written} in 10 s");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_failed_waits_for_its_own_time_whatever_is_handed_over() {
        let mut queue = StatusQueue::default();
        queue.put(service("a"), "uid", status(0), false);
        let sent = queue.start(&queue.next().unwrap()).unwrap();
        queue.retry(&service("a"), Duration::from_secs(60), Waiting { failures: 1, ..sent });
        tokio::time::sleep(PACE).await;
        queue.put(service("a"), "uid", status(1), false);
        assert_eq!(queue.next(), Err(Some(Instant::now() + Duration::from_secs(55))));
        tokio::time::sleep(Duration::from_secs(55)).await;
        assert_eq!(queue.next(), Ok(service("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_goes_first_then_registries_then_whoever_waits_longest() {
        let mut queue = StatusQueue::default();
        for name in ["c", "b", "a"] {
            queue.put(service(name), "uid", status(0), false);
        }
        queue.put(registry("main"), "uid", status(0), false);
        queue.put(service("held"), "uid", status(0), true);
        // The latest counts, at the place of the first.
        queue.put(service("c"), "uid", status(1), false);
        assert_eq!(queue.latest(&service("c"), "uid"), Some(&status(1)));
        assert_eq!(queue.latest(&service("c"), "another"), None);
        let order: Vec<Object> = std::iter::from_fn(|| write_next(&mut queue).ok()).collect();
        assert_eq!(order, [service("held"), registry("main"), service("c"), service("b"), service("a")]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_object_is_written_every_five_seconds_and_never_twice_at_once() {
        let mut queue = StatusQueue::default();
        let start = Instant::now();
        queue.put(service("a"), "uid", status(0), false);
        let sent = queue.start(&queue.next().unwrap()).unwrap();
        queue.put(service("a"), "uid", status(1), false);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(queue.next(), Err(None), "the answer is waited for");
        assert_eq!(queue.latest(&service("a"), "uid"), Some(&status(1)));
        queue.retry(&service("a"), Duration::from_secs(2), Waiting { failures: 1, ..sent });
        assert_eq!(queue.next(), Err(Some(start + Duration::from_secs(8))));
        tokio::time::sleep(Duration::from_secs(2)).await;
        let again = queue.start(&queue.next().unwrap()).unwrap();
        assert_eq!((again.status, again.failures), (status(1), 1), "the latest, and the failures go on");
        queue.end(&service("a"));
        queue.put(service("a"), "uid", status(2), false);
        assert_eq!(queue.next(), Err(Some(start + Duration::from_secs(13))));
    }

    #[tokio::test(start_paused = true)]
    async fn some_that_get_no_answer_hold_up_the_rest_only_beyond_the_bound() {
        let mut queue = StatusQueue::default();
        for n in 0..=UNDER_WAY {
            queue.put(service(&n.to_string()), "uid", status(0), false);
        }
        for n in 0..UNDER_WAY {
            queue.start(&service(&n.to_string())).unwrap();
        }
        tokio::time::sleep(PACE).await;
        assert_eq!(queue.next(), Err(None));
        queue.end(&service("0"));
        assert!(queue.next().is_ok());
    }
}
