//! A fake etcd for deterministic tests, below etcd-client.
//!
//! Owns a whole etcd cluster in memory: its store, leases, watches, members and users, with switches for what breaks. A
//! [`Member`] is a channel for `etcd_client::Client::from_channel`, so every byte that a client sends and reads is that
//! of production, without sockets. Time is tokio's: on a paused clock the same calls in the same order give the same
//! answers. The sources of etcd 3.7 are the rule. Refuses to know who uses it, and for what.

mod auth;
mod direct;
mod error;
mod etcd;
mod faults;
mod history;
mod key_range;
mod leases;
mod members;
pub mod promises;
mod range;
mod requests;
mod service;
mod state;
mod store;
mod streams;
mod txn;
mod txn_request;
mod watch;
mod write;

pub use auth::{Auth, Permission, ROOT, User};
pub use error::Error;
pub use etcd::{Etcd, Options};
pub use faults::{Restore, Snapshot};
pub use history::Change;
pub use leases::Lease;
pub use service::{AUTHOR_HEADER, Member};
pub use store::Record;
pub use watch::WatchFaults;
