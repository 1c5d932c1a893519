//! GoFrame: keys that hold the addresses, and a JSON object of metadata as value, as gogf/gf v2.10.0 (`net/gsvc`,
//! `contrib/registry/etcd/v2` v2.9.0) writes and reads them.
//!
//! Owns the key `prefix/deployment/namespace/name/version/addresses`, of which the first three parts are the prefix,
//! and the value. One key that does not parse, or a value that is no object, fails a reader's whole lookup, and an
//! address with more or fewer than one colon ends its process (`gsvc.NewEndpoint`): no record with an IPv6 address is
//! exported. Clients merge the records of a version and keep the metadata of the first one alone, so a weight does not
//! tell one instance from another. Refuses to know prefixes in force, which are the layout's.

use std::collections::BTreeMap;

use serde_json::Value;

use super::framework::{Framework, Undecodable};
use super::go_json;
use super::mark::marked;
use crate::model::{Instance, Owner, Registration, RegistryName};

/// The metadata that selectors read (`gsvc.MDWeight`).
const WEIGHT: &str = "weight";

#[derive(Debug)]
pub struct GoFrame;

impl Framework for GoFrame {
    fn name(&self) -> &'static str {
        "GoFrame"
    }

    fn default_prefix(&self) -> &'static str {
        "/service/default/default"
    }

    /// Prefix, deployment and namespace: readers count the parts of a key.
    fn prefix_pattern(&self) -> Option<&'static str> {
        Some("^/[^/]+/[^/]+/[^/]+$")
    }

    fn has_leading_slash(&self) -> bool {
        true
    }

    /// The key of a server that registers this address alone: such a server takes the record over.
    fn last_segment(&self, _owner: &Owner, instance: &Instance) -> String {
        instance.addr.to_string()
    }

    fn is_last_segment(&self, _owner: &Owner, instance: &Instance, text: &[u8]) -> bool {
        instance.addr.is_written(text)
    }

    /// The version of servers that name none (`gsvc.DefaultVersion`).
    fn directory(&self) -> &'static str {
        "latest/"
    }

    fn key_is_address(&self) -> bool {
        true
    }

    /// The metadata. An empty value is none of them.
    fn decode(&self, value: &[u8]) -> Result<Registration, Undecodable> {
        let mut found = Registration { network: "tcp".to_owned(), ..Registration::default() };
        if value.is_empty() {
            return Ok(found);
        }
        let text = go_json::json_text(value);
        let mut metadata = BTreeMap::new();
        for (_, name, raw) in go_json::fields(&text)?.iter() {
            // The names are keys of a map, so their case counts; the last one of a name wins.
            go_json::keep(name, raw, &mut metadata);
        }
        for (name, value) in metadata {
            match value {
                Value::String(text) => drop(found.tags.insert(name, text)),
                value => match value.as_i64().filter(|weight| name == WEIGHT && *weight != 0) {
                    Some(weight) => found.weight = weight,
                    None => drop(found.rest.insert(name, value)),
                },
            }
        }
        Ok(found)
    }

    /// Without a weight where it is 0. The names are sorted, as Go sorts the keys of a map.
    fn encode(&self, registration: &Registration) -> Vec<u8> {
        let Registration { weight, tags, rest, .. } = registration;
        let mut metadata: BTreeMap<&str, Value> =
            rest.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        metadata.extend(tags.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))));
        if *weight != 0 {
            metadata.insert(WEIGHT, Value::from(*weight));
        }
        // Writing to memory fails only for maps whose keys are not strings; these keys are.
        serde_json::to_vec(&metadata).unwrap_or_default()
    }

    /// The part behind the version. Readers cut slashes off both ends of a key, and empty addresses out of the list.
    fn key_endpoints(&self, below: &[u8]) -> Result<Option<Vec<String>>, Undecodable> {
        let below = String::from_utf8_lossy(below);
        let mut parts = below.trim_end_matches('/').split('/').skip(1);
        let list =
            parts.next().ok_or_else(|| Undecodable("a key without a version or without addresses".to_owned()))?;
        let addresses: Vec<&str> = list.split(',').map(str::trim).filter(|address| !address.is_empty()).collect();
        let is_sound = |address: &&str| {
            let parts = address.split(':').map(str::trim).filter(|part| !part.is_empty());
            parts.count() == 2
        };
        match addresses.iter().find(|address| !is_sound(address)) {
            Some(odd) => Err(Undecodable(format!("{odd} ends the process of a GoFrame reader, which wants host:port"))),
            None => Ok(Some(addresses.into_iter().map(ToOwned::to_owned).collect())),
        }
    }

    /// A server that listens on all interfaces has an address for each, and clients take them for as many servers.
    fn dials_every_address(&self) -> bool {
        true
    }

    fn bears_ipv6(&self) -> bool {
        false
    }

    fn has_tags(&self) -> bool {
        true
    }

    fn registration(&self, _name: &RegistryName, owner: &Owner, instance: &Instance) -> Registration {
        let mut tags = instance.tags.as_ref().clone();
        // One word of the metadata cannot be both.
        tags.remove(WEIGHT);
        let plain =
            Registration { network: "tcp".to_owned(), weight: instance.weight, tags, ..Registration::default() };
        marked(Registration { endpoints: vec![instance.addr.to_string()], ..plain }, owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::testing::arbitrary_json_value;
    use crate::codec::{Format, Layout};
    use crate::model::{Content, InstanceAddr, LeaseId, Listener, RawRecord, Reason, ServiceKey, Tags};
    use proptest::prelude::*;

    fn layout() -> Layout {
        Layout::new(Format::GoFrame, Format::GoFrame.default_prefix())
    }

    fn listeners(key: &str, value: &str) -> Result<Vec<Listener>, String> {
        let raw = RawRecord { key: key.into(), value: value.into(), mod_revision: 1, lease: LeaseId(1) };
        match layout().decode(&raw).content {
            Content::Registered { listeners, .. } => Ok(listeners),
            Content::Undecodable { why, .. } => Err(why),
        }
    }

    #[test]
    fn a_key_holds_the_addresses_and_the_value_the_metadata() {
        let key = "/service/default/default/echo/latest/10.0.0.1:8000,192.0.2.1:8000";
        let found = listeners(key, r#"{"insecure":true,"protocol":"http"}"#).unwrap();
        let addresses: Vec<_> = found.iter().map(|listener| listener.addr.map(|addr| addr.to_string())).collect();
        assert_eq!(addresses, [Ok("10.0.0.1:8000".to_owned()), Ok("192.0.2.1:8000".to_owned())]);
        let loopback = listeners("/service/default/default/echo/v1.2/127.0.0.1:80", "").unwrap();
        assert_eq!(loopback[0].addr, Err(Reason::LoopbackAddress));
        let metadata = GoFrame.decode(br#"{"weight":25,"zone":"eu-1","insecure":true,"Zone":null}"#).unwrap();
        assert_eq!((metadata.weight, metadata.tags.get("zone").map(String::as_str)), (25, Some("eu-1")));
        assert_eq!(metadata.rest.keys().collect::<Vec<_>>(), ["Zone", "insecure"]);
        assert_eq!(GoFrame.encode(&metadata), br#"{"Zone":null,"insecure":true,"weight":25,"zone":"eu-1"}"#);
    }

    #[test]
    fn what_would_fail_or_end_a_reader_does_not_decode() {
        for (below, value) in [
            ("latest", "{}"),
            ("latest/", "{}"),
            ("latest/fd77::1:80", "{}"),
            ("latest/[fd77::1]:80", "{}"),
            ("latest/10.0.0.1", "{}"),
            ("latest/10.0.0.1:80,:81", "{}"),
            ("latest/10.0.0.1:80", "[]"),
            ("latest/10.0.0.1:80", "x"),
        ] {
            let why = listeners(&format!("/service/default/default/echo/{below}"), value).unwrap_err();
            assert!(!why.is_empty(), "{below} {value}");
        }
        assert!(listeners("/service/default/default/echo/latest/10.0.0.1:80", "null").is_ok());
    }

    #[test]
    fn a_record_of_ours_lies_with_those_of_the_default_version() {
        let owner = Owner { cluster_id: "c-1".into(), service: ServiceKey::new("shop", "echo") };
        let name = RegistryName::new("echo").unwrap();
        let tags = Tags::from_iter([("lane".to_owned(), "blue".to_owned()), (WEIGHT.to_owned(), "heavy".to_owned())]);
        let instance = Instance::single(InstanceAddr::parse("10.0.0.1:80").unwrap(), 7, tags);
        let key = layout().key(&name, &owner, &instance);
        assert_eq!(key.to_string(), "/service/default/default/echo/latest/10.0.0.1:80");
        assert!(layout().may_hold_ours(&key));
        assert!(!layout().may_hold_ours(&"/service/default/default/echo/v2/10.0.0.1:80".into()));
        assert!(!layout().may_hold_ours(&"/service/default/default/echo/latest/10.0.0.1:80/more".into()));
        let value = layout().encode(&layout().registration(&name, &owner, &instance));
        let expected = r#"{"lane":"blue","twinspan.dev/owner":"c-1/shop/echo","weight":7}"#;
        assert_eq!(String::from_utf8(value).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn round_trips(
            tags in prop::collection::btree_map("[a-v]{1,8}", ".{0,8}", 0..4),
            weight: i64,
            rest in prop::collection::btree_map("x[a-z]{1,8}", arbitrary_json_value(), 0..3),
        ) {
            let rest = rest.into_iter().filter(|(_, value)| !value.is_string()).collect();
            let tags = tags.into_iter().filter(|(name, _)| name != WEIGHT).collect();
            let registration =
                Registration { network: "tcp".to_owned(), endpoints: Vec::new(), weight, tags, rest };
            prop_assert_eq!(GoFrame.decode(&GoFrame.encode(&registration)), Ok(registration));
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = GoFrame.decode(&bytes);
            let _ = GoFrame.key_endpoints(&bytes);
        }

        #[test]
        fn never_panics_near_the_grammar(text in r"[/a-z0-9.:,\[\] ]{0,40}") {
            let _ = GoFrame.key_endpoints(text.as_bytes());
        }
    }
}
