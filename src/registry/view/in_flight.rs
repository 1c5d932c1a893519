//! A write in flight, as the view has to know it.
//!
//! Owns what the view keeps of one. Refuses to know when a write begins and ends.

use std::sync::Arc;

use twinspan_core::model::{RawRecord, ServiceKey};

#[derive(Debug)]
pub struct InFlight {
    pub by: Arc<ServiceKey>,
    /// The record that an event has shown meanwhile: its answer tells nothing new.
    pub echo: Option<RawRecord>,
}
