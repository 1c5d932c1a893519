//! Strategies for bytes that other programs may write into a registry.
//!
//! Owns their shapes: noise, text near the grammar of JSON, and well-formed registrations with one thing wrong. Refuses
//! to know what the codec makes of them.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value};

use super::{Format, Layout};
use crate::model::{HEALED_TAG, LeaseId, OWNER_TAG, RawRecord, RecordKey, RegistryName};

/// The cluster that looks at the records.
pub const US: &str = "c1";

/// The same cases in every run, and no file for a case that fails.
pub fn repeatable(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(14), ..ProptestConfig::default() }
}

/// JSON without fractions: they do not always survive a round trip.
pub fn arbitrary_json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Value::from))
}

/// The formats that programs have.
pub fn format() -> impl Strategy<Value = Format> {
    let real: Vec<Format> = Format::ALL.iter().copied().filter(|format| *format != Format::Toy).collect();
    prop::sample::select(real)
}

pub fn layout() -> impl Strategy<Value = Layout> {
    let prefix = prop_oneof![Just(String::new()), Just("p".to_owned()), "[!-$&-~]{0,8}"];
    (format(), prefix, any::<bool>())
        .prop_map(|(format, prefix, slash)| Layout::new(format, prefix).with_leading_slash(slash))
}

/// Text that is nearly an address, as programs write it.
pub fn near_address() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => r"(10\.0\.0\.[1-3]|192\.0\.2\.[1-4]):(80|9000)",
        1 => r"\[?(fd77::[1-3]|::1|::ffff:10\.0\.0\.1|fe80::1%eth0)\]?:[0-9]{0,5}",
        1 => r"(localhost|0\.0\.0\.0|127\.0\.0\.1|010\.0\.0\.1|10\.0\.0|224\.0\.0\.1)?:?[0-9]{0,6}",
        1 => ".{0,12}",
    ]
}

/// Text that is nearly the mark of an owner.
fn near_owner() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => r"(c1|c2)/(shop|bank)/(echo|pay)",
        1 => r"[c12/a-z]{0,12}",
    ]
}

/// A value: noise, text near the grammar, an object with the fields of any format, or one of these cut short or
/// scratched.
pub fn value() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..60);
    let near = r#"[{}\[\]":,a-z0-9\\ue./\- ]{0,60}"#.prop_map(String::into_bytes);
    let bare = near_address().prop_map(String::into_bytes);
    let whole = prop_oneof![1 => noise, 1 => near, 1 => bare, 5 => object()];
    (whole, prop::option::weighted(0.2, any::<(prop::sample::Index, u8)>()), prop::option::weighted(0.1, 0_usize..40))
        .prop_map(|(mut value, scratch, cut)| {
            if let (Some((at, byte)), false) = (scratch, value.is_empty()) {
                let at = at.index(value.len());
                value[at] = byte;
            }
            value.truncate(value.len().saturating_sub(cut.unwrap_or_default()));
            value
        })
}

/// A JSON object with the fields of every format, most of them of the right type.
fn object() -> impl Strategy<Value = Vec<u8>> {
    let tags =
        (prop::option::of(near_owner()), any::<bool>(), prop::collection::btree_map("[a-z]{1,3}", ".{0,4}", 0..2))
            .prop_map(|(owner, healed, tags)| {
                let mut tags: Map<String, Value> = tags.into_iter().map(|(tag, text)| (tag, text.into())).collect();
                tags.extend(owner.map(|owner| (OWNER_TAG.to_owned(), owner.into())));
                if healed {
                    tags.insert(HEALED_TAG.to_owned(), "true".into());
                }
                Value::from(tags)
            });
    let network = prop::sample::select(vec!["tcp", "tcp", "tcp4", "unix", ""]);
    let endpoint = ("(grpc|http|)", near_address()).prop_map(|(scheme, address)| format!("{scheme}://{address}"));
    let endpoints = prop::collection::vec(endpoint, 0..3);
    let name = prop::sample::select(vec!["echo", "echo", "other", ""]);
    let odd = prop::option::weighted(0.2, ("[a-zA-Z]{1,9}", arbitrary_json_value()));
    let wrong = prop::option::weighted(0.1, (any::<prop::sample::Index>(), arbitrary_json_value()));
    (network, near_address(), any::<i16>(), tags, endpoints, name, odd, wrong).prop_map(
        |(network, address, weight, tags, endpoints, name, odd, wrong)| {
            let mut object = serde_json::json!({
                "network": network, "address": address, "weight": weight, "tags": tags,
                "name": name, "metadata": tags, "endpoints": endpoints, "Addr": address,
            });
            let fields = object.as_object_mut().unwrap();
            fields.extend(odd);
            if let Some((at, value)) = wrong {
                let at = at.index(fields.len());
                if let Some((_, field)) = fields.iter_mut().nth(at) {
                    *field = value;
                }
            }
            object.to_string().into_bytes()
        },
    )
}

/// A key: noise, or one of the service `echo` or of another, with an odd last segment.
pub fn key(layout: Layout) -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..20);
    let last = prop_oneof![
        3 => near_address().prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..12),
        1 => "[a-z0-9/]{0,12}".prop_map(String::into_bytes),
        1 => near_owner().prop_map(|owner| format!("twinspan~{}~10.0.0.1:80", owner.replace('/', "~")).into_bytes()),
    ];
    let name = prop::sample::select(vec!["echo", "echo", "echo", "other"]);
    let below = (name, any::<bool>(), last).prop_map(move |(name, in_directory, last)| {
        let name = RegistryName::new(name).unwrap();
        let directory = if in_directory { layout.format().framework().directory() } else { "" };
        [layout.service_root(&name).as_bytes(), directory.as_bytes(), &last].concat()
    });
    prop_oneof![1 => noise, 6 => below]
}

/// A record as etcd might return it.
pub fn record(layout: Layout) -> impl Strategy<Value = RawRecord> {
    (key(layout), value(), 1_i64..1000, 0_i64..3).prop_map(|(key, value, mod_revision, lease)| RawRecord {
        key: RecordKey::new(key),
        value,
        mod_revision,
        lease: LeaseId(lease),
    })
}
