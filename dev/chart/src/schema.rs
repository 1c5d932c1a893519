//! The keys of the values, read from `values.schema.json`.
//!
//! It is read as YAML and not as JSON, to keep the order in which the keys were written.

use anyhow::{Context, Result, ensure};
use serde_yaml::{Mapping, Value};

/// The place of a ServiceRegistry's spec in the schema.
const REGISTRIES: &str = "serviceRegistries";

/// The schema with the ServiceRegistry's spec from its CRD, so that Helm refuses a wrong field before it sends
/// anything.
pub fn with_registries(schema: &str, crd: &str) -> Result<Value> {
    let mut schema: Value = serde_yaml::from_str(schema).context("values.schema.json")?;
    let crd: Value = serde_yaml::from_str(crd).context("crds/serviceregistries.yaml")?;
    let mut spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
    ensure!(spec.is_mapping(), "crds/serviceregistries.yaml has no spec");
    close(&mut spec);
    let registries = schema["properties"].get_mut(REGISTRIES).context("values.schema.json has no serviceRegistries")?;
    registries["additionalProperties"] = spec;
    Ok(schema)
}

/// Converts a schema of Kubernetes to one that refuses unknown keys. Rules in CEL stay with the API server.
fn close(schema: &mut Value) {
    let Some(fields) = schema.as_mapping_mut() else { return };
    fields.retain(|key, _| !key.as_str().is_some_and(|key| key.starts_with("x-kubernetes-") || key == "format"));
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_mapping_mut) {
        properties.values_mut().for_each(close);
        fields.insert("additionalProperties".into(), false.into());
    }
    for below in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(below) {
            close(inner);
        }
    }
}

pub fn print(schema: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(schema)? + "\n")
}

/// One key of the values, with its description in the schema.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    pub name: &'a str,
    pub schema: &'a Mapping,
}

impl<'a> Key<'a> {
    pub fn description(&self) -> &'a str {
        self.text("description")
    }

    pub fn default(&self) -> Option<&'a Value> {
        self.schema.get("default")
    }

    /// Its own keys, in order; none if it is not an object with fixed keys.
    pub fn keys(&self) -> Vec<Key<'a>> {
        keys(self.schema)
    }

    fn text(&self, field: &str) -> &'a str {
        self.schema.get(field).and_then(Value::as_str).unwrap_or_default()
    }
}

/// The keys of an object, in order.
pub fn keys(schema: &Mapping) -> Vec<Key<'_>> {
    let properties = schema.get("properties").and_then(Value::as_mapping);
    properties
        .into_iter()
        .flatten()
        .filter_map(|(name, schema)| Some(Key { name: name.as_str()?, schema: schema.as_mapping()? }))
        .collect()
}

/// The keys at the top.
pub fn top(schema: &Value) -> Result<Vec<Key<'_>>> {
    Ok(keys(schema.as_mapping().context("values.schema.json is no object")?))
}
