//! Failures of Twinspan, the registry and the cluster, and the rules that keep a failure from becoming a loss:
//! departures, the deletion guard, the fence, events that get lost.

mod connection;
mod departures;
mod faults;
mod fence;
mod guard;
mod lost_events;
mod outages;
mod registration_lost;
mod vanished;

use crate::harness::stories;

stories![modules: connection, departures, faults, fence, guard, lost_events, outages, registration_lost, vanished];
