//! The program.
//!
//! Owns its allocator. Refuses to know a command: `twinspan::cli` does.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// glibc's allocator took more than a quarter of the CPU of a cold start: threads waited for each other where one freed
/// what another had allocated, and each page was asked for by itself (`docs/decisions/0054`).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    twinspan::cli::main()
}
