//! The whole operator in simulation: replicas, API servers, etcd, servers and people on one thread and virtual time.
//!
//! - [`dice`], [`plan`]: a run as plain data, made from a seed. [`run`]: carries it out. [`shrink`]: the
//!   fewest operations that break an invariant.
//! - [`scheduler`]: tasks and processes. [`wire`]: messages and their fates. [`trace`]: what happened.
//! - [`moments`]: every single fault at every message. [`many`]: many runs on all cores.
//! - [`world`]: what runs. [`check`]: the oracles.
//!
//! Owns determinism: a seed gives one run, byte for byte. Refuses to change the operator: both client libraries, every
//! task and every byte of it are those of production.

pub mod check;
pub mod dice;
pub mod many;
pub mod moments;
pub mod plan;
pub mod run;
pub mod scheduler;
pub mod shrink;
pub mod trace;
pub mod wire;
pub mod world;

/// Runs on a thread of its own, on which time passes only while everybody waits.
///
/// # Panics
/// If the thread cannot be made, or panics.
#[expect(clippy::expect_used, reason = "nothing goes on without a thread")]
pub fn on_virtual_time<T, F>(main: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    // A fresh thread: some dice of the libraries are seeded once for each thread.
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async move { main().await })
    });
    thread.join().expect("the thread of a run")
}
