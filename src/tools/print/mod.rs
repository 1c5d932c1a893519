//! Output: tables for people, names for scripts, JSON or YAML for programs.
//!
//! - [`table`]: columns. [`text`]: what strangers wrote, made harmless, and colours.
//!
//! Owns the way to standard output: colours where it is a terminal (or `--color`, `NO_COLOR`, `CLICOLOR_FORCE`,
//! `TERM=dumb` say so), and the width of the terminal. Refuses to know what is printed.

mod table;
mod text;

use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

pub use table::{Cell, Columns, count, fit_terminal};
pub use text::{Tone, clean, harmless_json, line, toned};

/// The format of an answer that lists objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A table
    #[default]
    Table,
    /// The table with more columns
    Wide,
    /// Only KIND/NAME, one a line
    Name,
    /// JSON, for programs
    Json,
    /// The same as YAML
    Yaml,
}

/// The format of an answer whose parts have no names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table
    #[default]
    Table,
    /// The table with more columns, where it has more
    Wide,
    /// JSON, for programs
    Json,
    /// The same as YAML
    Yaml,
}

impl From<Format> for Output {
    fn from(format: Format) -> Self {
        match format {
            Format::Table => Self::Table,
            Format::Wide => Self::Wide,
            Format::Json => Self::Json,
            Format::Yaml => Self::Yaml,
        }
    }
}

/// The reason why an answer could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// The reader has gone, as `head` does.
    #[error("standard output was closed")]
    Closed,
    #[error("cannot print: {0}")]
    Io(io::Error),
    #[error("cannot serialise: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot serialise: {0}")]
    Yaml(#[from] serde_yaml::Error),
}

impl From<io::Error> for PrintError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Io(error) }
    }
}

/// Whether a person reads standard output.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Prints an answer that has no names.
pub fn print<T: Serialize + fmt::Display>(answer: &T, format: Format) -> Result<(), PrintError> {
    named(answer, format.into(), Vec::new)
}

/// Prints to standard output; the names are those of `-o name`.
pub fn named<T: Serialize + fmt::Display>(
    answer: &T,
    output: Output,
    names: impl FnOnce() -> Vec<String>,
) -> Result<(), PrintError> {
    fit_terminal();
    let text = match output {
        Output::Table => text::harmless(&answer.to_string()),
        Output::Wide => text::harmless(&format!("{answer:#}")),
        Output::Name => names().iter().map(|name| format!("{}\n", clean(name))).collect(),
        Output::Json => format!("{}\n", harmless_json(&serde_json::to_string_pretty(answer)?)),
        Output::Yaml => serde_yaml::to_string(answer)?,
    };
    write(text.as_bytes())
}

/// Prints one line.
pub fn say(text: &str) -> Result<(), PrintError> {
    write(format!("{}\n", clean(text)).as_bytes())
}

/// Writes all to standard output, to its end: a full disk is told, and a reader that has gone is known as one.
pub fn write(bytes: &[u8]) -> Result<(), PrintError> {
    let mut out = anstream::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}
