//! Twinspan keeps Kubernetes Services and an etcd service registry in sync, both ways.
//!
//! The map of the code. Data walks one way: view → plan → apply → status.
//!
//! - [`cli`]: the command line; flags become settings. [`operator`]: the composition that they start.
//! - [`api`]: the types behind the CRDs, their defaults, conditions, and conversions to the core.
//! - [`cluster`]: the door to the Kubernetes API; [`registry`]: the door to etcd.
//! - `twinspan_core`: nouns, bytes, and every decision; pure.
//! - [`probe`]: the third door, TCP connections to instances that lost their registration.
//! - [`controllers`]: the glue: observe → validate → plan → apply → status, for each kind.
//! - [`leadership`]: the claim to lead; every writing door asks it before each request.
//! - [`page`]: the status page of a running operator.
//! - [`drain`]: answers to pods that end, once their records are gone.
//! - [`telemetry`]: logs, metrics, traces, and the pages for probes.
//! - [`tools`]: commands that look from outside: parity, status, plan, explain, approve, doctor.
//! - [`env`]: the one door to time of day, chance and tokio's tasks. [`tasks`]: what follows when a task breaks off.
//!   [`causes`]: the text of an error.

// Tests start the parts that they need by themselves.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod api;
pub mod causes;
pub mod cli;
pub mod cluster;
pub mod controllers;
pub mod drain;
pub mod env;
pub mod leadership;
pub mod operator;
pub mod page;
pub mod probe;
pub mod registry;
pub mod tasks;
pub mod telemetry;
pub mod tools;
