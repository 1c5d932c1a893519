//! Pages in English and Chinese that say the same, and what the two of a pair share.
//!
//! Owns the pairs and the rule: the same headings by level, the same blocks of code byte for byte, the same pictures
//! and rows of tables, all in the same order, and every figure of the English page. Refuses to judge words, and to
//! read Markdown ([`super::pages`]).

use crate::pages::{At, Page, Part};

/// Pages in English, and their translations.
pub const PAIRS: [(&str, &str); 2] = [("README.md", "README_cn.md"), ("docs/quick-start.md", "docs/zh/quick-start.md")];
/// Pages in Chinese alone.
pub const ALONE: [&str; 1] = ["docs/zh/kitex.md"];

/// The remedy in each message.
const REMEDY: &str = "change both pages together: the same headings, code, table rows and pictures in the same order";

/// Each place in which a translation is out of step, in words for whoever changes one of the two.
pub fn differences(english: &Page, chinese: &Page) -> Vec<String> {
    let mut found = Vec::new();
    let mut theirs = chinese.parts.iter();
    for ours in &english.parts {
        let Some(part) = theirs.next() else {
            found.push(format!(
                "{} ends before {} of {}:{}; {REMEDY}",
                chinese.file,
                name(&ours.what),
                english.file,
                ours.line
            ));
            return found;
        };
        let (here, there) = (place(chinese, part), place(english, ours));
        match (&ours.what, &part.what) {
            (Part::Code(wanted), Part::Code(text)) if wanted != text => {
                let line = wanted.lines().zip(text.lines()).take_while(|(a, b)| a == b).count();
                let (wanted, text) = (line_of(wanted, line), line_of(text, line));
                let (here, there) = (part.line + line, ours.line + line);
                found.push(format!(
                    "{}:{here} has `{text}`, and {}:{there} has `{wanted}`; blocks of code are equal byte for byte",
                    chinese.file, english.file
                ));
            }
            (Part::Row(wanted), Part::Row(figures)) if wanted != figures => {
                found.push(format!("{here}: the row has the figures {figures:?}, and {wanted:?} in {there}"));
            }
            (Part::Picture(wanted), Part::Picture(file)) if wanted != file => {
                found.push(format!("{here}: the picture is {file}, and {wanted} in {there}"));
            }
            (wanted, found_here) if name(wanted) != name(found_here) => {
                found.push(format!("{here} has {}, and {there} has {}; {REMEDY}", name(found_here), name(wanted)));
                return found;
            }
            _ => {}
        }
    }
    if let Some(part) = theirs.next() {
        found.push(format!("{}: {} is not in {}; {REMEDY}", place(chinese, part), name(&part.what), english.file));
        return found;
    }
    found.extend(missing_figures(english, chinese));
    found.extend(missing_links(english, chinese));
    found.extend(missing_links(chinese, english));
    found
}

/// Figures of the English page that the same section of the translation lacks. The translation may have more.
fn missing_figures(english: &Page, chinese: &Page) -> Vec<String> {
    let mut missing = Vec::new();
    for (ours, theirs) in english.figures.iter().zip(&chinese.figures) {
        for figure in ours.iter().filter(|figure| !theirs.iter().any(|other| other.what == figure.what)) {
            missing.push(format!(
                "{}: the section has no {}, which {}:{} has; translate the figure in digits",
                chinese.file, figure.what, english.file, figure.line
            ));
        }
    }
    missing
}

/// A reader finds the other language before the first section.
fn missing_links(from: &Page, to: &Page) -> Option<String> {
    let section = from.parts.iter().find(|part| part.what == Part::Heading(2));
    let head = section.map_or(usize::MAX, |part| part.line);
    let linked = from.links.iter().any(|link| link.line < head && from.beside(&link.what) == *to.file);
    (!linked).then(|| format!("{}: link to {} before the first section", from.file, to.file))
}

fn place(page: &Page, part: &At<Part>) -> String {
    format!("{}:{}", page.file, part.line)
}

fn name(part: &Part) -> String {
    match part {
        Part::Heading(level) => format!("a heading of level {level}"),
        Part::Code(_) => "a block of code".to_owned(),
        Part::Row(_) => "a row of a table".to_owned(),
        Part::Picture(_) => "a picture".to_owned(),
    }
}

fn line_of(text: &str, line: usize) -> &str {
    text.lines().nth(line).unwrap_or("(the end)")
}
