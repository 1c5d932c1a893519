//! The third door: TCP connections to instances that lost their registration.
//!
//! - [`Prober`]: opens one connection and returns its answer.
//! - [`Probes`]: the addresses to probe, the pace, and the last answers. A changed answer is a [`ProbeEvent`].
//!
//! Refuses to know why an address is probed and the consequence of its answer.

mod connect;
mod schedule;

use std::collections::BTreeSet;

use async_trait::async_trait;
use twinspan_core::model::{InstanceAddr, ServiceKey};
use twinspan_core::plan::departure::Answer;

pub use connect::TcpProber;
pub use schedule::Probes;

/// Opens a connection and closes it again. Every call has its own deadline; none retries.
#[async_trait]
pub trait Prober: Send + Sync {
    async fn probe(&self, addr: InstanceAddr) -> Answer;
}

/// The answer of an address changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeEvent {
    /// RegisteredServices that asked for the address.
    pub services: BTreeSet<ServiceKey>,
}
