//! Pages in Markdown: headings, blocks of code, rows of tables, pictures, figures and links.
//!
//! Owns the reading, and the anchors of headings as GitHub makes them. Refuses to know which pages there are and what
//! two of them share ([`super::translations`]).

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// A part of a page that stays as it is in another language.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// The level of a heading, from 1.
    Heading(usize),
    /// A fenced block with its first fence, without the indent of the block.
    Code(String),
    /// The figures in a row of a table, sorted: the order of words differs between languages.
    Row(Vec<String>),
    /// The file of a picture, from the root of the repository.
    Picture(String),
}

/// A part or a text, and the number of its line.
#[derive(Debug)]
pub struct At<T> {
    pub line: usize,
    pub what: T,
}

#[derive(Debug, Default)]
pub struct Page {
    /// From the root of the repository.
    pub file: String,
    pub parts: Vec<At<Part>>,
    /// Figures in headings and paragraphs, one list for each heading; the first is that of the head of the page.
    pub figures: Vec<Vec<At<String>>>,
    /// Targets of links and pictures.
    pub links: Vec<At<String>>,
    pub anchors: BTreeSet<String>,
}

/// Reads a page; `file` is its path from the root of the repository.
pub fn read(file: &str, text: &str) -> Page {
    let mut page = Page { file: file.to_owned(), figures: vec![Vec::new()], ..Page::default() };
    let mut open: Option<(At<String>, &str)> = None;
    for (number, line) in text.lines().enumerate() {
        let (bare, at) = (line.trim_start(), number + 1);
        match (open.take(), bare.strip_prefix("```")) {
            (None, Some(language)) => {
                // The blocks of a list are indented as a whole.
                let indent = &line[..line.len() - bare.len()];
                open = Some((At { line: at, what: format!("```{language}\n") }, indent));
            }
            (None, None) => page.line(at, bare),
            (Some((block, _)), Some(_)) => page.parts.push(At { line: block.line, what: Part::Code(block.what) }),
            (Some((mut block, indent)), None) => {
                block.what += &format!("{}\n", line.strip_prefix(indent).unwrap_or(line));
                open = Some((block, indent));
            }
        }
    }
    assert!(open.is_none(), "{file}: a block of code does not end");
    page
}

impl Page {
    fn line(&mut self, line: usize, text: &str) {
        let level = text.chars().take_while(|c| *c == '#').count();
        let prose = without_code(text);
        if level > 0 && text[level..].starts_with(' ') {
            self.anchors.insert(anchor(text));
            self.figures.push(Vec::new());
            self.parts.push(At { line, what: Part::Heading(level) });
        }
        let (targets, pictures) = targets(&prose);
        for target in pictures {
            let picture = self.beside(&target).to_string_lossy().into_owned();
            self.parts.push(At { line, what: Part::Picture(picture) });
        }
        self.links.extend(targets.into_iter().map(|what| At { line, what }));
        if !text.starts_with('|') {
            if let Some(section) = self.figures.last_mut() {
                section.extend(figures(text).into_iter().map(|what| At { line, what }));
            }
        } else if !text.starts_with("|---") {
            let mut row = figures(text);
            row.sort();
            self.parts.push(At { line, what: Part::Row(row) });
        }
    }

    /// A file that a link of this page names, from the root of the repository.
    pub fn beside(&self, target: &str) -> PathBuf {
        let folder = Path::new(&self.file).parent().unwrap_or(Path::new(""));
        let mut path = PathBuf::new();
        for part in folder.join(target).components() {
            match part {
                Component::ParentDir if path.pop() => {}
                part => path.push(part),
            }
        }
        path
    }
}

/// The text with its code spans emptied: they may hold what looks like a link.
fn without_code(text: &str) -> String {
    text.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// The targets of all links and pictures, and those of the pictures alone, in Markdown and in HTML.
fn targets(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut all, mut pictures) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let target: String = after.chars().take_while(|c| *c != ')').collect();
        // `[![picture](a)](b)`: the last opening bracket belongs to the innermost text.
        if before.rfind('[').is_some_and(|open| before[..open].ends_with('!')) {
            pictures.push(target.clone());
        }
        all.push(target);
        rest = after;
    }
    for name in ["src=\"", "srcset=\"", "href=\""] {
        for target in text.split(name).skip(1).filter_map(|rest| rest.split('"').next()) {
            all.push(target.to_owned());
            if name != "href=\"" {
                pictures.push(target.to_owned());
            }
        }
    }
    (all, pictures)
}

/// Every number, with the points, commas and colons inside it: `1,000`, `0.5`, `1.31`.
fn figures(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut current = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_ascii_digit() || (matches!(c, '.' | ',' | ':') && !current.is_empty()) {
            current.push(c);
        } else if !current.is_empty() {
            found.push(current.trim_end_matches(['.', ',', ':']).to_owned());
            current.clear();
        }
    }
    found
}

/// The anchor of a heading: lower case, words joined by dashes, without punctuation.
pub fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}
