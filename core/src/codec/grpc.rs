//! gRPC: JSON values as `client/v3/naming/endpoints` of etcd v3.5 to v3.7 (`endpoints.go`, `internal/update.go`) writes
//! and reads them.
//!
//! Owns the key, and the value, an object of `Op`, `Addr`, `Metadata`. This file always writes `Metadata` as `null`:
//! client/v3 3.5 and 3.6 copy it into an address that grpc-go compares with `==`, and an object there ends the client's
//! process (etcd#19700, grpc-go#8225). Refuses to know prefixes in force, which are the layout's.

use serde_json::Value;

use super::framework::{Framework, Undecodable};
use super::go_json;
use super::mark::key_owner;
use crate::model::{Instance, Owner, Registration};

/// The field of [`Registration::rest`] that holds the data that a program attached to its address.
const METADATA: &str = "Metadata";

#[derive(Debug)]
pub struct Grpc;

impl Framework for Grpc {
    fn name(&self) -> &'static str {
        "GRPC"
    }

    fn default_prefix(&self) -> &'static str {
        ""
    }

    /// Keys start with the target, which is the name of the service.
    fn has_leading_slash(&self) -> bool {
        false
    }

    fn last_segment(&self, owner: &Owner, instance: &Instance) -> String {
        key_owner(owner, &instance.addr)
    }

    /// Any text below the target; an address by convention of the library's examples.
    fn key_is_address(&self) -> bool {
        false
    }

    fn decode(&self, value: &[u8]) -> Result<Registration, Undecodable> {
        let text = go_json::json_text(value);
        let mut found = Registration { network: "tcp".to_owned(), ..Registration::default() };
        let mut address = String::new();
        for (name, written, raw) in go_json::fields(&text)?.iter() {
            match name.as_ref() {
                // Readers ignore its value but not its type: `Operation` is a uint8.
                "op" => {
                    let mut op: u8 = 0;
                    go_json::set_integer("Op", raw, &mut op)?;
                }
                "addr" => go_json::set("Addr", raw, &mut address)?,
                "metadata" => go_json::keep(METADATA, raw, &mut found.rest),
                _ => go_json::keep(written, raw, &mut found.rest),
            }
        }
        found.rest.retain(|field, value| field != METADATA || !value.is_null());
        found.endpoints = vec![address];
        Ok(found)
    }

    fn encode(&self, registration: &Registration) -> Vec<u8> {
        let address = registration.endpoints.first().map_or("", String::as_str);
        format!(r#"{{"Op":0,"Addr":{},"Metadata":null}}"#, Value::from(address)).into_bytes()
    }

    /// `Metadata` could hold them, but an object there ends the processes of old clients.
    fn has_tags(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn writes_what_the_library_writes_and_never_an_object() {
        let mut registration = Grpc.decode(br#"{"Op":0,"Addr":"10.0.0.1:9090","Metadata":{"a":1}}"#).unwrap();
        assert_eq!(registration.rest.len(), 1);
        let written = r#"{"Op":0,"Addr":"10.0.0.1:9090","Metadata":null}"#;
        assert_eq!(String::from_utf8(Grpc.encode(&registration)).unwrap(), written);
        registration.rest.clear();
        assert_eq!(Grpc.decode(written.as_bytes()), Ok(registration));
    }

    #[test]
    fn reads_what_the_library_reads() {
        for (text, address) in [
            (r#"{"op":0,"addr":"10.0.0.1:9000","metadata":"m"}"#, Some("10.0.0.1:9000")),
            (r#"{"Op":1,"Addr":"10.0.0.1:9000"}"#, Some("10.0.0.1:9000")),
            (r#"{"Addr":"10.0.0.1:9000"}"#, Some("10.0.0.1:9000")),
            ("null", Some("")),
            (r#"{"Op":"0","Addr":"10.0.0.1:9000"}"#, None),
            (r#"{"Op":256,"Addr":"10.0.0.1:9000"}"#, None),
            (r#"{"Op":-1}"#, None),
            ("{}x", None),
        ] {
            let found = Grpc.decode(text.as_bytes()).ok().map(|r| r.endpoints[0].clone());
            assert_eq!(found.as_deref(), address, "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(address in ".{0,40}") {
            let registration = Registration { network: "tcp".to_owned(), endpoints: vec![address], ..Registration::default() };
            prop_assert_eq!(Grpc.decode(&Grpc.encode(&registration)), Ok(registration));
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Grpc.decode(&bytes);
        }

        #[test]
        fn never_panics_near_the_grammar(text in r#"[{}\[\]":,a-z0-9\\ue. ]{0,60}"#) {
            let _ = Grpc.decode(text.as_bytes());
        }
    }
}
