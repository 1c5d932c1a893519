//! Values that differ between runs, replaced by placeholders.
//!
//! Owns which values are replaced, and counts them. A value is found by its place or its form; equal values of one text
//! get the same number, in the order of their first appearance. Refuses to know the scene.

use std::collections::BTreeMap;

/// Hexadecimal digits at the end of the name of a slice.
const SLICE_DIGEST: usize = 10;
/// A time in the form of conditions and explanations, with every digit 0.
const TIME: &str = "0000-00-00T00:00:00Z";
/// The text before the name of a hold, which follows from its start.
const APPROVAL: &str = "approve-deletions=";
/// Hexadecimal digits of the name of a hold.
const HOLD_DIGEST: usize = 12;

/// Texts that are known before a run asks, with the placeholder of each.
#[derive(Debug, Default)]
pub struct Placeholders {
    known: Vec<(String, &'static str)>,
}

/// The number of replaced values of each sort.
pub type Replaced = BTreeMap<&'static str, usize>;

/// The values of one sort in one text, in the order of their first appearance.
type Numbers = BTreeMap<&'static str, Vec<String>>;

impl Placeholders {
    pub fn add(&mut self, text: impl Into<String>, placeholder: &'static str) {
        self.known.push((text.into(), placeholder));
        // A text that is part of another comes after it.
        self.known.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    }

    /// Replaces values, and counts them.
    pub fn replace(&self, text: &str, replaced: &mut Replaced) -> String {
        let mut text = text.to_owned();
        for (known, placeholder) in &self.known {
            let number = text.matches(known.as_str()).count();
            if number > 0 {
                *replaced.entry(placeholder).or_default() += number;
                text = text.replace(known.as_str(), placeholder);
            }
        }
        let mut numbers = Numbers::new();
        let mut lines: Vec<String> = Vec::new();
        for line in text.split('\n') {
            let line = times(&of_line(line, &mut numbers, replaced), &mut numbers, replaced);
            lines.push(holds(&line, &mut numbers, replaced));
        }
        lines.join("\n")
    }
}

fn number(sort: &'static str, value: &str, numbers: &mut Numbers, replaced: &mut Replaced) -> String {
    *replaced.entry(sort).or_default() += 1;
    let known = numbers.entry(sort).or_default();
    let at = known.iter().position(|other| other == value).unwrap_or_else(|| {
        known.push(value.to_owned());
        known.len() - 1
    });
    format!("<{sort} {}>", at + 1)
}

/// The value in a line of pretty-printed JSON, if its field differs between runs.
fn of_line(line: &str, numbers: &mut Numbers, replaced: &mut Replaced) -> String {
    let Some((field, rest)) = line.split_once("\": ") else { return line.to_owned() };
    let (value, end) = rest.strip_suffix(',').map_or((rest, ""), |value| (value, ","));
    let text = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let value = match (field.trim_start().trim_start_matches('"'), text) {
        ("revision", None) if value.parse::<i64>().is_ok_and(|revision| revision > 0) => {
            format!("\"{}\"", number("revision", value, numbers, replaced))
        }
        ("lease", Some(lease)) if i64::from_str_radix(lease, 16).is_ok() => {
            format!("\"{}\"", number("lease", lease, numbers, replaced))
        }
        ("leader", Some(leader)) if leader.starts_with("twinspan-") => {
            format!("\"{}\"", number("leader", leader, numbers, replaced))
        }
        ("name", Some(name)) => match name.rsplit_once('-').filter(|(_, digest)| is_digest(digest, SLICE_DIGEST)) {
            Some((stem, digest)) => format!("\"{stem}-{}\"", number("digest", digest, numbers, replaced)),
            None => value.to_owned(),
        },
        _ => value.to_owned(),
    };
    format!("{field}\": {value}{end}")
}

fn is_digest(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn times(line: &str, numbers: &mut Numbers, replaced: &mut Replaced) -> String {
    let (mut said, mut rest) = (String::new(), line);
    while let Some(first) = rest.chars().next() {
        match rest.get(..TIME.len()).filter(|time| is_time(time)) {
            Some(time) => {
                said += &number("time", time, numbers, replaced);
                rest = &rest[TIME.len()..];
            }
            None => {
                said.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    said
}

fn holds(line: &str, numbers: &mut Numbers, replaced: &mut Replaced) -> String {
    let mut parts = line.split(APPROVAL);
    let mut said = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        said += APPROVAL;
        match part.split_at_checked(HOLD_DIGEST).filter(|(digest, _)| is_digest(digest, HOLD_DIGEST)) {
            Some((digest, rest)) => said += &(number("hold", digest, numbers, replaced) + rest),
            None => said += part,
        }
    }
    said
}

fn is_time(text: &str) -> bool {
    text.bytes()
        .zip(TIME.bytes())
        .all(|(found, form)| if form == b'0' { found.is_ascii_digit() } else { found == form })
}
