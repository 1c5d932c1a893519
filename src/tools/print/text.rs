//! Texts of strangers on a terminal, and colours.
//!
//! Owns the characters that no command prints as they are: a key, a value or a message can be written by anybody, and
//! would move the cursor, change the title, or forge a line (CVE-2021-25743). Refuses to know where texts come from.

use std::borrow::Cow;
use std::fmt;

use anstyle::{AnsiColor, Style};

/// Characters that a terminal obeys, or that show a text in another order than it has.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A text in which such characters are escaped, for one line or one cell.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let escaped = |character: char| {
        if is_harmful(character) { character.escape_default().to_string() } else { character.to_string() }
    };
    Cow::Owned(text.chars().map(escaped).collect())
}

/// A line: words of ours, which may have colours, and a text that may be a stranger's.
pub fn line(f: &mut fmt::Formatter<'_>, ours: &str, text: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{ours}{}", clean(&text.to_string()))
}

/// A whole answer: the same, but for line ends and colours. Lines and cells are cleaned already; through one that was
/// forgotten a stranger forges at most a line.
pub(super) fn harmless(answer: &str) -> String {
    let mut safe = String::with_capacity(answer.len());
    let mut rest = answer;
    while let Some(at) = rest.find(is_harmful) {
        safe.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match rest.chars().next() {
            Some('\n') => 1,
            Some(first) => colour(rest).unwrap_or_else(|| {
                safe.push_str(&clean(&rest[..first.len_utf8()]));
                rest = &rest[first.len_utf8()..];
                0
            }),
            None => 0,
        };
        safe.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    safe.push_str(rest);
    safe
}

/// The length of the colour sequence at the beginning (Select Graphic Rendition, ECMA-48).
fn colour(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\u{1b}[")?;
    let end = numbers.find(|character: char| !character.is_ascii_digit() && character != ';')?;
    numbers[end..].starts_with('m').then_some(2 + end + 1)
}

/// JSON in which such characters are escaped as JSON escapes them. They can only stand in strings; line ends are the
/// printer's own, because those of strings are escaped already.
pub fn harmless_json(json: &str) -> String {
    let escaped = |character: char| {
        if is_harmful(character) && character != '\n' {
            format!("\\u{:04x}", u32::from(character))
        } else {
            character.to_string()
        }
    };
    json.chars().map(escaped).collect()
}

/// The meaning of a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Good,
    /// A matter that deserves attention.
    Doubtful,
    Bad,
    Heading,
}

impl Tone {
    pub(super) fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Doubtful => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Heading => Style::new().bold(),
        }
    }
}

/// A text with its colour, which the way to standard output takes away where it is not wanted.
pub fn toned(text: &str, tone: Tone) -> String {
    let style = tone.style();
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        let stranger = "a\u{1b}]0;title\u{7}\rb\nc\u{9b}2J\u{202e}d\u{7f}";
        assert_eq!(clean(stranger), r"a\u{1b}]0;title\u{7}\rb\nc\u{9b}2J\u{202e}d\u{7f}");
        for plain in ["订单服务", "é", "👍", "a b", ""] {
            assert!(matches!(clean(plain), Cow::Borrowed(same) if same == plain), "{plain}");
        }
    }

    #[test]
    fn of_a_whole_answer_only_lines_and_colours_stay() {
        let good = toned("fine", Tone::Good);
        let answer = format!("{good}\nforged\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}1A\u{1b}");
        assert_eq!(harmless(&answer), format!("{good}\nforged{}", r"\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}1A\u{1b}"));
        assert_eq!(harmless("plain\n"), "plain\n");
    }

    #[test]
    fn json_stays_json() {
        let value = serde_json::json!({"key": "a\u{9b}b\u{202e}\n\u{1b}"});
        let text = harmless_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.is_ascii() && text.contains(r"a\u009bb\u202e\n\u001b"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
