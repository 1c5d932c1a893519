//! The text of an error with its causes: the outermost error of a client often says only that something failed.
//!
//! Owns the form. Refuses to know any error.

use std::error::Error;

/// Appends the texts of all causes, each once.
pub fn chain(mut text: String, error: &dyn Error) -> String {
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
