//! Structural schemas of CustomResourceDefinitions: defaults, pruning, and the checks of single values.
//!
//! Owns what a schema makes of an object. Refuses CEL rules (`x-kubernetes-validations`) and patterns, which need the
//! real server.

use serde_json::{Map, Value, json};

use crate::status::Cause;

#[derive(Clone, Debug)]
pub struct Schema(Value);

/// Fields of every object, which its schema does not name.
const TYPE_AND_METADATA: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Schema {
    pub fn new(open_api: &Value) -> Self {
        Self(open_api.clone())
    }

    /// Drops what the schema does not name and sets the defaults of what is missing
    /// (`apiextensions-apiserver/pkg/apiserver/schema/{pruning,defaulting}`, v0.37.2).
    pub fn apply(&self, object: &mut Value) {
        let Some(fields) = object.as_object_mut() else { return };
        let kept: Map<String, Value> = TYPE_AND_METADATA.iter().filter_map(|name| fields.remove_entry(*name)).collect();
        prune(object, &self.0);
        default(object, &self.0);
        if let Some(fields) = object.as_object_mut() {
            fields.extend(kept);
        }
    }

    /// Every breach of the schema.
    pub fn check(&self, object: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        let mut body = object.clone();
        if let Some(fields) = body.as_object_mut() {
            TYPE_AND_METADATA.iter().for_each(|name| drop(fields.remove(*name)));
        }
        check("", &body, &self.0, &mut causes);
        causes
    }
}

fn prune(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            let properties = &schema["properties"];
            let others = &schema["additionalProperties"];
            if schema["x-kubernetes-preserve-unknown-fields"] != true && !others.is_object() && others != true {
                fields.retain(|name, _| properties.get(name).is_some());
            }
            for (name, value) in fields {
                let schema = properties.get(name).unwrap_or(others);
                if schema.is_object() {
                    prune(value, schema);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prune(item, &schema["items"])),
        _ => {}
    }
}

fn default(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let Some(default) = property.get("default") else { continue };
                // A null that is not allowed is as good as nothing.
                let absent = match fields.get(name) {
                    None => true,
                    Some(value) => value.is_null() && property["nullable"] != true,
                };
                if absent {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields {
                let property = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                default(value, property);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| default(item, &schema["items"])),
        _ => {}
    }
}

fn check(path: &str, value: &Value, schema: &Value, causes: &mut Vec<Cause>) {
    if !schema.is_object() || (value.is_null() && schema["nullable"] == true) {
        return;
    }
    let at = path.strip_prefix('.').unwrap_or(path);
    let has_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    if !has_type {
        let (wanted, found) = (schema["type"].as_str().unwrap_or_default(), type_of(value));
        let why = format!("{at} in body must be of type {wanted}: \"{found}\"");
        causes.push(Cause { reason: "FieldValueTypeInvalid", ..Cause::invalid(at, &json!(found), &why) });
        return;
    }
    limits(at, value, schema, causes);
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            causes.push(Cause::required(format!("{path}.{name}").trim_start_matches('.'), ""));
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let property = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
        check(&format!("{path}.{name}"), value, property, causes);
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        check(&format!("{path}[{index}]"), value, &schema["items"], causes);
    }
}

fn limits(at: &str, value: &Value, schema: &Value, causes: &mut Vec<Cause>) {
    let mut refuse = |why: String| causes.push(Cause::invalid(at, value, &why));
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", allowed.join(", "));
        causes.push(Cause { field: at.to_owned(), reason: "FieldValueNotSupported", message });
        return;
    }
    if let Some(number) = value.as_f64() {
        if schema["minimum"].as_f64().is_some_and(|minimum| number < minimum) {
            refuse(format!("{at} in body should be greater than or equal to {}", schema["minimum"]));
        }
        if schema["maximum"].as_f64().is_some_and(|maximum| number > maximum) {
            refuse(format!("{at} in body should be less than or equal to {}", schema["maximum"]));
        }
    }
    let sizes = [
        ("minLength", "maxLength", value.as_str().map(|text| text.chars().count()), "chars long"),
        ("minItems", "maxItems", value.as_array().map(Vec::len), "items"),
        ("minProperties", "maxProperties", value.as_object().map(Map::len), "properties"),
    ];
    for (least, most, size, unit) in sizes {
        let Some(size) = size.map(|size| size as u64) else { continue };
        if schema[least].as_u64().is_some_and(|least| size < least) {
            refuse(format!("{at} in body should be at least {} {unit}", schema[least]));
        }
        if schema[most].as_u64().is_some_and(|most| size > most) {
            refuse(format!("{at} in body should have at most {} {unit}", schema[most]));
        }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        Schema::new(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "required": ["ref"], "properties": {
                "ref": {"type": "string", "maxLength": 3},
                "mode": {"type": "string", "default": "Both", "enum": ["Both", "One"]},
                "guard": {"type": "object", "default": {}, "properties": {"hold": {"type": "integer", "default": 300}}},
                "tags": {"type": "object", "additionalProperties": {"type": "string"}},
            }},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}))
    }

    #[test]
    fn defaults_are_set_and_unknown_fields_dropped() {
        let mut object = json!({"kind": "K", "metadata": {"name": "a"}, "more": 1,
            "spec": {"ref": "a", "mode": null, "other": 1, "tags": {"x": "y"}}, "status": {"any": 1}});
        schema().apply(&mut object);
        assert_eq!(
            object,
            json!({"kind": "K", "metadata": {"name": "a"}, "status": {"any": 1},
                "spec": {"ref": "a", "mode": "Both", "guard": {"hold": 300}, "tags": {"x": "y"}}})
        );
        assert_eq!(schema().check(&object), []);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let object = json!({"spec": {"mode": "None", "guard": {"hold": "x"}, "ref": "long"}});
        let fields: Vec<String> = schema().check(&object).into_iter().map(|cause| cause.field).collect();
        assert_eq!(fields, ["spec.guard.hold", "spec.mode", "spec.ref"]);
        assert_eq!(schema().check(&json!({"spec": {}}))[0].field, "spec.ref");
    }
}
