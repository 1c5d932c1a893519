//! The signals of a running Twinspan.
//!
//! - [`logs`]: log output; [`traces`]: spans for a collector.
//! - [`metrics`]: names, labels and values of metrics; [`admin`]: the pages for scrapes and probes; [`server`]: the
//!   connections to pages.
//!
//! Owns the form of each signal. Refuses to know what the operator does.

pub mod admin;
pub mod logs;
pub mod metrics;
pub mod server;
pub mod traces;
