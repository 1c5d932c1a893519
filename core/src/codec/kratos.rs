//! Kratos: JSON values as go-kratos/kratos contrib/registry/etcd v2 (at kratos v2.9.2: `registry.go`, `service.go`) writes and
//! reads them.
//!
//! Owns the value, an object of `id`, `name`, `version`, `metadata`, `endpoints`. One value that does not decode fails a Kratos
//! reader's whole look-up, and `null` ends its process: what is written here is always a whole object.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::{Undecodable, go_json};
use crate::model::Registration;

/// The namespace that Kratos uses where nobody sets one.
pub const PREFIX: &str = "/microservices";
/// The scheme that is asked for where a port names none: what Kratos' gRPC client looks for.
pub const DEFAULT_SCHEME: &str = "grpc";
/// The key of `metadata` whose value is the weight, as decimal text (`selector/default_node.go`).
const WEIGHT: &str = "weight";

/// Fields that only Kratos has; they are in [`Registration::rest`].
pub const ID: &str = "id";
pub const NAME: &str = "name";
pub const VERSION: &str = "version";

/// # Errors
/// [`Undecodable`] where a Kratos reader would fail its look-up, and for `null`, which would end it.
pub fn decode(value: &[u8]) -> Result<Registration, Undecodable> {
    let text = go_json::text(value);
    if text.trim() == "null" {
        return Err(Undecodable("null, which ends the process of a Kratos reader".to_owned()));
    }
    let mut found = Registration { network: "tcp".to_owned(), ..Registration::default() };
    let [mut id, mut name, mut version] = [const { String::new() }; 3];
    for (field, written, raw) in go_json::fields(&text)?.iter() {
        match field.as_str() {
            "id" => go_json::set(ID, raw, &mut id)?,
            "name" => go_json::set(NAME, raw, &mut name)?,
            "version" => go_json::set(VERSION, raw, &mut version)?,
            "metadata" => go_json::set_map("metadata", raw, &mut found.tags)?,
            "endpoints" => endpoints(raw, &mut found.endpoints)?,
            _ => go_json::keep(written, raw, &mut found.rest),
        }
    }
    found.weight = found.tags.get(WEIGHT).and_then(|weight| weight.parse().ok()).unwrap_or_default();
    for (field, text) in [(ID, id), (NAME, name), (VERSION, version)] {
        found.rest.insert(field.to_owned(), Value::String(text));
    }
    Ok(found)
}

/// A `null` among the endpoints is an empty text to Go.
fn endpoints(raw: &serde_json::value::RawValue, field: &mut Vec<String>) -> Result<(), Undecodable> {
    let mut given: Option<Vec<Option<String>>> = None;
    go_json::set("endpoints", raw, &mut given)?;
    *field = given.unwrap_or_default().into_iter().map(Option::unwrap_or_default).collect();
    Ok(())
}

/// A text field of [`Registration::rest`].
pub fn text<'a>(registration: &'a Registration, field: &str) -> &'a str {
    registration.rest.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The weight is written where the registration has one besides what its metadata say.
pub fn encode(registration: &Registration) -> Vec<u8> {
    // Writing to memory fails only for maps whose keys are no strings; ours are.
    serde_json::to_vec(&Encoded(registration)).unwrap_or_default()
}

/// The metadata of a registration with this weight.
pub fn weighted(mut registration: Registration) -> Registration {
    registration.tags.insert(WEIGHT.to_owned(), registration.weight.to_string());
    registration
}

/// Scheme and `host:port` of an endpoint. Text without a scheme has none (`url.Parse` of Go fails on `10.0.0.1:9000`, and the
/// reader passes over it).
pub fn split(endpoint: &str) -> (&str, &str) {
    let Some((scheme, rest)) = endpoint.split_once("://") else { return ("", endpoint) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    (scheme, authority)
}

struct Encoded<'a>(&'a Registration);

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        for field in [ID, NAME, VERSION] {
            object.serialize_entry(field, text(self.0, field))?;
        }
        object.serialize_entry("metadata", &self.0.tags)?;
        object.serialize_entry("endpoints", &self.0.endpoints)?;
        for (field, value) in self.0.rest.iter().filter(|(field, _)| ![ID, NAME, VERSION].contains(&field.as_str())) {
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

    #[test]
    fn reads_and_writes_what_a_server_writes() {
        let value = r#"{"id":"fixed-id","name":"g.echo","version":"v1.2.3","metadata":{"a":"1","weight":"25"},"endpoints":["http://127.0.0.1:18803","grpc://127.0.0.1:18801"]}"#;
        let found = decode(value.as_bytes()).unwrap();
        assert_eq!((found.network.as_str(), found.weight), ("tcp", 25));
        assert_eq!(found.endpoints, ["http://127.0.0.1:18803", "grpc://127.0.0.1:18801"]);
        assert_eq!((text(&found, ID), text(&found, NAME), text(&found, VERSION)), ("fixed-id", "g.echo", "v1.2.3"));
        assert_eq!(String::from_utf8(encode(&found)).unwrap(), value);
    }

    #[test]
    fn endpoints_have_a_scheme_or_are_no_endpoints() {
        for (endpoint, scheme, address) in [
            ("grpc://10.0.0.1:9000", "grpc", "10.0.0.1:9000"),
            ("https://[2001:db8::1]:8443", "https", "[2001:db8::1]:8443"),
            ("grpc://10.0.0.1:9000?isSecure=true", "grpc", "10.0.0.1:9000"),
            ("http://10.0.0.1:8000/path", "http", "10.0.0.1:8000"),
            ("10.0.0.1:9000", "", "10.0.0.1:9000"),
            ("", "", ""),
        ] {
            assert_eq!(split(endpoint), (scheme, address), "{endpoint}");
        }
    }

    #[test]
    fn what_would_fail_or_end_a_reader_does_not_decode() {
        for text in [
            "",
            "null",
            " null ",
            "[]",
            "7",
            "{}x",
            r#"{"endpoints":{}}"#,
            r#"{"metadata":{"weight":25}}"#,
            r#"{"id":7}"#,
        ] {
            assert!(decode(text.as_bytes()).is_err(), "{text}");
        }
        let odd = decode(br#"{"endpoints":[null,"grpc://10.0.0.1:1"],"metadata":{"weight":"heavy"}}"#).unwrap();
        assert_eq!((odd.endpoints.len(), odd.weight), (2, 0));
    }

    proptest! {
        #[test]
        fn round_trips(
            texts in prop::array::uniform3(".{0,12}"),
            endpoints in prop::collection::vec(".{0,30}", 0..4),
            mut tags in prop::collection::btree_map("[a-v]{1,8}", ".{0,8}", 0..4),
            weight: i64,
            mut rest in prop::collection::btree_map("x[a-z]{1,8}", arbitrary_json_value(), 0..3),
        ) {
            tags.insert(WEIGHT.to_owned(), weight.to_string());
            for (field, text) in [ID, NAME, VERSION].iter().zip(texts) {
                rest.insert((*field).to_owned(), Value::String(text));
            }
            let registration = Registration { network: "tcp".to_owned(), endpoints, weight, tags, rest };
            prop_assert_eq!(decode(&encode(&registration)), Ok(registration));
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn never_panics_near_the_grammar(text in r#"[{}\[\]":,a-z0-9\\ue./ ]{0,60}"#) {
            if let Ok(found) = decode(text.as_bytes()) {
                found.endpoints.iter().for_each(|endpoint| { split(endpoint); });
            }
        }
    }
}
