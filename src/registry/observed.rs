//! The calls of a session as somebody else sees them: a connector whose connections tell of each call.
//!
//! Owns what is told: the time and the error of a call, the answers to keepalives, the signs of life of a watch and the
//! ends of sessions. Refuses to know who listens. A list is one call with all its pages; a watch is a call until it is
//! open, and no longer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use twinspan_core::model::{LeaseId, RawRecord, RecordKey, Revision};

use super::{
    Batch, Connector, Grant, KeepAlive, LeaseState, ListResponse, ReadResponse, RecordPages, Registry, RegistryError,
    Result, ServerStatus, TxnResponse, Watch, WatchItem, WatchRange,
};

/// Something that is told about a registry. Every text is one of a few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// A call was answered, or failed with an error of this label.
    Called { op: &'static str, took: Duration, error: Option<&'static str> },
    /// A keepalive was `kept`, is for a lease that is `gone`, or `failed`.
    KeptAlive(&'static str),
    /// The watch told something; where nothing is watched, the server answered.
    Heard,
    /// The session ended with an error of this label, and begins again.
    SessionEnded(&'static str),
}

/// Takes the name of a ServiceRegistry, and something about it.
pub type Observe = Arc<dyn Fn(&str, Sight) + Send + Sync>;

/// Tells of one registry.
#[derive(Clone)]
struct Teller {
    registry: Arc<str>,
    observe: Observe,
}

impl Teller {
    fn tell(&self, sight: Sight) {
        (self.observe)(&self.registry, sight);
    }

    async fn call<T>(&self, op: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let began = Instant::now();
        let answer = call.await;
        self.called(op, began, answer.as_ref().err());
        answer
    }

    fn called(&self, op: &'static str, began: Instant, error: Option<&RegistryError>) {
        self.tell(Sight::Called { op, took: began.elapsed(), error: error.map(RegistryError::label) });
    }
}

/// A connector whose connections tell of their calls.
pub struct Observed {
    connector: Arc<dyn Connector>,
    teller: Teller,
}

impl Observed {
    pub fn new(connector: Arc<dyn Connector>, registry: &str, observe: Observe) -> Self {
        Self { connector, teller: Teller { registry: registry.into(), observe } }
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("registry", &self.teller.registry).finish_non_exhaustive()
    }
}

#[async_trait]
impl Connector for Observed {
    async fn connect(&self) -> Result<Arc<dyn Registry>> {
        let registry = self.teller.call("connect", self.connector.connect()).await?;
        Ok(Arc::new(Connection { registry, teller: self.teller.clone() }))
    }

    fn session_ended(&self, error: &RegistryError) {
        self.teller.tell(Sight::SessionEnded(error.label()));
    }
}

struct Connection {
    registry: Arc<dyn Registry>,
    teller: Teller,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registry.fmt(f)
    }
}

#[async_trait]
impl Registry for Connection {
    async fn status(&self) -> Result<ServerStatus> {
        let status = self.teller.call("status", self.registry.status()).await?;
        self.teller.tell(Sight::Heard);
        Ok(status)
    }

    async fn list(&self, key_prefix: &str) -> Result<ListResponse> {
        self.teller.call("list", self.registry.list(key_prefix)).await
    }

    async fn count(&self, key_prefix: &str) -> Result<usize> {
        self.teller.call("count", self.registry.count(key_prefix)).await
    }

    async fn keys(&self, key_prefix: &str, limit: usize) -> Result<Vec<RecordKey>> {
        self.teller.call("keys", self.registry.keys(key_prefix, limit)).await
    }

    fn pages(&self, key_prefix: &str, at: Revision) -> Box<dyn RecordPages> {
        Box::new(Pages { pages: self.registry.pages(key_prefix, at), teller: self.teller.clone() })
    }

    async fn watch(&self, first: &WatchRange) -> Result<Box<dyn Watch>> {
        let watch = self.teller.call("watch", self.registry.watch(first)).await?;
        Ok(Box::new(Watching { watch, teller: self.teller.clone() }))
    }

    async fn read(&self, keys: &[RecordKey]) -> Result<ReadResponse> {
        self.teller.call("read", self.registry.read(keys)).await
    }

    async fn commit(&self, batch: &Batch) -> Result<TxnResponse> {
        self.teller.call("commit", self.registry.commit(batch)).await
    }

    fn max_batch(&self) -> usize {
        self.registry.max_batch()
    }

    async fn grant(&self, lease: LeaseId, ttl_seconds: i64) -> Result<Grant> {
        self.teller.call("grant", self.registry.grant(lease, ttl_seconds)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<KeepAlive> {
        let answer = self.teller.call("keep_alive", self.registry.keep_alive(lease)).await;
        self.teller.tell(Sight::KeptAlive(match &answer {
            Ok(KeepAlive::For(_)) => "kept",
            Ok(KeepAlive::Gone { .. }) => "gone",
            Err(_) => "failed",
        }));
        answer
    }

    async fn look_up(&self, lease: LeaseId) -> Result<LeaseState> {
        self.teller.call("look_up", self.registry.look_up(lease)).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>> {
        self.teller.call("leases", self.registry.leases()).await
    }

    async fn keys_of(&self, lease: LeaseId) -> Result<Vec<RecordKey>> {
        self.teller.call("keys_of", self.registry.keys_of(lease)).await
    }
}

struct Pages {
    pages: Box<dyn RecordPages>,
    teller: Teller,
}

#[async_trait]
impl RecordPages for Pages {
    async fn next_page(&mut self) -> Result<Option<Vec<RawRecord>>> {
        let began = Instant::now();
        let page = self.pages.next_page().await;
        // After the last page nothing is asked.
        if !matches!(page, Ok(None)) {
            self.teller.called("page", began, page.as_ref().err());
        }
        page
    }
}

struct Watching {
    watch: Box<dyn Watch>,
    teller: Teller,
}

#[async_trait]
impl Watch for Watching {
    async fn next(&mut self) -> Result<WatchItem> {
        let item = self.watch.next().await?;
        self.teller.tell(Sight::Heard);
        Ok(item)
    }

    async fn follow(&mut self, another: &WatchRange) -> Result<()> {
        self.watch.follow(another).await
    }

    async fn unwatch(&mut self, watch_id: i64) -> Result<()> {
        self.watch.unwatch(watch_id).await
    }

    async fn request_progress(&mut self) -> Result<bool> {
        self.watch.request_progress().await
    }
}

#[cfg(test)]
#[path = "observed_tests.rs"]
mod tests;
