//! The texts that are removed from any file: users and passwords in URLs, keys in PEM, words behind `password=`,
//! bearer tokens, and the values of Secrets that this process read.
//!
//! Owns the patterns. Refuses to know where a text comes from.

use super::REMOVED;

/// Words before `=` whose values are removed, in lower case.
const NAMES: [&str; 6] = ["password", "passwd", "token", "secret", "apikey", "api_key"];
/// A shorter value of a Secret would be found in half of all words.
const LEAST: usize = 4;

/// The text without secrets; `known` are values of Secrets.
pub fn scrub(text: &str, known: &[String]) -> String {
    let mut text = without_pem(text);
    for value in known.iter().filter(|value| value.len() >= LEAST) {
        text = text.replace(value.as_str(), REMOVED);
        // As a string in JSON or YAML has it.
        let quoted = serde_json::Value::from(value.as_str()).to_string();
        text = text.replace(quoted.trim_matches('"'), REMOVED);
    }
    without_assignments(&without_users(&text))
}

fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ';' | ')' | '(' | ']' | '}' | '<' | '>' | '&')
}

/// Removes `user:password` of every URL.
fn without_users(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        // A password may hold what ends a word elsewhere, but neither a slash nor a space.
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'')).unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(user) => {
                out.push_str(REMOVED);
                rest = &after[user..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    out
}

/// Removes every PEM block, also inside a string where its lines end with `\n` in two characters.
fn without_pem(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "-----END ";
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(begin) = rest.find(BEGIN) {
        out.push_str(&rest[..begin]);
        out.push_str(REMOVED);
        let block = &rest[begin..];
        let after = block.find(END).map_or("", |end| {
            let last = &block[end + END.len()..];
            last.find("-----").map_or("", |dashes| &last[dashes + 5..])
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Removes what stands behind `password=`, `Bearer` and the like.
fn without_assignments(text: &str) -> String {
    // ASCII lower case keeps every position.
    let lower = text.to_ascii_lowercase();
    let (mut out, mut from) = (String::with_capacity(text.len()), 0);
    while let Some(start) = next_value(&lower, from) {
        out.push_str(&text[from..start]);
        let end = text[start..].find(ends_word).map_or(text.len(), |end| start + end);
        if end > start {
            out.push_str(REMOVED);
        }
        from = end.max(start);
    }
    out.push_str(&text[from..]);
    out
}

/// The place right after the next name of a secret and its sign.
fn next_value(lower: &str, from: usize) -> Option<usize> {
    let assigned = NAMES.iter().flat_map(|name| {
        [format!("{name}="), format!("{name}=\""), format!("\"{name}\":\""), format!("\"{name}\": \"")]
    });
    let spoken = ["bearer ", "basic "].map(ToOwned::to_owned);
    let found = assigned.chain(spoken).filter_map(|sign| lower[from..].find(&sign).map(|at| (at, at + sign.len())));
    // Of two signs at one place the longer one counts, which includes the quote.
    found.min_by_key(|(at, end)| (*at, usize::MAX - end)).map(|(_, end)| from + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_removed_wherever_they_stand_in_a_text() {
        let known = ["hush-hush".to_owned(), "a\"b\\c".to_owned(), "ab".to_owned()];
        for (text, wanted) in [
            ("https://u:p%40w@etcd:2379/x and http://etcd:2379", "https://(removed)@etcd:2379/x and http://etcd:2379"),
            ("[\"http://me:a@b@h:1\"]", "[\"http://(removed)@h:1\"]"),
            ("mail a@b, see http://h/x@y", "mail a@b, see http://h/x@y"),
            ("it said hush-hush, ab", "it said (removed), ab"),
            (r#"{"x":"a\"b\\c"}"#, r#"{"x":"(removed)"}"#),
            ("Password=x1, TOKEN=\"y2\" z", "Password=(removed), TOKEN=\"(removed)\" z"),
            (r#"{"password":"x1","name":"n"}"#, r#"{"password":"(removed)","name":"n"}"#),
            ("Authorization: Bearer abc.def\nnext", "Authorization: Bearer (removed)\nnext"),
            ("a -----BEGIN EC PRIVATE KEY-----\nMII\n-----END EC PRIVATE KEY----- b", "a (removed) b"),
            (r"a -----BEGIN X-----\nMII\n-----END X-----\n b", r"a (removed)\n b"),
            ("cut -----BEGIN X-----\nMII", "cut (removed)"),
            ("secretName: user", "secretName: user"),
        ] {
            assert_eq!(scrub(text, &known), wanted, "{text}");
        }
    }
}
