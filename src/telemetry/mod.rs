//! The signals of a running Twinspan.
//!
//! - [`logs`]: log output; [`traces`]: spans for a collector.
//! - [`metrics`]: names, labels and values of metrics, [`calls`] those of calls, `process` those of the process;
//!   [`admin`]: the pages for scrapes and probes; [`server`]: the connections to pages, and [`patience`]: the silence
//!   that each may have.
//!
//! Owns the form of each signal. Refuses to know what the operator does.

pub mod admin;
pub mod calls;
pub mod logs;
pub mod metrics;
pub mod patience;
#[cfg(target_os = "linux")]
mod process;
pub mod server;
pub mod traces;
