//! The line on standard error that says what a command waits for.
//!
//! Owns the patience before it. Refuses to end a wait: whoever waits has a deadline.

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use crate::tools::print::clean;

/// Most commands have ended by then.
const PATIENCE: Duration = Duration::from_secs(2);

/// Awaits something, and says what it is if it takes long. A script sees the line on standard error only.
pub async fn told<T>(awaited: impl Future<Output = T>, what: impl FnOnce() -> String) -> T {
    tokio::pin!(awaited);
    if let Ok(done) = tokio::time::timeout(PATIENCE, &mut awaited).await {
        return done;
    }
    // If standard error is closed, nobody wants to know.
    let _ = writeln!(std::io::stderr(), "twinspan: waiting for {}", clean(&what()));
    awaited.await
}
