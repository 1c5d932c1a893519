//! Kratos: JSON values as go-kratos/kratos contrib/registry/etcd v2 (at kratos v2.9.2: `registry.go`, `service.go`)
//! writes and reads them.
//!
//! Owns the namespace, the key, the schemes of endpoints, and the value, an object of `id`, `name`, `version`,
//! `metadata`, `endpoints`. One value that does not decode fails a Kratos reader's whole lookup, and `null` ends its
//! process: this file always writes a whole object. Refuses to know prefixes in force, which are the layout's.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::framework::{Framework, Undecodable};
use super::go_json;
use super::mark::{key_owner, marked};
use crate::model::{Instance, Owner, Registration, RegistryName};

/// The key of `metadata` whose value is the weight, as decimal text (`selector/default_node.go`).
const WEIGHT: &str = "weight";

/// Fields of [`Registration::rest`] that only Kratos has.
pub const ID: &str = "id";
pub const NAME: &str = "name";
pub const VERSION: &str = "version";

#[derive(Debug)]
pub struct Kratos;

impl Framework for Kratos {
    fn name(&self) -> &'static str {
        "Kratos"
    }

    /// Kratos calls it the namespace.
    fn default_prefix(&self) -> &'static str {
        "/microservices"
    }

    /// Kratos formats `namespace/name`.
    fn has_leading_slash(&self) -> bool {
        true
    }

    /// One record stands for all ports of an IP.
    fn last_segment(&self, owner: &Owner, instance: &Instance) -> String {
        key_owner(owner, &instance.addr.ip())
    }

    /// Any text; many programs set it to the address of their HTTP server.
    fn key_is_address(&self) -> bool {
        false
    }

    /// Also refuses `null`, which would end a reader's process.
    fn decode(&self, value: &[u8]) -> Result<Registration, Undecodable> {
        let text = go_json::json_text(value);
        if text.trim() == "null" {
            return Err(Undecodable("null, which ends the process of a Kratos reader".to_owned()));
        }
        let mut found = Registration { network: "tcp".to_owned(), ..Registration::default() };
        let [mut id, mut name, mut version] = [const { String::new() }; 3];
        for (field, written, raw) in go_json::fields(&text)?.iter() {
            match field.as_ref() {
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

    /// The weight is written where the metadata name one.
    fn encode(&self, registration: &Registration) -> Vec<u8> {
        // Writing to memory fails only for maps whose keys are not strings; these keys are.
        serde_json::to_vec(&Encoded(registration)).unwrap_or_default()
    }

    fn has_schemes(&self) -> bool {
        true
    }

    /// The scheme that Kratos' gRPC client looks for.
    fn default_scheme(&self) -> &'static str {
        "grpc"
    }

    fn has_tags(&self) -> bool {
        true
    }

    /// Without one that is an integer, nodes of a selector have 100 (`selector/node/direct/direct.go`).
    fn weight(&self, registration: &Registration) -> Option<i64> {
        const DEFAULT: i64 = 100;
        let weight = registration.tags.get(WEIGHT).and_then(|weight| weight.parse::<i64>().ok());
        Some(weight.map_or(DEFAULT, |weight| weight.max(0)))
    }

    fn registration(&self, name: &RegistryName, owner: &Owner, instance: &Instance) -> Registration {
        let id = self.last_segment(owner, instance);
        let texts = [(ID, id.as_str()), (NAME, name.as_str()), (VERSION, "")];
        let mut registration = Registration {
            network: "tcp".to_owned(),
            endpoints: instance.endpoints.iter().map(|(scheme, addr)| format!("{scheme}://{addr}")).collect(),
            weight: instance.weight,
            tags: instance.tags.as_ref().clone(),
            rest: texts.into_iter().map(|(field, text)| (field.to_owned(), text.into())).collect(),
        };
        registration.tags.insert(WEIGHT.to_owned(), instance.weight.to_string());
        marked(registration, owner)
    }

    /// Text without a scheme has none: `url.Parse` of Go fails on `10.0.0.1:9000`, and the reader passes over it.
    fn split_endpoint<'a>(&self, endpoint: &'a str) -> (&'a str, &'a str) {
        let Some((scheme, rest)) = endpoint.split_once("://") else { return ("", endpoint) };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        (scheme, authority)
    }

    /// Readers filter by the name in the value.
    fn stated_name<'a>(&self, registration: &'a Registration) -> Option<&'a str> {
        Some(text(registration, NAME))
    }
}

/// Sets the endpoints. Go reads a `null` among them as an empty text.
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

struct Encoded<'a>(&'a Registration);

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        for field in [ID, NAME, VERSION] {
            object.serialize_entry(field, text(self.0, field))?;
        }
        object.serialize_entry("metadata", &go_json::Map(&self.0.tags))?;
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
        let found = Kratos.decode(value.as_bytes()).unwrap();
        assert_eq!((found.network.as_str(), found.weight), ("tcp", 25));
        assert_eq!(found.endpoints, ["http://127.0.0.1:18803", "grpc://127.0.0.1:18801"]);
        assert_eq!((text(&found, ID), text(&found, NAME), text(&found, VERSION)), ("fixed-id", "g.echo", "v1.2.3"));
        assert_eq!(String::from_utf8(Kratos.encode(&found)).unwrap(), value);
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
            assert_eq!(Kratos.split_endpoint(endpoint), (scheme, address), "{endpoint}");
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
            assert!(Kratos.decode(text.as_bytes()).is_err(), "{text}");
        }
        let odd = Kratos.decode(br#"{"endpoints":[null,"grpc://10.0.0.1:1"],"metadata":{"weight":"heavy"}}"#).unwrap();
        assert_eq!((odd.endpoints.len(), odd.weight), (2, 0));
    }

    #[test]
    fn a_reader_takes_no_weight_for_the_default() {
        for (metadata, read) in [
            (r#"{"weight":"25"}"#, 25),
            (r#"{"weight":"0"}"#, 0),
            (r#"{"weight":"-1"}"#, 0),
            (r#"{"weight":"heavy"}"#, 100),
            ("{}", 100),
        ] {
            let found = Kratos.decode(format!(r#"{{"metadata":{metadata}}}"#).as_bytes()).unwrap();
            assert_eq!(Kratos.weight(&found), Some(read), "{metadata}");
        }
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
            let tags = tags.into_iter().collect();
            let registration = Registration { network: "tcp".to_owned(), endpoints, weight, tags, rest };
            prop_assert_eq!(Kratos.decode(&Kratos.encode(&registration)), Ok(registration));
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Kratos.decode(&bytes);
        }

        #[test]
        fn never_panics_near_the_grammar(text in r#"[{}\[\]":,a-z0-9\\ue./ ]{0,60}"#) {
            if let Ok(found) = Kratos.decode(text.as_bytes()) {
                found.endpoints.iter().for_each(|endpoint| { Kratos.split_endpoint(endpoint); });
            }
        }
    }
}
