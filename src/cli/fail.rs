//! The report of an error on the command line.
//!
//! Owns its place, standard error, and its exit code, 1. Refuses to know the error.

use std::io::Write;
use std::process::ExitCode;

/// Prints an error on standard error; exit code 1.
pub fn fail(error: &dyn std::error::Error) -> ExitCode {
    // If standard error is closed, there is no place for the error.
    let _ = writeln!(std::io::stderr(), "twinspan: {error}");
    ExitCode::FAILURE
}
