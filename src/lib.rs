//! Twinspan keeps Kubernetes Services and an etcd service registry equal, both ways.
//!
//! The map of the house. Data walks one way: view → plan → apply → status.
//!
//! - [`cli`]: the command line; flags become settings.
//! - [`api`]: what users write, the types behind the CRDs.
//! - [`cluster`]: the near side's door, the Kubernetes API; [`registry`]: the far side's door, etcd.
//! - `twinspan_core`: what things are, how they are written, and every decision; pure.
//! - [`probe`]: the third door, TCP connections to instances that lost their registration.
//! - [`controllers`]: the glue: observe → validate → plan → apply → status, for each kind.
//! - [`leadership`]: who may write; both doors ask it.
//! - [`telemetry`]: logs, metrics, probes.
//! - [`tools`]: what people ask from outside, through clients of its own: parity, status, plan, explain, approve, doctor.
//! - [`world`]: time of day and chance, the one door for both.

pub mod api;
pub mod cli;
pub mod cluster;
pub mod controllers;
pub mod leadership;
pub mod probe;
pub mod registry;
pub mod telemetry;
pub mod tools;
pub mod world;
