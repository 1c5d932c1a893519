//! The silence of a registry: when to ask it for a sign of life, and when nothing that it told counts any more.
//!
//! Owns the times, which count whatever else a session does meanwhile, and while the process sleeps. Refuses to ask,
//! which [`super::session`] does.

use std::time::Duration;

use tokio::time::Instant;

use super::{RegistryError, Result};

/// Silence after which the session requests progress; after as long again the server counts as dead.
pub const SILENCE: Duration = Duration::from_secs(10);

/// The time in which the watch has told nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    pub until: Instant,
    /// A progress request was sent, and nothing has come since.
    pub asked: bool,
    /// The last sign of life: an item of the watch, or an answer to another request of the session.
    heard: Instant,
}

impl Silence {
    /// The watch told something just now.
    pub fn begin() -> Self {
        let now = Instant::now();
        Self { until: now + SILENCE, asked: false, heard: now }
    }

    /// An answer to another request shows that the process did not sleep, but not that the watch lives.
    pub fn answered(&mut self) {
        self.heard = Instant::now();
    }

    /// A progress request was sent.
    pub fn ask(&mut self) {
        // A process that slept asks late, and cannot give the server as long again.
        self.until = (Instant::now() + SILENCE).min(self.heard + 2 * SILENCE);
        self.asked = true;
    }

    /// # Errors
    /// Nothing was heard for so long that what is known may be as old. A process that was stopped for a while asks
    /// nothing meanwhile, so the answer to its first question cannot be waited for.
    pub fn check(&self) -> Result<()> {
        if self.heard.elapsed() < 2 * SILENCE { Ok(()) } else { Err(Self::error()) }
    }

    pub fn error() -> RegistryError {
        RegistryError::Silent { seconds: 2 * SILENCE.as_secs() }
    }
}
