//! Objects as the API server admits them, for property tests.
//!
//! Owns the way from an OpenAPI schema to values that are valid by it: types, enums, bounds, patterns, required and
//! unknown fields. Refuses to know the rules in CEL: an object that breaks one of them is still read.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::string::string_regex;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};

use super::crds;

/// The same cases in every run, and no file for a case that fails.
pub fn repeatable(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(14), ..ProptestConfig::default() }
}

/// The schema of a kind, as it is installed.
pub fn schema(file: &str) -> Value {
    let (_, crd) = crds::all().unwrap().into_iter().find(|(name, _)| *name == file).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Any spec of a RegisteredService that the schema admits.
pub fn registered_service_spec() -> BoxedStrategy<Value> {
    valid(&schema("registeredservices.yaml")["properties"]["spec"])
}

/// Any spec of a ServiceRegistry that the schema admits.
pub fn service_registry_spec() -> BoxedStrategy<Value> {
    valid(&schema("serviceregistries.yaml")["properties"]["spec"])
}

/// Any JSON.
pub fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,5}", inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Any value that the schema admits.
pub fn valid(schema: &Value) -> BoxedStrategy<Value> {
    if let Some(variants) = schema["enum"].as_array() {
        return prop::sample::select(variants.clone()).boxed();
    }
    match schema["type"].as_str().unwrap() {
        "string" => text(schema),
        "boolean" => any::<bool>().prop_map(Value::from).boxed(),
        "integer" => {
            let (least, most) = match schema["format"].as_str() {
                Some("int32") => (i32::MIN.into(), i32::MAX.into()),
                _ => (i64::MIN, i64::MAX),
            };
            let least = schema["minimum"].as_i64().unwrap_or(least);
            let most = schema["maximum"].as_i64().unwrap_or(most);
            prop_oneof![Just(least), Just(most), least..=most].prop_map(Value::from).boxed()
        }
        "array" => array(schema),
        "object" => object(schema),
        other => panic!("no strategy for {other}"),
    }
}

fn text(schema: &Value) -> BoxedStrategy<Value> {
    if schema["format"] == "date-time" {
        return prop::sample::select(vec!["2026-01-01T12:00:00Z", "1969-12-31T23:59:59.999999+01:00"])
            .prop_map(Value::from)
            .boxed();
    }
    let most = schema["maxLength"].as_u64().unwrap_or(64) as usize;
    let least = schema["minLength"].as_u64().unwrap_or(0) as usize;
    let pattern = schema["pattern"].as_str().map(|pattern| pattern.trim_start_matches('^').trim_end_matches('$'));
    let any = match pattern {
        Some(pattern) => string_regex(pattern).unwrap().boxed(),
        None => prop_oneof![8 => ".{0,10}", 1 => ".{0,70}"].boxed(),
    };
    // Texts of the longest length as well: bounds count characters.
    let long = prop::option::weighted(0.02, Just(()));
    (any, long)
        .prop_map(move |(text, long)| {
            let mut text: Vec<char> = text.chars().take(most).collect();
            let last = text.last().copied().unwrap_or('a');
            if long.is_some() {
                text.resize(most, last);
            }
            if text.len() < least {
                text.resize(least, 'a');
            }
            Value::from(text.into_iter().collect::<String>())
        })
        .boxed()
}

fn array(schema: &Value) -> BoxedStrategy<Value> {
    let least = schema["minItems"].as_u64().unwrap_or(0) as usize;
    let most = (schema["maxItems"].as_u64().unwrap_or(8) as usize).min(4);
    let keys: Option<Vec<String>> = match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => serde_json::from_value(schema["x-kubernetes-list-map-keys"].clone()).ok(),
        Some("set") => Some(Vec::new()),
        _ => None,
    };
    let items = prop::collection::vec(valid(&schema["items"]), least..=most);
    items
        .prop_map(move |items| {
            let Some(keys) = &keys else { return Value::from(items) };
            // Items of a set, and keys of a map, are there once.
            let id = |item: &Value| match keys.as_slice() {
                [] => item.to_string(),
                keys => keys.iter().map(|key| item[key].to_string()).collect(),
            };
            let once: BTreeMap<String, Value> = items.into_iter().map(|item| (id(&item), item)).collect();
            Value::from(once.into_values().collect::<Vec<_>>())
        })
        .boxed()
}

fn object(schema: &Value) -> BoxedStrategy<Value> {
    if schema["additionalProperties"].is_object() {
        let most = (schema["maxProperties"].as_u64().unwrap_or(8) as usize).min(3);
        return prop::collection::btree_map(".{0,12}", valid(&schema["additionalProperties"]), 0..=most)
            .prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
            .boxed();
    }
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut all = Just(Map::new()).boxed();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let field = valid(property);
        let field = match required.contains(&name.as_str()) {
            true => field.prop_map(Some).boxed(),
            false => prop::option::weighted(0.4, field).boxed(),
        };
        let name = name.clone();
        all = (all, field)
            .prop_map(move |(mut object, field)| {
                object.extend(field.map(|field| (name.clone(), field)));
                object
            })
            .boxed();
    }
    all.prop_map(Value::Object).boxed()
}

/// A spec with a fault.
#[derive(Clone, Debug)]
pub struct Scratched {
    pub spec: Value,
    /// The spec with any JSON in place of one field.
    pub scratched: Value,
    /// The field.
    pub path: Vec<String>,
    /// Any JSON, or none.
    pub status: Value,
}

/// Specs with any JSON in place of one field, at any depth.
pub fn scratched(spec: BoxedStrategy<Value>) -> impl Strategy<Value = Scratched> {
    let path = prop::collection::vec(any::<Index>(), 1..4);
    let status = prop_oneof![Just(Value::Null), json()];
    (spec, path, json(), status).prop_map(|(spec, path, with, status)| {
        let mut scratched = spec.clone();
        let path = scratch(&mut scratched, &path, &with);
        Scratched { spec, scratched, path, status }
    })
}

/// Replaces one field of an object. Returns its path.
fn scratch(object: &mut Value, path: &[Index], with: &Value) -> Vec<String> {
    let mut at = object;
    let mut names = Vec::new();
    for index in path {
        let found = at.as_object().filter(|fields| !fields.is_empty());
        let name = found.and_then(|fields| fields.keys().nth(index.index(fields.len())).cloned());
        let Some(name) = name else { break };
        at = &mut at[name.as_str()];
        names.push(name);
    }
    *at = with.clone();
    names
}

/// An object of this kind.
pub fn object_of(kind: &str, name: &str, spec: &Value, status: &Value) -> Value {
    let mut object = json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": kind, "spec": spec,
        "metadata": {"name": name, "uid": name, "generation": 1, "resourceVersion": "7"}});
    if kind == "RegisteredService" {
        object["metadata"]["namespace"] = json!("shop");
    }
    if !status.is_null() {
        object["status"] = status.clone();
    }
    object
}
