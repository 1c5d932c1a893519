//! The third door: TCP connections to instances that lost their registration.
//!
//! - [`Prober`]: opens one connection and says how it was answered.
//! - [`Probes`]: which addresses are asked, how often, and what they answered last.
//!
//! Refuses to know why an address is asked and what follows from its answer.

mod connect;
mod schedule;

use async_trait::async_trait;
use twinspan_core::model::InstanceAddr;
use twinspan_core::plan::departures::Answer;

pub use connect::TcpProber;
pub use schedule::Probes;

/// Opens a connection and closes it again. Every call has a deadline of its own; none retries.
#[async_trait]
pub trait Prober: Send + Sync {
    async fn probe(&self, addr: InstanceAddr) -> Answer;
}
