//! JSON objects as Go's `encoding/json` reads them. The frameworks that write JSON all use it, or a library that
//! behaves the same.
//!
//! Owns the laxness and the strictness that the codecs share: field names match in any case, the last of several equal
//! fields wins, `null` leaves a field unchanged (and a whole value of `null` is an empty object), unknown fields are
//! ignored, invalid UTF-8 and the escape of half a surrogate pair become U+FFFD; but `10.0` and `"10"` are no integers,
//! and one wrong field makes the whole value unreadable. Hertz' sonic behaves so with its default settings (seen with
//! v1.15.0, see the golden data). Refuses to know any field.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::framework::Undecodable;
use crate::model::Tags;

/// Longest explanation kept for a value that does not decode, in characters. Any program may write a value of any size.
const MAX_EXPLANATION: usize = 120;

/// The fields of an object in their written order, each with its name as written.
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// The value as text. Each invalid byte becomes one U+FFFD, as in Go's `utf8.DecodeRune`.
pub fn text(value: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(value) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// The value as text of JSON. The escape of half a surrogate pair becomes that of U+FFFD, as in Go's `unquote`.
pub fn json_text(value: &[u8]) -> Cow<'_, str> {
    match text(value) {
        Cow::Borrowed(text) => whole_surrogates(text),
        Cow::Owned(text) => Cow::Owned(whole_surrogates(&text).into_owned()),
    }
}

fn whole_surrogates(text: &str) -> Cow<'_, str> {
    let mut whole = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(escape) = text[at..].find('\\').map(|offset| at + offset) {
        let (length, half) = match (unit(text, escape), unit(text, escape + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => (12, false),
            (Some(unit), _) => (6, (0xD800..=0xDFFF).contains(&unit)),
            // The character after a backslash never begins an escape.
            (None, _) => (1 + text[escape + 1..].chars().next().map_or(0, char::len_utf8), false),
        };
        at = escape + length;
        if half {
            whole.push_str(&text[copied..escape]);
            whole.push_str("\\ufffd");
            copied = at;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    whole.push_str(&text[copied..]);
    Cow::Owned(whole)
}

/// The UTF-16 code unit that an escape `\uXXXX` at this place stands for.
fn unit(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u16::from_str_radix(digits, 16).ok().filter(|_| hex)
}

/// # Errors
/// [`Undecodable`] where the text is neither an object nor `null`.
pub fn fields(text: &str) -> Result<Fields<'_>, Undecodable> {
    serde_json::from_str(text).map_err(|error| undecodable(&format_args!("not a JSON object: {error}")))
}

impl<'a> Fields<'a> {
    /// Each field with its folded name, for comparison, and its name as written.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, &str, &'a RawValue)> {
        self.0.iter().map(|(name, raw)| (fold(name), name.as_ref(), *raw))
    }
}

/// Go compares field names under simple case folding (`foldName` in `encoding/json`).
fn fold(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Cow::Borrowed(name);
    }
    name.chars()
        .map(|c| match c {
            'ſ' => 's',
            'K' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

/// Sets a field unless the value is `null`.
///
/// # Errors
/// [`Undecodable`] where the value is of another type.
pub fn set<T: DeserializeOwned>(name: &str, raw: &RawValue, field: &mut T) -> Result<(), Undecodable> {
    let given: Option<T> =
        serde_json::from_str(raw.get()).map_err(|error| undecodable(&format_args!("{name}: {error}")))?;
    if let Some(given) = given {
        *field = given;
    }
    Ok(())
}

/// Sets an integer. `serde_json` would accept `1e1`, which Go refuses.
///
/// # Errors
/// [`Undecodable`] where the value is not written as an integer, or is out of range.
pub fn set_integer<T: std::str::FromStr>(name: &str, raw: &RawValue, field: &mut T) -> Result<(), Undecodable> {
    if raw.get() != "null" {
        *field = raw.get().parse().map_err(|_| undecodable(&format_args!("{name}: {} is no integer", raw.get())))?;
    }
    Ok(())
}

/// Sets a map of strings: `null` empties it, and a later value of a key replaces an earlier one.
///
/// # Errors
/// [`Undecodable`] where the value is of another type.
pub fn set_map(name: &str, raw: &RawValue, field: &mut Tags) -> Result<(), Undecodable> {
    let given: Option<Given> =
        serde_json::from_str(raw.get()).map_err(|error| undecodable(&format_args!("{name}: {error}")))?;
    match given {
        None => field.clear(),
        Some(Given(given)) if field.is_empty() => *field = given,
        Some(Given(given)) => field.extend(given),
    }
    Ok(())
}

/// A map of strings, where `null` is the empty one.
struct Given(Tags);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(GivenVisitor)
    }
}

struct GivenVisitor;

impl<'de> Visitor<'de> for GivenVisitor {
    type Value = Given;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
        let mut tags = Tags::new();
        while let Some((key, text)) = map.next_entry::<String, Option<String>>()? {
            tags.insert(key, text.unwrap_or_default());
        }
        Ok(Given(tags))
    }
}

/// Tags as Go writes a map of texts: an object, whose fields are in the order of their names.
#[derive(Debug)]
pub struct Map<'a>(pub &'a Tags);

impl Serialize for Map<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

/// Keeps a field that no reader looks at. Drops a value that serde_json cannot hold, such as a number out of its range.
pub fn keep(name: &str, raw: &RawValue, rest: &mut BTreeMap<String, serde_json::Value>) {
    if let Ok(value) = serde_json::from_str(raw.get()) {
        rest.insert(name.to_owned(), value);
    }
}

fn undecodable(error: &dyn fmt::Display) -> Undecodable {
    Undecodable(error.to_string().chars().take(MAX_EXPLANATION).collect())
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldsVisitor).map(|fields| Fields(fields.0))
    }
}

/// A name that is copied only where it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_unit<E>(self) -> Result<Fields<'de>, E> {
        Ok(Fields(Vec::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some((Name(name), raw)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
            fields.push((name, raw));
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn half_a_surrogate_pair_is_read_as_go_reads_it() {
        for (escaped, read) in [
            (r"a\ud800b", "a\u{fffd}b"),
            (r"\udc00\ud800", "\u{fffd}\u{fffd}"),
            (r"\ud800\ud83d\ude00", "\u{fffd}😀"),
            (r"\uD83D\uDE00", "😀"),
            (r"\ud800\u0041", "\u{fffd}A"),
            (r"\\ud800", r"\ud800"),
            (r"\\\ud800", "\\\u{fffd}"),
            (r"żółć \u00e9", "żółć é"),
        ] {
            let value = format!(r#"{{"{escaped}":"{escaped}"}}"#);
            let text = json_text(value.as_bytes());
            let fields = fields(&text).unwrap();
            let (_, name, raw) = fields.iter().next().unwrap();
            assert_eq!((name, serde_json::from_str::<String>(raw.get()).unwrap().as_str()), (read, read), "{escaped}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in r#"[\\u\\dDcC89aAfF"é]{0,40}"#) {
            let _ = json_text(text.as_bytes());
        }

        #[test]
        fn leaves_whole_text_alone(text in ".{0,30}") {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(json_text(json.as_bytes()), json.as_str());
        }
    }
}
