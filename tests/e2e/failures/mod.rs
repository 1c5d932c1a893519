//! Failures of Twinspan, the registry and the cluster, and the rules that keep a failure from becoming a loss:
//! departures, the deletion guard, the fence.

mod connection;
mod departures;
mod faults;
mod fence;
mod guard;
mod outages;
mod registration_lost;

use crate::harness::stories;

stories![modules: connection, departures, faults, fence, guard, outages, registration_lost];
