//! The state of one run, which every scenario takes and leaves for the next.
//!
//! Owns the form, the results, and which services are settled. Refuses to know the scenarios.

use anyhow::Result;

use crate::bed::{BASE, Bed, Direction, SERVICES, Shape};
use crate::report::Report;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Quick,
    Full,
}

impl Form {
    pub fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }

    pub fn label(self) -> &'static str {
        self.pick("quick", "full")
    }
}

pub struct Run {
    pub bed: Bed,
    pub report: Report,
    pub form: Form,
    pub seed: u64,
    /// The services that stay settled.
    pub settled: Option<(Direction, Shape)>,
    pub prepared: bool,
}

impl Run {
    /// Makes the small services that most scenarios change, once, and makes sure that Twinspan leads.
    pub async fn base(&mut self) -> Result<()> {
        if !self.prepared {
            self.bed.prepare(BASE, Shape::of(SERVICES)).await?;
            self.prepared = true;
        }
        self.bed.twinspan_leads().await
    }
}
