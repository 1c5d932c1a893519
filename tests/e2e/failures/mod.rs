//! Failures of Twinspan, the registry and the cluster, and the rules that keep a failure from becoming a loss:
//! departures, the deletion guard, the fence, events that get lost, an API server that falls silent.

mod api_server;
mod connection;
mod departures;
mod faults;
mod fence;
mod guard;
mod lost_events;
mod node_addresses;
mod outages;
mod registration_lost;
mod vanished;

use crate::harness::stories;

stories![
    modules: api_server, connection, departures, faults, fence, guard, lost_events, node_addresses, outages, registration_lost,
    vanished,
];
