//! Properties of the whole codec: any bytes as keys and values, in every format and layout.
//!
//! Owns that decoding loses no record and makes none ours. Refuses to know single formats, whose files have properties
//! of their own.

use std::net::IpAddr;

use proptest::prelude::*;

use super::Format;
use super::testing::{US, layout, record, repeatable};
use crate::model::{
    Content, Instance, InstanceAddr, Kind, LeaseId, OWNER_TAG, Owner, RawRecord, RegistryName, ServiceKey, Tags,
};

/// An instance as the planners hand it over, in one format.
fn exported(format: Format) -> impl Strategy<Value = Instance> {
    let tags = prop::collection::btree_map("[ -~]{0,8}", ".{0,8}", 0..3);
    let schemes = prop::collection::btree_set("[a-z][a-z0-9+.-]{0,5}", 1..4);
    (any::<IpAddr>(), 1_u16..=u16::MAX, 1_i64..=10_000, tags, schemes).prop_filter_map(
        "no endpoint has this address",
        move |(ip, port, weight, mut tags, schemes)| {
            let addr = InstanceAddr::new(ip, port).ok()?;
            if ip.is_ipv6() && !format.bears_ipv6() {
                return None;
            }
            tags.retain(|tag, _| !tag.starts_with(crate::model::TAG_PREFIX) && tag != "weight");
            let schemes: Vec<String> =
                if format.has_schemes() { schemes.into_iter().collect() } else { vec![String::new()] };
            let endpoints = schemes.into_iter().map(|scheme| (scheme, addr)).collect();
            let carried = format.has_tags();
            Some(Instance {
                addr,
                endpoints,
                weight,
                tags: if carried { tags.into_iter().collect::<Tags>().into() } else { Default::default() },
            })
        },
    )
}

fn owner() -> impl Strategy<Value = Owner> {
    ("[a-z0-9-]{1,8}", "[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?", "[a-z0-9]([a-z0-9.-]{0,5}[a-z0-9])?")
        .prop_map(|(cluster_id, namespace, name)| Owner { cluster_id, service: ServiceKey::new(namespace, name) })
}

proptest! {
    #![proptest_config(repeatable(400))]

    #[test]
    fn any_bytes_are_a_record_of_their_own_and_an_undecodable_one_is_not_ours(
        (layout, raw) in layout().prop_flat_map(|layout| (Just(layout.clone()), record(layout))),
    ) {
        let decoded = layout.decode(&raw);
        prop_assert_eq!((&decoded.key, decoded.mod_revision, decoded.lease), (&raw.key, raw.mod_revision, raw.lease));
        prop_assert_eq!(&layout.decode(&raw), &decoded, "the same bytes say the same");
        match &decoded.content {
            Content::Undecodable { why, .. } => {
                prop_assert_eq!(decoded.kind(US), Kind::Undecodable);
                prop_assert!(!why.is_empty());
                prop_assert!(decoded.ours(US).is_none() && decoded.listeners().is_empty());
                prop_assert!(decoded.endpoint_addresses().next().is_none());
                prop_assert!(decoded.client_addresses().next().is_none());
            }
            Content::Registered { registration, .. } => {
                prop_assert_ne!(decoded.kind(US), Kind::Undecodable);
                prop_assert_eq!(decoded.listeners().len(), registration.endpoints.len());
            }
        }
        // A record that we may delete lies right below its service, whatever its value says.
        if decoded.ours(US).is_some() || matches!(decoded.kind(US), Kind::Healed(_)) {
            prop_assert!(layout.may_hold_ours(&raw.key), "{:?}", raw.key);
        }
        // An address that an EndpointSlice may hold is one that clients dial.
        for addr in decoded.endpoint_addresses() {
            prop_assert!(decoded.client_addresses().any(|dialled| dialled == (addr.ip(), addr.port())));
        }
    }

    #[test]
    fn a_registration_that_is_put_back_says_what_its_server_said(
        (layout, raw) in layout().prop_flat_map(|layout| (Just(layout.clone()), record(layout))),
    ) {
        let decoded = layout.decode(&raw);
        if let (Content::Registered { registration, .. }, true) = (&decoded.content, layout.format().heals()) {
            let again = layout.decode(&RawRecord { value: layout.encode(registration), ..raw });
            prop_assert_eq!(again, decoded);
        }
    }

    #[test]
    fn an_export_is_read_as_ours_with_all_that_it_says(
        (layout, instance) in layout().prop_flat_map(|layout| (Just(layout.clone()), exported(layout.format()))),
        name in "[!-$&-.0-~]{1,12}",
        owner in owner(),
    ) {
        let name = RegistryName::new(name).unwrap();
        let says = layout.registration(&name, &owner, &instance);
        let key = layout.key(&name, &owner, &instance);
        let raw = RawRecord { key: key.clone(), value: layout.encode(&says), mod_revision: 7, lease: LeaseId(1) };
        let decoded = layout.decode(&raw);
        prop_assert_eq!(decoded.own(&owner.cluster_id), Some(&owner));
        prop_assert_eq!(decoded.own("another"), None);
        prop_assert_eq!(layout.split_key(&key).map(|(found, _)| found), Some(name.as_str().as_bytes()));
        let addresses: Vec<InstanceAddr> = instance.addresses().collect();
        prop_assert_eq!(decoded.endpoint_addresses().collect::<Vec<_>>(), addresses);
        let Content::Registered { registration, .. } = decoded.content else { panic!("undecodable") };
        prop_assert_eq!(registration, says);
    }

    #[test]
    fn a_registration_says_an_instance_if_it_is_the_one_of_that_instance_and_no_other(
        (layout, instance) in layout().prop_flat_map(|layout| (Just(layout.clone()), exported(layout.format()))),
        owner in owner(),
        change in 0_u8..10,
    ) {
        let name = RegistryName::new("echo").unwrap();
        let own = layout.registration(&name, &owner, &instance);
        let mut other = own.clone();
        match change {
            0 => other.network = "udp".into(),
            1 => other.endpoints.push(String::new()),
            2 => other.endpoints[0].push('0'),
            3 => other.weight += 1,
            4 => drop(other.tags.insert("zone".into(), "another".into())),
            5 => drop(other.tags.insert(OWNER_TAG.into(), format!("{owner}x"))),
            6 => drop(other.tags.remove(OWNER_TAG)),
            7 => drop(other.rest.insert("more".into(), true.into())),
            8 => other.tags.retain(|tag, _| tag == OWNER_TAG),
            _ => {}
        }
        prop_assert_eq!(layout.says(&name, &owner, &instance, &other), own == other, "{:?}", other);
        let keys = layout.keys(&name, &owner);
        prop_assert!(keys.is_of(&instance, &layout.key(&name, &owner, &instance)));
        prop_assert!(!keys.is_of(&instance, &"p/echo/another".into()));
    }
}
