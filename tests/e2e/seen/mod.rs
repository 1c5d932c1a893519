//! The view of a cluster's operators: status, metrics, traces, alerts, and the commands.

mod alerts;
mod doctor;
mod operator;
mod status;
mod tools;
mod traces;

use crate::harness::stories;

stories![modules: alerts, doctor, operator, status, tools, traces];
