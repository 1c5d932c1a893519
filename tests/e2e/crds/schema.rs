//! Our installed CRDs, walked from the root: every node with its place.
//!
//! Owns the notation of places: `spec.ports[*].name`, with `{*}` for the values of a map. Refuses to know any field.

use anyhow::{Result, ensure};
use serde_json::Value;
use twinspan::api::crds;

/// A rule of `x-kubernetes-validations`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The place where the rule is checked; empty for the object itself.
    pub place: String,
    pub rule: String,
    pub message: String,
    /// The place that the API server's answer names.
    pub field: String,
}

/// The schema of a kind.
pub fn of(kind: &str) -> Result<Value> {
    let found = crds::all()?.into_iter().map(|(_, crd)| crd).find(|crd| crd["spec"]["names"]["kind"] == kind);
    let schema = found.map(|crd| crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone());
    schema.ok_or_else(|| anyhow::anyhow!("no CRD of kind {kind}"))
}

/// The schemas right beneath one, with their places.
fn children<'a>(schema: &'a Value, place: &str) -> Vec<(String, &'a Value)> {
    let dot = if place.is_empty() { "" } else { "." };
    let properties = schema["properties"].as_object().into_iter().flatten();
    let mut found: Vec<_> = properties.map(|(name, inner)| (format!("{place}{dot}{name}"), inner)).collect();
    found.extend(schema.get("items").map(|inner| (format!("{place}[*]"), inner)));
    found.extend(schema.get("additionalProperties").map(|inner| (format!("{place}{{*}}"), inner)));
    found
}

fn nodes<'a>(schema: &'a Value, place: String, found: &mut Vec<(String, &'a Value)>) {
    for (place, inner) in children(schema, &place) {
        nodes(inner, place, found);
    }
    found.push((place, schema));
}

/// Every rule of a kind; fails if the walk missed one.
pub fn rules(kind: &str) -> Result<Vec<Rule>> {
    let schema = of(kind)?;
    let mut all = Vec::new();
    nodes(&schema, String::new(), &mut all);
    let mut rules = Vec::new();
    for (place, node) in all {
        for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let text = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
            let field = format!("{place}{}", text("fieldPath")).trim_start_matches('.').to_owned();
            rules.push(Rule { place: place.clone(), rule: text("rule"), message: text("message"), field });
        }
    }
    let in_text = schema.to_string().matches("\"rule\":").count();
    ensure!(in_text > 0 && in_text == rules.len(), "{kind} has {in_text} rules, and the walk saw {}", rules.len());
    Ok(rules)
}

/// The keywords by which a schema itself refuses a value.
pub fn keywords(schema: &Value) -> Vec<&str> {
    const DESCRIBE: [&str; 8] = [
        "description",
        "title",
        "default",
        "properties",
        "items",
        "additionalProperties",
        "x-kubernetes-list-map-keys",
        // [`rules`] walks these.
        "x-kubernetes-validations",
    ];
    // An integer that is too large violates the bounds first, and int64 has no value outside.
    let number = |keyword: &str| keyword == "format" && schema["type"] == "integer";
    let all = schema.as_object().into_iter().flatten().map(|(keyword, _)| keyword.as_str());
    all.filter(|keyword| !DESCRIBE.contains(keyword) && !number(keyword)).collect()
}
