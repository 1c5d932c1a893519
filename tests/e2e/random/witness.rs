//! The witness: an independent record of the events in a registry.
//!
//! Owns a watch of every key; etcd's own log has every request with its compares. Refuses to judge.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::{EventType, WatchOptions};
use twinspan_testbed::{Etcd, Request, eventually, requests};

/// One key at one revision.
#[derive(Clone, Debug)]
pub struct Event {
    pub revision: i64,
    pub key: String,
    /// `None` if the key was deleted.
    pub now: Option<Record>,
    pub before: Option<Record>,
}

#[derive(Clone, Debug)]
pub struct Record {
    pub value: String,
    pub lease: i64,
}

#[derive(Clone, Debug)]
pub struct History {
    pub events: Vec<Event>,
    pub requests: Vec<Request>,
}

pub struct Witness {
    etcd: etcd_client::Client,
    log: PathBuf,
    seen: Arc<Mutex<Vec<Event>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Witness {
    /// Watches from the first revision on.
    pub async fn start(registry: &Etcd) -> Result<Self> {
        let mut etcd = registry.client().await?;
        let options = WatchOptions::new().with_all_keys().with_prev_key().with_start_revision(1);
        let mut stream = etcd.watch("", Some(options)).await?;
        let seen: Arc<Mutex<Vec<Event>>> = Arc::default();
        let all = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok(Some(response)) = stream.message().await {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                for event in response.events() {
                    let record = |kv: &etcd_client::KeyValue| Record {
                        value: String::from_utf8_lossy(kv.value()).into_owned(),
                        lease: kv.lease(),
                    };
                    let Some(kv) = event.kv() else { continue };
                    all.push(Event {
                        revision: kv.mod_revision(),
                        key: String::from_utf8_lossy(kv.key()).into_owned(),
                        now: (event.event_type() == EventType::Put).then(|| record(kv)),
                        before: event.prev_kv().map(record),
                    });
                }
            }
        });
        Ok(Self { etcd, log: registry.part().log().to_owned(), seen, task })
    }

    /// The history up to now.
    pub async fn history(&self) -> Result<History> {
        let mut etcd = self.etcd.clone();
        // A key of the witness marks the point up to which the watch must have read.
        let mark = format!("witness/{}", self.seen.lock().unwrap_or_else(PoisonError::into_inner).len());
        let last = etcd.put(mark, "", None).await?.header().context("no header")?.revision();
        let events = eventually("the watch has caught up", Duration::from_secs(20), || async {
            ensure!(!self.task.is_finished(), "the watch ended");
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            ensure!(seen.last().is_some_and(|event| event.revision >= last), "not yet");
            Ok(seen.iter().filter(|event| !event.key.starts_with("witness/")).cloned().collect::<Vec<_>>())
        })
        .await?;
        let requests = requests(&self.log)?;
        let requests = requests.into_iter().filter(|request| !request.content.contains("witness/")).collect();
        Ok(History { events, requests })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}
