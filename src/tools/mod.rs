//! Commands that look from outside, through clients of their own; an operator need not run.
//!
//! - [`viewer`]: the views of an operator that never writes; [`preview`]: the writes and outcomes of one pass over
//!   them.
//! - [`explanation`]: outcomes in words; [`record`]: a record in words; [`notes`]: the lines beside a table.
//! - [`detail`]: one service in full, for the status page.
//! - [`discovery`]: the RegisteredServices that a ServiceRegistry would make.
//! - [`parity`]: the instances that each side sees; [`plan`]: the writes of an operator now; [`explain`]: one record or
//!   address.
//! - [`status`]: an overview from what the operator says in status; [`approve`]: releases held deletions and epochs.
//! - [`forward`]: a way to the status page of the leader.
//! - [`owned`]: the same answers for people who may read one namespace alone.
//! - [`doctor`]: checks of a cluster and its registries.
//! - [`generate`]: RegisteredServices for what exists. [`instances`]: every name in every registry.
//! - [`version`]: versions of this program and of the operator.
//! - [`names`]: names of objects, for completion.
//! - [`report`]: a support bundle.
//! - [`lookup`]: single objects, and the settings of a session, read once.
//! - [`reference`]: the API reference, printed from the types.
//! - [`print`]: tables, JSON, YAML.
//!
//! Owns the words for people. Refuses to write anything but the annotation of an approval.

pub mod approve;
pub mod detail;
pub mod discovery;
pub mod doctor;
pub mod explain;
pub mod explanation;
pub mod forward;
pub mod generate;
pub mod instances;
pub mod lookup;
pub mod names;
pub mod notes;
pub mod owned;
pub mod parity;
pub mod plan;
pub mod preview;
pub mod print;
pub mod question;
pub mod record;
pub mod reference;
pub mod report;
pub mod status;
pub mod version;
pub mod viewer;

#[cfg(test)]
mod passes_tests;
