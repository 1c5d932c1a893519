//! Range requests.
//!
//! Owns the checks, filters, order and limits of a range (`server/etcdserver/txn/range.go` and `api/v3rpc/key.go` of
//! etcd 3.7). Refuses to know who asks.

use std::cmp::Ordering;

use etcd_client::proto::{PbKeyValue, PbRangeRequest, PbRangeResponse, PbResponseHeader};

use crate::error::Error;
use crate::key_range::KeyRange;
use crate::store::{Store, View};

// Values of RangeRequest.SortOrder and RangeRequest.SortTarget, which etcd-client does not export.
const NONE: i32 = 0;
const ASCEND: i32 = 1;
const DESCEND: i32 = 2;
const KEY: i32 = 0;
const VERSION: i32 = 1;
const CREATE: i32 = 2;
const MOD: i32 = 3;
const VALUE: i32 = 4;

/// `checkRangeRequest` of key.go.
pub(crate) fn check_request(request: &PbRangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if !(NONE..=DESCEND).contains(&request.sort_order) || !(KEY..=VALUE).contains(&request.sort_target) {
        return Err(Error::InvalidSortOption);
    }
    Ok(())
}

/// `checkRange` of range.go, for a range in a transaction.
pub(crate) fn check_in_txn(view: View, request: &PbRangeRequest) -> Result<(), Error> {
    match request.revision {
        0 => Ok(()),
        revision if revision > view.revision => Err(Error::FutureRevision),
        revision if revision < view.compacted => Err(Error::Compacted),
        _ => Ok(()),
    }
}

/// `executeRange` of range.go.
pub(crate) fn range(store: &Store, view: View, request: &PbRangeRequest) -> Result<PbRangeResponse, Error> {
    if request.revision > view.revision {
        return Err(Error::FutureRevision);
    }
    let revision = if request.revision <= 0 { view.revision } else { request.revision };
    if revision < view.compacted {
        return Err(Error::Compacted);
    }
    let range = KeyRange::new(&request.key, &request.range_end);
    let header = Some(PbResponseHeader { revision: view.revision, ..PbResponseHeader::default() });
    let count = i64::try_from(store.at(&range, revision).count()).unwrap_or(i64::MAX);
    if request.count_only {
        return Ok(PbRangeResponse { header, count, ..PbRangeResponse::default() });
    }
    // The index alone answers a request for keys: it knows no leases.
    let keys_from_index = request.keys_only && request.sort_target != VALUE;
    let mut kvs: Vec<PbKeyValue> = store
        .at(&range, revision)
        .map(|(key, record)| PbKeyValue { lease: if keys_from_index { 0 } else { record.lease }, ..record.to_pb(key) })
        .filter(|kv| passes(request, kv))
        .collect();
    sort(request, &mut kvs);
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    Ok(PbRangeResponse { header, kvs, more, count })
}

fn passes(request: &PbRangeRequest, kv: &PbKeyValue) -> bool {
    let above = |bound: i64, revision: i64| bound != 0 && revision > bound;
    let below = |bound: i64, revision: i64| bound != 0 && revision < bound;
    !(above(request.max_mod_revision, kv.mod_revision)
        || below(request.min_mod_revision, kv.mod_revision)
        || above(request.max_create_revision, kv.create_revision)
        || below(request.min_create_revision, kv.create_revision))
}

/// Go's sort is not stable: the order of equal records is etcd's secret; here it is the order of keys.
fn sort(request: &PbRangeRequest, kvs: &mut [PbKeyValue]) {
    let by: fn(&PbKeyValue, &PbKeyValue) -> Ordering = match request.sort_target {
        VERSION => |a, b| a.version.cmp(&b.version),
        CREATE => |a, b| a.create_revision.cmp(&b.create_revision),
        MOD => |a, b| a.mod_revision.cmp(&b.mod_revision),
        VALUE => |a, b| a.value.cmp(&b.value),
        _ => |a, b| a.key.cmp(&b.key),
    };
    match request.sort_order {
        NONE | ASCEND => kvs.sort_by(by),
        _ => kvs.sort_by(|a, b| by(b, a)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        let mut store = Store::new();
        for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("a", "4")] {
            let change = store.put(key.as_bytes(), value.into(), 7);
            store.commit(&[change]);
        }
        store
    }

    fn all() -> PbRangeRequest {
        PbRangeRequest { key: vec![0], range_end: vec![0], ..PbRangeRequest::default() }
    }

    fn keys(request: &PbRangeRequest) -> (String, bool, i64) {
        let store = store();
        let answer = range(&store, store.head(), request).expect("a range");
        let keys = answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
        (keys, answer.more, answer.count)
    }

    #[test]
    fn a_limit_counts_all_and_says_that_there_is_more() {
        assert_eq!(keys(&PbRangeRequest { limit: 2, ..all() }), ("ab".to_owned(), true, 3));
        assert_eq!(keys(&PbRangeRequest { limit: 3, ..all() }), ("abc".to_owned(), false, 3));
        assert_eq!(keys(&PbRangeRequest { count_only: true, ..all() }), (String::new(), false, 3));
    }

    #[test]
    fn a_range_is_sorted_before_it_is_limited() {
        let by_value = PbRangeRequest { sort_target: VALUE, limit: 1, ..all() };
        assert_eq!(keys(&by_value), ("b".to_owned(), true, 3));
        let descending = PbRangeRequest { sort_order: DESCEND, ..all() };
        assert_eq!(keys(&descending), ("cba".to_owned(), false, 3));
        let newest = PbRangeRequest { min_mod_revision: 4, ..all() };
        assert_eq!(keys(&newest), ("ac".to_owned(), false, 3), "the count ignores filters");
    }

    #[test]
    fn keys_alone_have_neither_values_nor_leases() {
        let store = store();
        let answer = range(&store, store.head(), &PbRangeRequest { keys_only: true, ..all() }).expect("a range");
        assert!(answer.kvs.iter().all(|kv| kv.value.is_empty() && kv.lease == 0 && kv.mod_revision > 0));
    }

    #[test]
    fn revisions_out_of_range_are_refused() {
        let mut store = store();
        store.compact(4);
        let at = |revision| range(&store, store.head(), &PbRangeRequest { revision, ..all() });
        assert_eq!(at(6).err(), Some(Error::FutureRevision));
        assert_eq!(at(3).err(), Some(Error::Compacted));
        assert!(at(4).is_ok(), "the compacted revision itself can be read");
    }
}
