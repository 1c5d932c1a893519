//! The effects of committed requests.
//!
//! Owns the order of the checks at the time of applying: quota, permissions, leases (`server/etcdserver/apply` of etcd
//! 3.7). Refuses to know the wire, and to wait.

use etcd_client::proto::{
    PbDeleteRequest, PbDeleteResponse, PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse, PbTxnOpRequest,
    PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
};

use crate::auth::Access;
use crate::error::Error;
use crate::key_range::KeyRange;
use crate::range;
use crate::state::State;
use crate::store::View;
use crate::txn::{self, Path};
use crate::write::{Write, check_put};

/// The sender of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    pub(crate) author: String,
    /// The user of the token.
    pub(crate) user: Option<String>,
}

impl Caller {
    fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

impl State {
    pub(crate) fn put(&mut self, caller: &Caller, request: &PbPutRequest) -> Result<PbPutResponse, Error> {
        if self.quota_full {
            return Err(Error::NoSpace);
        }
        self.may_put(caller, request)?;
        check_put(&self.store, &self.leases, request)?;
        Ok(self.write(&caller.author, None, |write| write.put(request)))
    }

    pub(crate) fn delete_range(
        &mut self,
        caller: &Caller,
        request: &PbDeleteRequest,
    ) -> Result<PbDeleteResponse, Error> {
        self.may_delete(caller, request)?;
        Ok(self.write(&caller.author, None, |write| write.delete(request)))
    }

    pub(crate) fn txn(&mut self, caller: &Caller, request: &PbTxnRequest) -> Result<PbTxnResponse, Error> {
        if self.quota_full && txn::has_put(request) {
            return Err(Error::NoSpace);
        }
        self.may_txn(caller, request)?;
        let view = self.store.head();
        let path = Path::new(&self.store, view, request);
        path.check(&self.store, view, &self.leases, request)?;
        let mut response = self.write(&caller.author, None, |write| path.execute(write, request))?;
        set_revision(&mut response, self.store.head().revision);
        Ok(response)
    }

    /// A transaction that only reads is answered from what the member has applied.
    pub(crate) fn read_only_txn(
        &mut self,
        caller: &Caller,
        view: View,
        request: &PbTxnRequest,
    ) -> Result<PbTxnResponse, Error> {
        self.may_txn(caller, request)?;
        let path = Path::new(&self.store, view, request);
        path.check(&self.store, view, &self.leases, request)?;
        let mut write = Write::new(&mut self.store, &mut self.leases, view);
        let mut response = path.execute(&mut write, request)?;
        set_revision(&mut response, view.revision);
        Ok(response)
    }

    pub(crate) fn range(
        &self,
        caller: &Caller,
        view: View,
        request: &PbRangeRequest,
    ) -> Result<PbRangeResponse, Error> {
        self.may_read(caller, &request.key, &request.range_end)?;
        let mut response = range::range(&self.store, view, request)?;
        if request.count_only {
            response.count += self.crowd;
        }
        Ok(response)
    }

    /// Returns the ID and the TTL in seconds.
    pub(crate) fn grant(&mut self, id: i64, ttl: i64) -> Result<(i64, i64), Error> {
        if self.quota_full {
            return Err(Error::NoSpace);
        }
        self.leases.grant(id, ttl, self.now)
    }

    pub(crate) fn may_read(&self, caller: &Caller, key: &[u8], range_end: &[u8]) -> Result<(), Error> {
        self.auth.check(caller.user(), &KeyRange::new(key, range_end), Access::Read)
    }

    /// Every key of the lease may be read: `checkLeaseTimeToLive` and `checkLeaseLeases` of v3_server.go.
    pub(crate) fn may_see_lease(&self, caller: &Caller, lease: i64) -> Result<(), Error> {
        self.for_keys_of(caller, lease, Access::Read)
    }

    /// Every key of the lease may be written: `checkLeaseRenew` of v3_server.go, `checkLeasePuts` of auth.go.
    pub(crate) fn may_write_lease(&self, caller: &Caller, lease: i64) -> Result<(), Error> {
        self.for_keys_of(caller, lease, Access::Write)
    }

    fn for_keys_of(&self, caller: &Caller, lease: i64, access: Access) -> Result<(), Error> {
        if self.auth.check_admin(caller.user()).is_ok() {
            return Ok(());
        }
        let mut keys = self.leases.keys(lease);
        keys.try_for_each(|key| self.auth.check(caller.user(), &KeyRange::point(key), access))
    }

    /// `checkPutAuth` of auth.go.
    fn may_put(&self, caller: &Caller, request: &PbPutRequest) -> Result<(), Error> {
        self.auth.check(caller.user(), &KeyRange::point(&request.key), Access::Write)?;
        self.may_write_lease(caller, request.lease)?;
        if request.prev_kv { self.may_read(caller, &request.key, &[]) } else { Ok(()) }
    }

    fn may_delete(&self, caller: &Caller, request: &PbDeleteRequest) -> Result<(), Error> {
        self.auth.check(caller.user(), &KeyRange::new(&request.key, &request.range_end), Access::Write)?;
        if request.prev_kv { self.may_read(caller, &request.key, &request.range_end) } else { Ok(()) }
    }

    /// `checkTxnPermission` of auth.go: both branches count, taken or not.
    fn may_txn(&self, caller: &Caller, request: &PbTxnRequest) -> Result<(), Error> {
        for compare in &request.compare {
            self.may_read(caller, &compare.key, &compare.range_end)?;
        }
        let operations = request.success.iter().chain(&request.failure);
        operations.into_iter().try_for_each(|operation| self.may_do(caller, operation))
    }

    fn may_do(&self, caller: &Caller, operation: &PbTxnRequestOp) -> Result<(), Error> {
        match &operation.request {
            Some(PbTxnOpRequest::RequestRange(request)) => self.may_read(caller, &request.key, &request.range_end),
            Some(PbTxnOpRequest::RequestPut(request)) => self.may_put(caller, request),
            Some(PbTxnOpRequest::RequestDeleteRange(request)) => self.may_delete(caller, request),
            Some(PbTxnOpRequest::RequestTxn(request)) => self.may_txn(caller, request),
            None => Ok(()),
        }
    }
}

fn set_revision(response: &mut PbTxnResponse, revision: i64) {
    if let Some(header) = &mut response.header {
        header.revision = revision;
    }
}
