//! A selector over pairs of key and value: labels of namespaces, tags of records.
//!
//! Owns the matching, as Kubernetes does it. Refuses to know what is selected.

use std::collections::BTreeMap;

/// Selects by key and value; empty selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    pub match_labels: BTreeMap<String, String>,
    pub requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Whether the selector selects the pairs, as Kubernetes matches labels (`labels.Requirement` of
    /// k8s.io/apimachinery): `NotIn` and `DoesNotExist` hold if the key is absent.
    /// `value_of` has the value of each key.
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Option<&'a String>) -> bool {
        self.match_labels.iter().all(|(key, value)| value_of(key) == Some(value))
            && self.requirements.iter().all(|requirement| requirement.holds(value_of(&requirement.key)))
    }
}

impl Requirement {
    fn holds(&self, value: Option<&String>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|v| self.values.contains(v)),
            Operator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}
