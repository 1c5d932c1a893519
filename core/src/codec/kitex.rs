//! Kitex: JSON values as kitex-contrib/registry-etcd v0.2.6 writes and reads them (`etcd_registry.go`, `etcd_resolver.go`).
//!
//! Owns the value. A value is an object of `network`, `address`, `weight`, `tags`; the reader is Go's `encoding/json`, which is
//! laxer than most: field names match in any case, a field that comes twice counts the last time, `null` leaves a field as
//! it was, unknown fields are ignored, and invalid UTF-8 becomes U+FFFD. It is also stricter: `10.0` and `"10"` are no
//! integers, and one wrong field makes the whole record unreadable.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::value::RawValue;

use crate::model::{Registration, Tags};

/// What registry-etcd uses where nobody sets a prefix.
pub const DEFAULT_PREFIX: &str = "kitex/registry-etcd";
/// What readers make of a weight of 0 or less (`defaultWeight` in `etcd_resolver.go`).
pub const DEFAULT_WEIGHT: i64 = 10;

/// Longest explanation kept for a value that does not decode, in characters: values come from strangers.
const MAX_EXPLANATION: usize = 120;

/// Why a value does not decode, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable(pub String);

/// # Errors
/// [`Undecodable`] where a Kitex reader would skip the record with a warning.
pub fn decode(value: &[u8]) -> Result<Registration, Undecodable> {
    let text = as_go_reads(value);
    serde_json::from_str::<Value>(&text)
        .map(|v| v.0)
        .map_err(|e| Undecodable(e.to_string().chars().take(MAX_EXPLANATION).collect()))
}

pub fn encode(registration: &Registration) -> Vec<u8> {
    // Writing to memory fails only for maps whose keys are no strings; ours are.
    serde_json::to_vec(&Encoded(registration)).unwrap_or_default()
}

/// Each invalid byte becomes one U+FFFD, as Go's `utf8.DecodeRune` has it.
fn as_go_reads(value: &[u8]) -> Cow<'_, str> {
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

struct Encoded<'a>(&'a Registration);

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("instanceInfo", 4)?;
        object.serialize_field("network", &self.0.network)?;
        object.serialize_field("address", &self.0.address)?;
        object.serialize_field("weight", &self.0.weight)?;
        object.serialize_field("tags", &self.0.tags)?;
        object.end()
    }
}

struct Value(Registration);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with network, address, weight and tags")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value(Registration::default()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut found = Registration::default();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match fold(&name).as_str() {
                "network" => set(map.next_value()?, &mut found.network)?,
                "address" => set(map.next_value()?, &mut found.address)?,
                "weight" => set_integer(map.next_value()?, &mut found.weight)?,
                "tags" => set_tags(map.next_value()?, &mut found.tags)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value(found))
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

fn set<E: serde::de::Error>(raw: &RawValue, field: &mut String) -> Result<(), E> {
    if let Some(text) = serde_json::from_str::<Option<String>>(raw.get()).map_err(E::custom)? {
        *field = text;
    }
    Ok(())
}

fn set_integer<E: serde::de::Error>(raw: &RawValue, field: &mut i64) -> Result<(), E> {
    if raw.get() != "null" {
        *field = raw.get().parse().map_err(|_| E::custom(format_args!("weight {} is no integer", raw.get())))?;
    }
    Ok(())
}

fn set_tags<E: serde::de::Error>(raw: &RawValue, field: &mut Tags) -> Result<(), E> {
    type Given = std::collections::BTreeMap<String, Option<String>>;
    match serde_json::from_str::<Option<Given>>(raw.get()).map_err(|e| E::custom(format_args!("tags: {e}")))? {
        None => field.clear(),
        Some(given) => field.extend(given.into_iter().map(|(tag, text)| (tag, text.unwrap_or_default()))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn registration(address: &str, weight: i64, tags: &[(&str, &str)]) -> Registration {
        Registration {
            network: "tcp".into(),
            address: address.into(),
            weight,
            tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn writes_what_a_kitex_server_writes() {
        assert_eq!(
            String::from_utf8(encode(&registration("10.0.0.1:8888", 10, &[("b", "2"), ("a", "1")]))).unwrap(),
            r#"{"network":"tcp","address":"10.0.0.1:8888","weight":10,"tags":{"a":"1","b":"2"}}"#
        );
    }

    #[test]
    fn reads_fields_as_encoding_json_does() {
        let good = registration("10.0.0.1:8888", 7, &[("a", "")]);
        for text in [
            r#"{"network":"tcp","address":"10.0.0.1:8888","weight":7,"tags":{"a":""}}"#,
            r#"{"NETWORK":"tcp","addreſſ":"10.0.0.1:8888","Weight":7,"tags":{"a":null}}"#,
            r#"{"network":"tcp","address":"x","address":"10.0.0.1:8888","address":null,"weight":7,"tags":{"b":"1"},"tags":null,"tags":{"a":"x"},"tags":{"a":""}}"#,
            " {\"weight\":7,\n\"tags\":{\"a\":\"\"},\"address\":\"10.0.0.1:8888\",\"extra\":[{\"weight\":\"x\"}],\"networK\":\"tcp\"}\n",
        ] {
            assert_eq!(decode(text.as_bytes()), Ok(good.clone()), "{text}");
        }
        assert_eq!(decode(b"{\"weight\":-0}"), Ok(Registration::default()));
        assert_eq!(decode(b"null"), Ok(Registration::default()));
        assert_eq!(decode(b"{\"tags\":{\"a\":\"\xff\xfe\"}}").unwrap().tags["a"], "\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_wrong_field_makes_the_record_unreadable() {
        for text in [
            "",
            "{",
            "{}x",
            "\u{feff}{}",
            "[]",
            "7",
            "\"x\"",
            r#"{"weight":"10"}"#,
            r#"{"weight":10.0}"#,
            r#"{"weight":1e1}"#,
            r#"{"weight":99999999999999999999}"#,
            r#"{"address":1}"#,
            r#"{"tags":[]}"#,
            r#"{"tags":{"a":1}}"#,
        ] {
            assert!(decode(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_explanation_is_bounded() {
        let Undecodable(why) = decode(format!("{{\"address\":{}}}", "9".repeat(10_000)).as_bytes()).unwrap_err();
        assert!(why.chars().count() <= MAX_EXPLANATION, "{why}");
    }

    proptest! {
        #[test]
        fn round_trips(network in "[a-z0-9]{0,5}", address in ".{0,30}", weight: i64, tags in prop::collection::btree_map(".{0,8}", ".{0,8}", 0..4)) {
            let registration = Registration { network, address, weight, tags };
            prop_assert_eq!(decode(&encode(&registration)), Ok(registration));
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn never_panics_near_the_grammar(text in r#"[{}\[\]":,a-z0-9\\ue. ]{0,60}"#) {
            let _ = decode(text.as_bytes());
        }
    }
}
