//! Links: the directions between two parties, open or closed.
//!
//! Owns partitions, and when a party counts as out of reach. Refuses to know messages.

use std::time::Duration;

use futures::future::BoxFuture;

use super::Wire;

/// HTTP/2 pings and the time for their answer (`registry/etcd/connect.rs`).
const PINGS: Duration = Duration::from_secs(15);

/// One direction between two parties.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    pub from: String,
    pub to: String,
}

impl Link {
    pub fn new(from: &str, to: &str) -> Self {
        Self { from: from.to_owned(), to: to.to_owned() }
    }

    pub(super) fn back(&self) -> Self {
        Self { from: self.to.clone(), to: self.from.clone() }
    }
}

impl Wire {
    /// Closes a direction; it opens once it was opened as often as it was closed.
    pub fn close(&self, link: &Link) {
        *self.state().closed.entry(link.clone()).or_default() += 1;
        self.0.changes.send_modify(|count| *count += 1);
    }

    pub fn open(&self, link: &Link) {
        {
            let mut state = self.state();
            if let Some(count) = state.closed.get_mut(link) {
                *count -= 1;
                if *count == 0 {
                    state.closed.remove(link);
                }
            }
        }
        self.0.changes.send_modify(|count| *count += 1);
    }

    pub fn is_open(&self, link: &Link) -> bool {
        !self.state().closed.contains_key(link)
    }

    pub(super) async fn until_open(&self, link: &Link) {
        let mut changes = self.0.changes.subscribe();
        while !self.is_open(link) {
            // The sender lives as long as we.
            let _ = changes.changed().await;
        }
    }

    /// Ends once one of both directions has been closed for as long as pings wait for their answer.
    pub(super) fn out_of_reach(&self, link: Link) -> BoxFuture<'static, ()> {
        let wire = self.clone();
        let back = link.back();
        Box::pin(async move {
            let mut changes = wire.0.changes.subscribe();
            loop {
                changes.borrow_and_update();
                if wire.is_open(&link) && wire.is_open(&back) {
                    let _ = changes.changed().await;
                    continue;
                }
                let opened = async {
                    loop {
                        let _ = changes.changed().await;
                        if wire.is_open(&link) && wire.is_open(&back) {
                            return;
                        }
                    }
                };
                if tokio::time::timeout(PINGS, opened).await.is_err() {
                    return;
                }
            }
        })
    }
}
