//! Records and EndpointSlices as a Kitex server, a person and an ideal bridge write them.
//!
//! Owns keys, values and objects. Refuses to send them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::api::ObjectMeta;
use serde_json::Value;

pub const PORT: u16 = 8888;
/// The manager of slices that a bridge writes. The policy of the operator's ServiceAccount admits no other.
pub const BRIDGE: &str = "twinspan.dev";
/// The manager of slices that are to be exported.
pub const SOURCE: &str = "bench.example";
pub const MANAGER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The tag by which a record tells that a bridge wrote it.
const OWNER_TAG: &str = "twinspan.dev/owner";
/// The first of the addresses of instances, which nobody answers.
const FIRST: u32 = u32::from_be_bytes([10, 128, 0, 1]);

/// The services of one bridge: a namespace, and a prefix in the registry.
#[derive(Clone, Debug)]
pub struct Place {
    pub namespace: String,
    pub prefix: String,
}

impl Place {
    pub fn new(namespace: &str, prefix: &str) -> Self {
        Self { namespace: namespace.to_owned(), prefix: prefix.to_owned() }
    }

    pub fn key(&self, service: &str, address: Ipv4Addr) -> String {
        format!("{}/{service}/{address}:{PORT}", self.prefix)
    }

    /// Service and address of a key; none for a key of another form.
    pub fn read_key(&self, key: &[u8]) -> Option<(String, Ipv4Addr)> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?.strip_prefix('/')?;
        let (service, address) = rest.split_once('/')?;
        let (address, _) = address.rsplit_once(':')?;
        Some((service.to_owned(), address.parse().ok()?))
    }
}

/// The n-th address of an instance.
pub fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::from(FIRST + u32::try_from(n).unwrap_or_default())
}

/// The value of a record without tags, or with that of a bridge.
pub fn value(address: Ipv4Addr, owner: Option<&str>) -> String {
    let tags = owner.map_or("null".to_owned(), |owner| format!(r#"{{"{OWNER_TAG}":"{owner}"}}"#));
    format!(r#"{{"network":"tcp","address":"{address}:{PORT}","weight":10,"tags":{tags}}}"#)
}

/// True if a server wrote the record, and not a bridge.
pub fn is_foreign(value: &[u8]) -> bool {
    serde_json::from_slice::<Value>(value)
        .is_ok_and(|value| value["address"].is_string() && value["tags"][OWNER_TAG].is_null())
}

/// The description of a slice.
#[derive(Clone, Debug)]
pub struct Slice<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub service: &'a str,
    pub manager: &'a str,
    /// None for one that does not exist yet.
    pub version: Option<String>,
}

impl Slice<'_> {
    pub fn with(&self, addresses: impl IntoIterator<Item = Ipv4Addr>) -> EndpointSlice {
        let labels = [(SERVICE_LABEL, self.service), (MANAGER_LABEL, self.manager)];
        let labels: BTreeMap<String, String> = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let ready = EndpointConditions { ready: Some(true), serving: Some(true), terminating: Some(false) };
        let endpoint = |address: Ipv4Addr| Endpoint {
            addresses: vec![address.to_string()],
            conditions: Some(ready.clone()),
            ..Endpoint::default()
        };
        let port = EndpointPort {
            name: Some("rpc".to_owned()),
            port: Some(i32::from(PORT)),
            protocol: Some("TCP".to_owned()),
            ..EndpointPort::default()
        };
        EndpointSlice {
            address_type: "IPv4".to_owned(),
            endpoints: addresses.into_iter().map(endpoint).collect(),
            metadata: ObjectMeta {
                name: Some(self.name.to_owned()),
                namespace: Some(self.namespace.to_owned()),
                labels: Some(labels),
                resource_version: self.version.clone(),
                ..ObjectMeta::default()
            },
            ports: Some(vec![port]),
        }
    }
}

pub fn addresses(slice: &EndpointSlice) -> impl Iterator<Item = Ipv4Addr> {
    slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses).filter_map(|address| address.parse().ok())
}

pub fn label<'a>(slice: &'a EndpointSlice, name: &str) -> &'a str {
    slice.metadata.labels.as_ref().and_then(|labels| labels.get(name)).map_or("", String::as_str)
}

pub fn name(slice: &EndpointSlice) -> &str {
    slice.metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let place = Place::new("shop", "bench/shop");
        let key = place.key("echo", address(1));
        assert_eq!(key, "bench/shop/echo/10.128.0.2:8888");
        assert_eq!(place.read_key(key.as_bytes()), Some(("echo".to_owned(), address(1))));
        assert_eq!(place.read_key(b"bench/shopping/echo/10.128.0.2:8888"), None);
    }

    #[test]
    fn a_bridge_tells_its_own_records_from_those_of_servers() {
        assert!(is_foreign(value(address(1), None).as_bytes()));
        assert!(!is_foreign(value(address(1), Some("bench/shop/echo")).as_bytes()));
        assert!(!is_foreign(b"{"));
    }

    #[test]
    fn a_slice_has_the_addresses_that_it_was_given() {
        let slice = Slice { namespace: "shop", name: "a", service: "echo", manager: SOURCE, version: None };
        let slice = slice.with([address(0), address(299)]);
        assert_eq!(addresses(&slice).collect::<Vec<_>>(), [address(0), address(299)]);
        assert_eq!((label(&slice, SERVICE_LABEL), name(&slice)), ("echo", "a"));
    }
}
