//! What people ask from outside of the operator, through clients of their own; an operator need not run.
//!
//! - [`reach`]: a ServiceRegistry and what it takes to connect to it, read once.
//! - [`parity`]: what each side sees of a service, side by side.
//! - [`doctor`]: whether a cluster and its registries are fit for a bridge.
//! - [`status`]: the whole bridge at a glance; [`approve`]: releases what waits for a person.
//! - [`plan`]: what an operator would write now; [`explain`]: what it thinks of one record or address.
//! - [`reference`]: the API reference, printed from the types.
//! - [`remarks`]: what is said beside a table.
//! - [`print`]: tables, JSON, YAML.

pub mod approve;
pub mod doctor;
pub mod explain;
pub mod parity;
pub mod plan;
pub mod print;
pub mod reach;
pub mod reference;
pub mod remarks;
pub mod status;
