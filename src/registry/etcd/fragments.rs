//! The events of one watch, put together from fragments.
//!
//! Owns the limit on one revision. etcd divides a large response between any two events; those of one revision belong
//! together, because what departs together is judged together. Refuses to know streams and watch IDs.

use etcd_client::{EventType, KeyValue, WatchResponse};
use twinspan_core::model::{RawRecord, RecordKey, Revision};

use super::call::MAX_MESSAGE;
use super::pages;
use crate::registry::{Change, RegistryError, Result};

#[derive(Debug)]
pub struct Fragments {
    /// Events before this revision are in the list that the watch follows.
    from: Revision,
    /// Events of the last revision so far, of which more may follow.
    partial: Vec<Change>,
    bytes: usize,
}

impl Fragments {
    pub fn from(from: Revision) -> Self {
        Self { from, partial: Vec::new(), bytes: 0 }
    }

    /// Takes a response, and returns the changes of all revisions that are complete with it. Values that are too long
    /// are dropped at once.
    ///
    /// # Errors
    /// [`RegistryError::TooLarge`] if one revision is.
    pub fn add(&mut self, response: WatchResponse) -> Result<Vec<Change>> {
        let more = response.0.fragment;
        let changes = response.0.events.into_iter().filter_map(|event| {
            let deleted = event.r#type == EventType::Delete as i32;
            Some(change(KeyValue(event.kv?), deleted)).filter(|change| change.revision() >= self.from)
        });
        self.partial.extend(changes);
        let complete = match self.partial.last().map(Change::revision).filter(|_| more) {
            Some(last) => self.partial.partition_point(|change| change.revision() < last),
            None => self.partial.len(),
        };
        let rest = self.partial.split_off(complete);
        let complete = std::mem::replace(&mut self.partial, rest);
        self.bytes = self.partial.iter().map(bytes_of).sum();
        if self.bytes > MAX_MESSAGE {
            return Err(RegistryError::TooLarge(format!("one revision of a watch has more than {MAX_MESSAGE} bytes")));
        }
        Ok(complete)
    }
}

fn change(kv: KeyValue, deleted: bool) -> Change {
    if deleted {
        let revision = kv.mod_revision();
        Change::Delete { key: RecordKey::new(kv.into_key_value().0), revision }
    } else {
        Change::Put(pages::raw(kv))
    }
}

/// The memory that a change takes.
pub fn bytes_of(change: &Change) -> usize {
    size_of::<Change>()
        + match change {
            Change::Put(RawRecord { key, value, .. }) => key.as_bytes().len() + value.len(),
            Change::Delete { key, .. } => key.as_bytes().len(),
        }
}

#[cfg(test)]
mod tests {
    use etcd_client::proto::{PbEvent, PbKeyValue, PbWatchResponse};
    use twinspan_core::model::MAX_VALUE;

    use super::*;

    fn put(key: &str, mod_revision: Revision, bytes: usize) -> PbEvent {
        let kv = PbKeyValue { key: key.into(), value: vec![b'x'; bytes], mod_revision, ..PbKeyValue::default() };
        PbEvent { kv: Some(kv), ..PbEvent::default() }
    }

    fn response(events: Vec<PbEvent>, fragment: bool) -> WatchResponse {
        WatchResponse(PbWatchResponse { events, fragment, ..PbWatchResponse::default() })
    }

    fn add(fragments: &mut Fragments, events: Vec<PbEvent>, more: bool) -> Vec<Revision> {
        fragments.add(response(events, more)).unwrap().iter().map(Change::revision).collect()
    }

    #[test]
    fn events_of_one_revision_stay_together() {
        let mut fragments = Fragments::from(5);
        let first = vec![put("a", 4, 1), put("a", 5, 1), put("b", 6, 1), put("c", 6, 1)];
        assert_eq!(add(&mut fragments, first, true), [5], "4 is in the list, and 6 may go on");
        assert_eq!(add(&mut fragments, vec![put("d", 6, 1)], true), [0; 0]);
        assert_eq!(add(&mut fragments, vec![put("e", 6, 1), put("a", 7, 1)], false), [6, 6, 6, 6, 7]);
    }

    #[test]
    fn values_that_are_too_long_are_dropped_and_do_not_count() {
        let mut fragments = Fragments::from(1);
        for n in 0..40 {
            let events = vec![put("a", 1, MAX_VALUE + 1), put("b", 1, 1 << 20)];
            assert_eq!(add(&mut fragments, events, true), [0; 0], "{n}");
        }
        let all = fragments.add(response(vec![put("c", 1, MAX_VALUE)], false)).unwrap();
        let too_long: Vec<bool> =
            all.iter().map(|change| matches!(change, Change::Put(record) if record.is_too_long())).collect();
        assert_eq!((all.len(), too_long.iter().filter(|long| **long).count()), (81, 80));
    }

    #[test]
    fn a_revision_above_the_limit_is_refused_and_several_below_it_are_not() {
        let events = |revision| (0..100).map(|n| put(&format!("{n:05}"), revision, MAX_VALUE)).collect::<Vec<_>>();
        let mut fragments = Fragments::from(1);
        for revision in 1..10 {
            add(&mut fragments, events(revision), true);
        }
        fragments.add(response(events(10), true)).unwrap();
        fragments.add(response(events(10), true)).unwrap();
        let refused = fragments.add(response(events(10), true));
        assert!(matches!(refused, Err(RegistryError::TooLarge(_))), "{refused:?}");
    }
}
