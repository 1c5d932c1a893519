//! Printing: numbered scenes, facts, and steps with a progress indicator.

use std::future::Future;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;

/// The heading of a scene.
pub fn scene(number: usize, title: &str) {
    println!("\n({number}) {title}");
}

/// A fact that was observed.
pub fn fact(text: impl AsRef<str>) {
    for line in text.as_ref().lines() {
        println!("      {line}");
    }
}

/// Runs a step; a long one prints a dot a second.
pub async fn step<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let started = Instant::now();
    print!("    {what} ");
    flush();
    let mut work = std::pin::pin!(work);
    let mut dots = tokio::time::interval(Duration::from_secs(1));
    dots.tick().await;
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            _ = dots.tick() => {
                print!(".");
                flush();
            }
        }
    };
    match &outcome {
        Ok(_) => println!(" {:.1} s", started.elapsed().as_secs_f64()),
        Err(_) => println!(" failed"),
    }
    outcome
}

fn flush() {
    // A terminal that is gone needs no progress.
    let _ = std::io::stdout().flush();
}
