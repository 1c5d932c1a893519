//! Output: tables for people, JSON or YAML for programs.
//!
//! Owns columns and colours. Refuses to know what is printed.

use std::fmt::{self, Write};
use std::io::IsTerminal;

use serde::Serialize;

/// The format of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
    Yaml,
}

/// The reason why an answer could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    #[error("cannot print: {0}")]
    Io(#[from] std::io::Error),
    #[error("cannot serialise: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot serialise: {0}")]
    Yaml(#[from] serde_yaml::Error),
}

/// Prints to standard output.
pub fn print<T: Serialize + fmt::Display>(answer: &T, output: Output) -> Result<(), PrintError> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match output {
        Output::Table => write!(out, "{answer}")?,
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(answer)?)?,
        Output::Yaml => write!(out, "{}", serde_yaml::to_string(answer)?)?,
    }
    Ok(())
}

/// Columns, aligned with two spaces between them. The last one may be long.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    lines: Vec<Vec<String>>,
}

impl Columns {
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { lines: vec![head.map(ToOwned::to_owned).into()] }
    }

    pub fn add<const N: usize>(&mut self, line: [String; N]) {
        self.lines.push(line.into());
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.lines.iter().map(Vec::len).max().unwrap_or_default();
        let width = |n: usize| self.lines.iter().filter_map(|line| line.get(n)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|n| width(n).unwrap_or_default()).collect();
        for line in &self.lines {
            let mut text = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                write!(text, "{cell:width$}  ")?;
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

/// The meaning of a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Good,
    Bad,
}

/// Colours a text on a terminal, unless `NO_COLOR` is set (no-color.org).
pub fn toned(text: &str, tone: Tone) -> String {
    if !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return text.to_owned();
    }
    // Select Graphic Rendition, ECMA-48.
    let code = match tone {
        Tone::Good => 32,
        Tone::Bad => 31,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_spaces() {
        let mut columns = Columns::new(["A", "LONG", "C"]);
        columns.add(["wider".to_owned(), "x".to_owned(), String::new()]);
        assert_eq!(columns.to_string(), "A      LONG  C\nwider  x\n");
    }
}
