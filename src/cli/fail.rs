//! The report of an error on the command line.
//!
//! Owns its place, standard error, its form, the whole chain of causes, and its exit code, 1. Refuses to know the
//! error.

use std::io::Write;
use std::process::ExitCode;

use crate::causes::chain;
use crate::tools::print::{PrintError, clean};

/// Prints an error on standard error; exit code 1.
pub fn fail(error: &dyn std::error::Error) -> ExitCode {
    // If standard error is closed, there is no place for the error.
    let _ = writeln!(std::io::stderr(), "twinspan: {}", clean(&chain(error.to_string(), error)));
    ExitCode::FAILURE
}

/// The exit code after something was printed: 0 too where the reader has gone, as with kubectl.
pub fn printed(result: Result<(), PrintError>) -> ExitCode {
    match result {
        Ok(()) | Err(PrintError::Closed) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}
