//! The CustomResourceDefinitions in their installed form.
//!
//! Owns the difference between the output of the derive macros and the installed form: no `nullable` (an absent field
//! has one spelling, and rules with `has()` mean exactly that), whole numbers without a fraction, the annotations that
//! keep a CRD when a tool prunes, and the status of an object that was not seen yet. Refuses to know any field of a
//! spec.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Number, Value, json};

use super::{RegisteredService, ServiceRegistry};

/// The `observedGeneration` of an object that no operator has seen. Without it kstatus takes an object without a status
/// for one that is as it should be, and `flux` or `helm --wait` would not wait for the first pass.
pub const UNSEEN: i64 = -1;

/// With a CRD every object of it is deleted, so no tool may delete one because it left a repository: Argo CD does not
/// honour Helm's `keep` where it prunes (argo-cd#17819), and Flux has a word of its own.
const KEPT: [(&str, &str); 2] = [
    ("argocd.argoproj.io/sync-options", "Prune=false,Delete=false"),
    ("kustomize.toolkit.fluxcd.io/prune", "disabled"),
];

/// Each CRD with the name of its file under `crds/`.
///
/// # Errors
/// None in practice: the types are known at compile time.
pub fn all() -> Result<Vec<(&'static str, Value)>, serde_json::Error> {
    Ok(vec![
        ("registeredservices.yaml", installed(&RegisteredService::crd())?),
        ("serviceregistries.yaml", installed(&ServiceRegistry::crd())?),
    ])
}

fn installed(crd: &CustomResourceDefinition) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(crd)?;
    tidy(&mut value);
    for version in value["spec"]["versions"].as_array_mut().into_iter().flatten() {
        version["schema"]["openAPIV3Schema"]["properties"]["status"]["default"] = json!({"observedGeneration": UNSEEN});
    }
    value["metadata"]["annotations"] = KEPT.iter().map(|(key, word)| ((*key).to_owned(), json!(word))).collect();
    Ok(value)
}

fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // A property of the name `nullable` would hold an object; the keyword is a boolean.
            if fields.get("nullable").is_some_and(Value::is_boolean) {
                fields.remove("nullable");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|n| number.is_f64() && n.fract() == 0.0 && n.abs() < 1e15) {
                #[allow(clippy::cast_possible_truncation)] // checked just above
                let whole = whole as i64;
                *number = Number::from(whole);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(value: &Value, path: &str, visit: &mut impl FnMut(&str, &serde_json::Map<String, Value>)) {
        match value {
            Value::Object(fields) => {
                visit(path, fields);
                for (name, inner) in fields {
                    walk(inner, &format!("{path}.{name}"), visit);
                }
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(n, inner)| walk(inner, &format!("{path}[{n}]"), visit));
            }
            _ => {}
        }
    }

    #[test]
    fn every_string_list_and_map_is_bounded_and_every_list_has_a_type() {
        for (file, crd) in all().unwrap() {
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let mut seen = 0;
            walk(schema, file, &mut |path, node| match node.get("type").and_then(Value::as_str) {
                Some("string") => {
                    seen += 1;
                    assert!(node.contains_key("maxLength") || node.contains_key("enum"), "{path}: no bound");
                }
                Some("array") => {
                    assert!(node.contains_key("maxItems"), "{path}: no bound");
                    assert!(node.contains_key("x-kubernetes-list-type"), "{path}: no list type");
                }
                Some("object") if node.contains_key("additionalProperties") => {
                    assert!(node.contains_key("maxProperties"), "{path}: no bound");
                }
                Some("integer") => assert_ne!(node.get("format"), Some(&Value::from("uint32")), "{path}"),
                _ => {}
            });
            assert!(seen > 10, "{file}: the walk found the schema");
            walk(&crd, file, &mut |path, node| assert!(!node.contains_key("nullable"), "{path}"));
        }
    }

    /// Kubernetes 1.31 takes the cost of comparing two networks as boundless, and refuses the CRD.
    #[test]
    fn no_rule_compares_networks_by_equality() {
        for (file, crd) in all().unwrap() {
            walk(&crd, file, &mut |path, node| {
                let rule = node.get("rule").and_then(Value::as_str).unwrap_or_default();
                assert!(!rule.contains("cidr(") || !rule.contains("=="), "{path}: {rule}");
            });
        }
    }

    #[test]
    fn the_files_under_crds_are_what_the_types_say() {
        for (file, crd) in all().unwrap() {
            let path = format!("{}/crds/{file}", env!("CARGO_MANIFEST_DIR"));
            let stored = std::fs::read_to_string(&path).unwrap();
            let expected = serde_yaml::to_string(&crd).unwrap();
            assert_eq!(stored, expected, "{path}: run `make crds`");
        }
    }
}
