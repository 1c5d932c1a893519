//! A label selector with bounds: the form of `metav1.LabelSelector`, with a limit and a list type for every list and
//! string.
//!
//! Owns the schema, because the imported type has neither limits nor list types, and the conversion to the core.
//! Refuses to match anything.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use twinspan_core::model;

use super::schema;

/// Selects by key and value; empty selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Keys and values; every pair must be there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::small_map")]
    pub match_labels: BTreeMap<String, String>,
    /// Every requirement must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : !has(self.values) || self.values.size() == 0").message("values: give at least one for In and NotIn, and none for Exists and DoesNotExist").field_path(".values"))]
pub struct Requirement {
    /// The key that is looked at.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// In: the key is there and its value among `values`. NotIn: it is not. Exists, DoesNotExist: the key is there, or
    /// not.
    pub operator: Operator,
    /// The values of In and NotIn; none for Exists and DoesNotExist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub values: Vec<String>,
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl From<&Selector> for model::Selector {
    fn from(selector: &Selector) -> Self {
        let requirements = selector.match_expressions.iter().map(|requirement| model::Requirement {
            key: requirement.key.clone(),
            operator: match requirement.operator {
                Operator::In => model::Operator::In,
                Operator::NotIn => model::Operator::NotIn,
                Operator::Exists => model::Operator::Exists,
                Operator::DoesNotExist => model::Operator::DoesNotExist,
            },
            values: requirement.values.clone(),
        });
        Self { match_labels: selector.match_labels.clone(), requirements: requirements.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let selector: Selector = serde_json::from_str(selector).unwrap();
        let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        model::Selector::from(&selector).matches(|label| labels.get(label))
    }

    #[test]
    fn matches_as_kubernetes_does() {
        let labels = [("team", "a"), ("env", "prod")];
        for (selector, expected) in [
            ("{}", true),
            (r#"{"matchLabels":{"team":"a"}}"#, true),
            (r#"{"matchLabels":{"team":"a","env":"test"}}"#, false),
            (r#"{"matchExpressions":[{"key":"team","operator":"In","values":["a","b"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"team","operator":"NotIn","values":["a"]}]}"#, false),
            (r#"{"matchExpressions":[{"key":"zone","operator":"NotIn","values":["a"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"zone","operator":"In","values":["a"]}]}"#, false),
            (r#"{"matchExpressions":[{"key":"env","operator":"Exists"}]}"#, true),
            (r#"{"matchExpressions":[{"key":"env","operator":"DoesNotExist"}]}"#, false),
            (r#"{"matchLabels":{"team":"a"},"matchExpressions":[{"key":"zone","operator":"DoesNotExist"}]}"#, true),
        ] {
            assert_eq!(selects(selector, &labels), expected, "{selector}");
        }
    }
}
