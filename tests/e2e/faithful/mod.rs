//! The fakes of the simulation against real servers: the same operations, answer by answer.
//!
//! Owns the list of doors. Refuses to know Twinspan.

mod kube;

use crate::harness::stories;

stories![kube::kube_apiserver];
