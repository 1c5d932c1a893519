//! The lines on standard error of a command that goes on: what it waits for, and what went wrong meanwhile.
//!
//! Owns the patience before the first. Refuses to end a wait: whoever waits has a deadline.

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use crate::tools::print::clean;

/// Most commands have ended by then.
const PATIENCE: Duration = Duration::from_secs(2);

/// Awaits something, and says what it is if it takes long. A script sees the line on standard error only.
pub async fn told<T>(awaited: impl Future<Output = T>, what: impl FnOnce() -> String) -> T {
    after_patience(awaited, || warn(&format!("waiting for {}", what()))).await
}

async fn after_patience<T>(awaited: impl Future<Output = T>, say: impl FnOnce()) -> T {
    tokio::pin!(awaited);
    if let Ok(done) = tokio::time::timeout(PATIENCE, &mut awaited).await {
        return done;
    }
    say();
    awaited.await
}

/// Says something on standard error, and goes on.
pub fn warn(text: &str) {
    // If standard error is closed, nobody wants to know.
    let _ = writeln!(std::io::stderr(), "twinspan: {}", clean(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_wait_of_more_than_two_seconds_is_told() {
        for (seconds, wanted) in [(1, 0), (3, 1)] {
            let mut said = 0;
            after_patience(tokio::time::sleep(Duration::from_secs(seconds)), || said += 1).await;
            assert_eq!(said, wanted, "{seconds} s");
        }
    }
}
