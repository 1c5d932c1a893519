//! One write transaction on the store and the leases.
//!
//! Owns that its changes become one revision, and that keys follow their leases (`storeTxnWrite` of
//! `server/storage/mvcc/kvstore_txn.go`, etcd 3.7). Refuses to check requests.

use std::collections::BTreeSet;

use etcd_client::proto::{
    PbDeleteRequest, PbDeleteResponse, PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse, PbResponseHeader,
};

use crate::error::Error;
use crate::key_range::KeyRange;
use crate::leases::Leases;
use crate::range;
use crate::store::{KeyChange, Store, View};

pub(crate) struct Write<'a> {
    store: &'a mut Store,
    leases: &'a mut Leases,
    /// The state that the transaction sees before its first change.
    view: View,
    changes: Vec<KeyChange>,
}

fn at(revision: i64) -> Option<PbResponseHeader> {
    Some(PbResponseHeader { revision, ..PbResponseHeader::default() })
}

impl<'a> Write<'a> {
    pub(crate) fn new(store: &'a mut Store, leases: &'a mut Leases, view: View) -> Self {
        Self { store, leases, view, changes: Vec::new() }
    }

    /// The revision that a read inside the transaction sees.
    pub(crate) fn revision(&self) -> i64 {
        self.view.revision + i64::from(!self.changes.is_empty())
    }

    pub(crate) fn range(&self, request: &PbRangeRequest) -> Result<PbRangeResponse, Error> {
        let view = View { revision: self.revision(), ..self.view };
        range::range(self.store, view, request)
    }

    /// The lease of the request lives, and a value or lease that is to be kept exists: [`check_put`] has seen to it.
    pub(crate) fn put(&mut self, request: &PbPutRequest) -> PbPutResponse {
        let before = self.store.record(&request.key).cloned();
        let (value, lease) = match &before {
            Some(record) => (
                if request.ignore_value { record.value.clone() } else { request.value.clone() },
                if request.ignore_lease { record.lease } else { request.lease },
            ),
            None => (request.value.clone(), request.lease),
        };
        let prev_kv = before.as_ref().filter(|_| request.prev_kv).map(|record| record.to_pb(&request.key));
        if let Some(former) = before.map(|record| record.lease).filter(|former| *former != lease) {
            self.leases.detach(former, &request.key);
        }
        self.leases.attach(lease, &request.key);
        let change = self.store.put(&request.key, value, lease);
        self.changes.push(change);
        PbPutResponse { header: at(self.revision()), prev_kv }
    }

    pub(crate) fn delete(&mut self, request: &PbDeleteRequest) -> PbDeleteResponse {
        let range = KeyRange::new(&request.key, &request.range_end);
        let found: Vec<_> = self
            .store
            .at(&range, self.revision())
            .map(|(key, record)| (key.clone(), request.prev_kv.then(|| record.to_pb(key))))
            .collect();
        let (keys, prev_kvs): (BTreeSet<_>, Vec<_>) = found.into_iter().unzip();
        let deleted = i64::try_from(keys.len()).unwrap_or(i64::MAX);
        self.delete_keys(&keys);
        PbDeleteResponse { header: at(self.revision()), deleted, prev_kvs: prev_kvs.into_iter().flatten().collect() }
    }

    pub(crate) fn delete_keys(&mut self, keys: &BTreeSet<Vec<u8>>) {
        for key in keys {
            if let Some(change) = self.store.delete(key) {
                let lease = change.before.as_ref().map_or(0, |record| record.lease);
                self.leases.detach(lease, key);
                self.changes.push(change);
            }
        }
    }

    /// Ends the transaction: the changes and their revision, if there are any.
    pub(crate) fn commit(self) -> Option<(i64, Vec<KeyChange>)> {
        if self.changes.is_empty() {
            return None;
        }
        Some((self.store.commit(&self.changes), self.changes))
    }
}

/// `checkPut` of `server/etcdserver/txn/put.go`.
pub(crate) fn check_put(store: &Store, leases: &Leases, request: &PbPutRequest) -> Result<(), Error> {
    if request.lease != 0 && !leases.lives(request.lease) {
        return Err(Error::LeaseNotFound);
    }
    if (request.ignore_value || request.ignore_lease) && store.record(&request.key).is_none() {
        return Err(Error::KeyNotFound);
    }
    Ok(())
}

/// `checkPutRequest` of `server/etcdserver/api/v3rpc/key.go`.
pub(crate) fn check_put_request(request: &PbPutRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

/// `checkDeleteRequest` of key.go.
pub(crate) fn check_delete_request(request: &PbDeleteRequest) -> Result<(), Error> {
    if request.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}
