//! Tables of fields and rules, from the schema of a CRD.
//!
//! Owns the words for a schema. Refuses to know any kind.

use std::fmt::{self, Write};

use serde_json::Value;

/// Longer patterns stand below their table.
const WIDEST_PATTERN: usize = 40;

/// One row for each field beneath `root`: those of an object one after the other, the required ones first, and then
/// the fields of each of them. Patterns that are too wide for a cell follow.
pub fn table(page: &mut String, schema: &Value, root: &str) -> fmt::Result {
    writeln!(page, "| field | type | default | allowed | description |\n|---|---|---|---|---|")?;
    let mut patterns = Vec::new();
    rows(page, &mut patterns, &schema["properties"][root], root)?;
    if !patterns.is_empty() {
        writeln!(page, "\nThe patterns that are too wide for the table:\n")?;
    }
    patterns.iter().try_for_each(|(path, pattern)| writeln!(page, "- `{path}`: `{pattern}`"))
}

fn rows(page: &mut String, patterns: &mut Vec<(String, String)>, schema: &Value, path: &str) -> fmt::Result {
    let is_required =
        |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|required| required == name));
    let mut fields: Vec<(&String, &Value)> = schema["properties"].as_object().into_iter().flatten().collect();
    fields.sort_by_key(|(name, _)| !is_required(name));
    for (name, field) in &fields {
        let path = format!("{path}.{name}");
        let default = match &field["default"] {
            _ if is_required(name) => "*required*".to_owned(),
            Value::Null => String::new(),
            // The fields of an object have rows of their own, with their own defaults.
            Value::Object(_) => String::new(),
            Value::String(text) if text.is_empty() => "`\"\"`".to_owned(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let description = field["description"].as_str().unwrap_or_default();
        let wide = [&field["pattern"], &field["items"]["pattern"]].into_iter().filter_map(Value::as_str);
        let wide = wide.filter(|pattern| pattern.len() > WIDEST_PATTERN);
        patterns.extend(wide.map(|pattern| (path.clone(), pattern.to_owned())));
        let cells = [format!("`{path}`"), kind(field), default, allowed(field), one_line(description)];
        writeln!(page, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))?;
    }
    for (name, field) in fields {
        let path = format!("{path}.{name}");
        rows(page, patterns, field, &path)?;
        rows(page, patterns, &field["items"], &format!("{path}[]"))?;
    }
    Ok(())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn kind(field: &Value) -> String {
    let name = field["type"].as_str().unwrap_or_default();
    let of = |inner: &Value| inner["type"].as_str().unwrap_or_default().to_owned();
    match name {
        "array" => {
            let key = field["x-kubernetes-list-map-keys"][0].as_str();
            let once = match (field["x-kubernetes-list-type"].as_str(), key) {
                (Some("map"), Some(key)) => format!(", each `{key}` once"),
                (Some("set"), _) => ", each once".to_owned(),
                _ => String::new(),
            };
            format!("list of {}{once}", of(&field["items"]))
        }
        "object" if field["additionalProperties"].is_object() => {
            format!("map of {}", of(&field["additionalProperties"]))
        }
        _ => name.to_owned(),
    }
}

/// The allowed values, in words.
fn allowed(field: &Value) -> String {
    let mut said = Vec::new();
    if let Some(values) = field["enum"].as_array() {
        let words: Vec<String> = values.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        said.push(words.join(", "));
    }
    said.extend(range(&field["minimum"], &field["maximum"], ""));
    said.extend(range(&field["minLength"], &field["maxLength"], " characters"));
    said.extend(field["pattern"].as_str().map(|pattern| {
        if pattern.len() > WIDEST_PATTERN { "the pattern below".to_owned() } else { format!("`{pattern}`") }
    }));
    said.extend(range(&field["minItems"], &field["maxItems"], " items"));
    said.extend(range(&field["minProperties"], &field["maxProperties"], " pairs"));
    for inner in [&field["items"], &field["additionalProperties"]].into_iter().filter(|inner| inner.is_object()) {
        let inner = allowed(inner);
        said.extend((!inner.is_empty()).then(|| format!("each {inner}")));
    }
    said.join("; ")
}

fn range(least: &Value, most: &Value, of: &str) -> Option<String> {
    match (least.as_i64(), most.as_i64()) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}{of}")),
        (Some(least), None) => Some(format!("{least}{of} or more")),
        (None, Some(most)) => Some(format!("at most {most}{of}")),
        (None, None) => None,
    }
}

/// The rules that compare fields, or an object with its former state, by the field that an answer names.
pub fn rules(page: &mut String, schema: &Value) -> fmt::Result {
    writeln!(page, "| field | when its rule is broken, the API server says |\n|---|---|")?;
    beneath(page, schema, "")
}

fn beneath(page: &mut String, schema: &Value, path: &str) -> fmt::Result {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let field = format!("{path}{}", rule["fieldPath"].as_str().unwrap_or_default());
        let message = rule["message"].as_str().unwrap_or_default().replace('|', "\\|");
        writeln!(page, "| `{}` | {message} |", field.trim_start_matches('.'))?;
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        beneath(page, field, &path)?;
        beneath(page, &field["items"], &format!("{path}[]"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_reads_as_words() {
        let schema = json!({"properties": {"spec": {"required": ["names"], "properties": {
            "kind": {"type": "string", "enum": ["A", "B"], "description": "Two\nlines."},
            "names": {"type": "array", "maxItems": 4, "x-kubernetes-list-type": "set", "description": "Names.",
                "items": {"type": "string", "minLength": 1, "maxLength": 9, "pattern": "a|b"}},
            "code": {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
                "type": "object", "properties": {"number": {"type": "integer", "minimum": 1, "default": 7}}}},
        }}}});
        let mut page = String::new();
        table(&mut page, &schema, "spec").unwrap();
        let rows: Vec<&str> = page.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| `spec.names` | list of string, each once | *required* | at most 4 items; each 1 to 9 characters; `a\\|b` | Names. |",
                "| `spec.code` | string |  | the pattern below |  |",
                "| `spec.kind` | string |  | `A`, `B` | Two lines. |",
                "| `spec.ports` | list of object, each `name` once |  |  |  |",
                "| `spec.ports[].number` | integer | `7` | 1 or more |  |",
                "",
                "The patterns that are too wide for the table:",
                "",
                "- `spec.code`: `^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`",
            ]
        );
    }
}
