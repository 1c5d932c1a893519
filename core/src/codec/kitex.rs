//! Kitex: JSON values as kitex-contrib/registry-etcd v0.2.6 (`etcd_registry.go`, `etcd_resolver.go`) writes and reads
//! them.
//!
//! Owns the prefix, the key, and the value, an object of `network`, `address`, `weight`, `tags`. Refuses to know that
//! Hertz calls the codec of the value for its own records.

use jiff::SignedDuration;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::framework::{Framework, Undecodable};
use super::go_json;
use crate::model::{Instance, OWNER_TAG, Owner, Registration, RegistryName};

#[derive(Debug)]
pub struct Kitex;

impl Framework for Kitex {
    fn name(&self) -> &'static str {
        "Kitex"
    }

    fn default_prefix(&self) -> &'static str {
        "kitex/registry-etcd"
    }

    /// registry-etcd formats `prefix/name`, and its deprecated constructors have an empty prefix.
    fn has_leading_slash(&self) -> bool {
        true
    }

    /// The key of a server that registers this address: such a server takes the record over, and removes it when it
    /// leaves.
    fn last_segment(&self, _owner: &Owner, instance: &Instance) -> String {
        instance.addr.to_string()
    }

    fn is_last_segment(&self, _owner: &Owner, instance: &Instance, text: &[u8]) -> bool {
        instance.addr.is_written(text)
    }

    fn key_is_address(&self) -> bool {
        true
    }

    fn decode(&self, value: &[u8]) -> Result<Registration, Undecodable> {
        decode(value)
    }

    fn encode(&self, registration: &Registration) -> Vec<u8> {
        encode(registration)
    }

    fn has_tags(&self) -> bool {
        true
    }

    fn weight(&self, registration: &Registration) -> Option<i64> {
        Some(weight(registration))
    }

    fn clients_learn_within(&self) -> SignedDuration {
        POLLED
    }

    fn says(&self, _name: &RegistryName, owner: &Owner, instance: &Instance, says: &Registration) -> bool {
        self::says(owner, instance, says)
    }
}

/// Clients of Kitex ask the registry every 5 s (`pkg/loadbalance/lbcache/cache.go`), and so do those of Hertz
/// (`pkg/app/client/loadbalance/loadbalance.go`); half a second is a margin.
pub const POLLED: SignedDuration = SignedDuration::from_millis(5_500);

/// # Errors
/// [`Undecodable`] where a reader would skip the record with a warning.
pub fn decode(value: &[u8]) -> Result<Registration, Undecodable> {
    let text = go_json::json_text(value);
    let mut found = Registration::default();
    let mut address = String::new();
    for (name, written, raw) in go_json::fields(&text)?.iter() {
        match name.as_ref() {
            "network" => go_json::set("network", raw, &mut found.network)?,
            "address" => go_json::set("address", raw, &mut address)?,
            "weight" => go_json::set_integer("weight", raw, &mut found.weight)?,
            "tags" => go_json::set_map("tags", raw, &mut found.tags)?,
            _ => go_json::keep(written, raw, &mut found.rest),
        }
    }
    found.endpoints = vec![address];
    Ok(found)
}

pub fn encode(registration: &Registration) -> Vec<u8> {
    // Writing to memory fails only for maps whose keys are not strings; these keys are.
    serde_json::to_vec(&Encoded(registration)).unwrap_or_default()
}

/// Whether a registration is the one of an own record, without making that one: each pass asks it of every instance.
pub fn says(owner: &Owner, instance: &Instance, says: &Registration) -> bool {
    let Registration { network, endpoints, weight, tags, rest } = says;
    let others = tags.iter().filter(|(tag, _)| *tag != OWNER_TAG);
    network == "tcp"
        && matches!(endpoints.as_slice(), [address] if instance.addr.is_written(address.as_bytes()))
        && *weight == instance.weight
        && tags.get(OWNER_TAG).is_some_and(|text| owner.is_written(text))
        && others.eq(instance.tags.iter().filter(|(tag, _)| *tag != OWNER_TAG))
        && rest.is_empty()
}

/// The weight that a reader takes: without one the default of its resolver.
pub fn weight(registration: &Registration) -> i64 {
    const DEFAULT: i64 = 10;
    if registration.weight > 0 { registration.weight } else { DEFAULT }
}

struct Encoded<'a>(&'a Registration);

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("network", &self.0.network)?;
        object.serialize_entry("address", self.0.endpoints.first().map_or("", String::as_str))?;
        object.serialize_entry("weight", &self.0.weight)?;
        object.serialize_entry("tags", &go_json::Map(&self.0.tags))?;
        for (field, value) in &self.0.rest {
            object.serialize_entry(field, value)?;
        }
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::testing::arbitrary_json_value;
    use proptest::prelude::*;

    fn registration(address: &str, weight: i64, tags: &[(&str, &str)]) -> Registration {
        Registration {
            network: "tcp".into(),
            endpoints: vec![address.into()],
            weight,
            tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Registration::default()
        }
    }

    #[test]
    fn writes_what_a_server_writes() {
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
            " {\"weight\":7,\n\"tags\":{\"a\":\"\"},\"address\":\"10.0.0.1:8888\",\"networK\":\"tcp\"}\n",
        ] {
            assert_eq!(decode(text.as_bytes()), Ok(good.clone()), "{text}");
        }
        let empty = Registration { endpoints: vec![String::new()], ..Registration::default() };
        assert_eq!(decode(b"{\"weight\":-0}"), Ok(empty.clone()));
        assert_eq!(decode(b"null"), Ok(empty));
        assert_eq!(decode(b"{\"tags\":{\"a\":\"\xff\xfe\"}}").unwrap().tags.get("a").unwrap(), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn unknown_fields_are_kept_apart_and_written_again() {
        let value =
            br#"{"network":"tcp","address":"10.0.0.1:8888","weight":7,"tags":{},"extra":[{"weight":"x"}],"Other":1}"#;
        let found = decode(value).unwrap();
        assert_eq!(found.rest.len(), 2);
        assert_eq!(decode(&encode(&found)), Ok(found));
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
    fn a_reader_takes_no_weight_for_the_default() {
        for (written, read) in [(7, 7), (0, 10), (-3, 10)] {
            assert_eq!(weight(&registration("10.0.0.1:8888", written, &[])), read);
        }
    }

    #[test]
    fn the_explanation_is_bounded() {
        let Undecodable(why) = decode(format!("{{\"address\":{}}}", "9".repeat(10_000)).as_bytes()).unwrap_err();
        assert!(why.chars().count() <= 120, "{why}");
    }

    proptest! {
        #[test]
        fn round_trips(
            network in "[a-z0-9]{0,5}",
            address in ".{0,30}",
            weight: i64,
            tags in prop::collection::btree_map(".{0,8}", ".{0,8}", 0..4),
            rest in prop::collection::btree_map("x[a-z]{1,8}", arbitrary_json_value(), 0..3),
        ) {
            let registration = Registration { network, endpoints: vec![address], weight, tags: tags.into_iter().collect(), rest };
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
