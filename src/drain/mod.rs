//! Drain: a pod that ends asks, from its `preStop` hook, and gets its answer once no client has its address any more.
//!
//! - [`server`]: the path and the bounds of connections. [`requests`]: the requests that wait, and their number.
//! - [`pods`]: the pods that are being deleted, by one list for all who ask at a time. [`exposure`]: their records in
//!   the views.
//! - [`wait`]: when a request is answered, as a function of what was seen and when.
//!
//! Owns the wait, and every bound on those who ask: the answer is empty, so that nobody learns more than its time.
//! Refuses to write: records go on their normal way, because their endpoint is terminating.

mod exposure;
mod pods;
mod requests;
mod server;
mod wait;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod requests_tests;
#[cfg(test)]
mod server_tests;

pub use requests::Drain;
pub use server::serve;
