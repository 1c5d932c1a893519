//! The fields of log lines, as the sources have them.
//!
//! Owns the reading of log macros, and what each line has to name. Refuses to know what a field means, which
//! `docs/operations.md` says.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;

use crate::source::{Sources, attributes, is_test_only};

/// The macros of a line.
const LEVELS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];
/// One line of the log.
#[derive(Debug)]
pub struct Line {
    pub file: String,
    pub fields: BTreeSet<String>,
    /// The text in the source, with the names of what it shows.
    pub message: String,
}

/// Every line that the operator can log, but for tests.
pub fn lines(sources: &Sources) -> Vec<Line> {
    let mut lines = Vec::new();
    for (file, source) in sources.iter().filter(|(file, _)| !file.ends_with("_tests.rs")) {
        let parsed = syn::parse_file(source).unwrap_or_else(|error| panic!("{file}: {error}"));
        for item in parsed.items.iter().filter(|item| !attributes(item).iter().any(is_test_only)) {
            find(file, item.to_token_stream(), &mut lines);
        }
    }
    lines
}

/// The faults of the lines, in words.
pub fn breaches(lines: &[Line]) -> Vec<String> {
    let lacks = |line: &Line, field: &str| !line.fields.contains(field);
    let about_a_service = |line: &Line| line.message.contains("{key}") && line.file.contains("registered_service/");
    let of_a_registry = |line: &Line| line.file.starts_with("src/registry/");
    let mut found = Vec::new();
    for line in lines {
        if about_a_service(line) && (lacks(line, "namespace") || lacks(line, "name")) {
            found.push(format!("{}: {:?} names no service in its fields", line.file, line.message));
        }
        if of_a_registry(line) && lacks(line, "registry") {
            found.push(format!("{}: {:?} names no registry in its fields", line.file, line.message));
        }
        let times = line
            .fields
            .iter()
            .filter(|field| field.ends_with("_ms") && !["duration_ms", "wait_ms"].contains(&field.as_str()));
        found.extend(times.map(|field| format!("{}: {field} is a duration under another name", line.file)));
    }
    found
}

/// The fields in the table of the operations guide.
pub fn documented(guide: &str) -> BTreeSet<String> {
    let section = guide.split_once("| field | meaning |").unwrap().1;
    let rows = section.lines().skip(2).take_while(|line| line.starts_with("| `"));
    let names = rows.map(|row| row.split('|').nth(1).unwrap_or_default());
    names.flat_map(|names| names.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Looks for lines among tokens, in every macro too.
fn find(file: &str, tokens: TokenStream, lines: &mut Vec<Line>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let before = |n: usize| at.checked_sub(n).and_then(|at| tokens.get(at)).map(ToString::to_string);
        if before(1).as_deref() == Some("!") && before(2).is_some_and(|name| LEVELS.contains(&name.as_str())) {
            let (fields, message) = line(group.stream());
            lines.push(Line { file: file.to_owned(), fields, message });
        } else {
            find(file, group.stream(), lines);
        }
    }
}

/// Fields and message of a line's tokens: `a, b = 1, %c, "text"`.
fn line(tokens: TokenStream) -> (BTreeSet<String>, String) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let comma = |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',');
    let mut fields = BTreeSet::new();
    for part in tokens.split(comma) {
        let sigil = |token: &&TokenTree| !matches!(token, TokenTree::Punct(mark) if "%?".contains(mark.as_char()));
        match part.iter().find(sigil) {
            Some(TokenTree::Literal(text)) => return (fields, text.to_string()),
            Some(TokenTree::Ident(name)) => drop(fields.insert(name.to_string())),
            _ => {}
        }
    }
    (fields, String::new())
}
