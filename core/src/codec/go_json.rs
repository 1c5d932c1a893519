//! JSON objects as Go's `encoding/json` reads them. The frameworks that write JSON all use it, or a library that
//! behaves the same.
//!
//! Owns the laxness and the strictness that the codecs share: field names match in any case, the last of several equal
//! fields wins, `null` leaves a field unchanged (and a whole value of `null` is an empty object), unknown fields are
//! ignored, invalid UTF-8 becomes U+FFFD; but `10.0` and `"10"` are not integers, and one wrong field makes the whole
//! value unreadable. Hertz' sonic behaves so with its default settings (seen with v1.15.0, see the golden data).
//! Refuses to know any field.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::framework::Undecodable;

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

/// # Errors
/// [`Undecodable`] where the text is neither an object nor `null`.
pub fn fields(text: &str) -> Result<Fields<'_>, Undecodable> {
    serde_json::from_str(text).map_err(|error| undecodable(&error))
}

impl<'a> Fields<'a> {
    /// Each field with its folded name, for comparison, and its name as written.
    pub fn iter(&self) -> impl Iterator<Item = (String, &str, &'a RawValue)> {
        self.0.iter().map(|(name, raw)| (fold(name), name.as_ref(), *raw))
    }
}

/// Go compares field names under simple case folding (`foldName` in `encoding/json`).
fn fold(name: &str) -> String {
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
pub fn set_map(name: &str, raw: &RawValue, field: &mut BTreeMap<String, String>) -> Result<(), Undecodable> {
    type Given = BTreeMap<String, Option<String>>;
    let given: Option<Given> =
        serde_json::from_str(raw.get()).map_err(|error| undecodable(&format_args!("{name}: {error}")))?;
    match given {
        None => field.clear(),
        Some(given) => field.extend(given.into_iter().map(|(key, text)| (key, text.unwrap_or_default()))),
    }
    Ok(())
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
        while let Some(field) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
            fields.push(field);
        }
        Ok(Fields(fields))
    }
}
