//! An instance as it is registered: one address of one record.
//!
//! Owns the words for its writer, and the escape of what strangers wrote: a terminal must not obey it. Refuses to
//! judge whether a client could call it, which `explain` does.

use std::collections::BTreeMap;

use serde::Serialize;
use twinspan_core::model::{Content, Kind, Record};

/// One address of one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    pub key: String,
    /// Empty if the record cannot be parsed.
    pub address: String,
    /// `own`, `otherCluster`, `healed`, `foreign` or `undecodable`.
    pub whose: &'static str,
    /// The RegisteredService that the record names as its owner.
    pub owner: Option<String>,
    /// Absent if the record cannot be parsed.
    pub weight: Option<i64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// The lease in hexadecimal; empty if the record has none and therefore never expires.
    pub lease: String,
    /// The reason why the record cannot be parsed.
    pub problem: Option<String>,
}

impl Instance {
    /// The instances of a record: one for each address, or one without an address if there is none.
    pub fn of(record: &Record, cluster_id: &str) -> Vec<Self> {
        let (whose, owner) = match record.kind(cluster_id) {
            Kind::Own(owner) => ("own", Some(owner.service.to_string())),
            Kind::OtherCluster => ("otherCluster", None),
            Kind::Healed(owner) => ("healed", Some(owner.service.to_string())),
            Kind::Foreign => ("foreign", None),
            Kind::Undecodable => ("undecodable", None),
        };
        let (weight, tags, problem) = match &record.content {
            Content::Registered { registration, .. } => {
                let tags = registration.tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                (Some(registration.weight), tags, None)
            }
            Content::Undecodable { why, .. } => (None, BTreeMap::new(), Some(why.clone())),
        };
        let lease = if record.lease.0 == 0 { String::new() } else { record.lease.to_string() };
        let key = record.key.to_string();
        let at = |address: String| Self {
            key: key.clone(),
            address,
            whose,
            owner: owner.clone(),
            weight,
            tags: tags.clone(),
            lease: lease.clone(),
            problem: problem.clone(),
        };
        let mut addresses: Vec<String> = record.listeners().iter().map(|listener| listener.text.clone()).collect();
        if addresses.is_empty() {
            addresses.push(String::new());
        }
        addresses.into_iter().map(at).collect()
    }

    /// The writer, for people.
    pub fn writer(&self) -> String {
        match (self.whose, &self.owner) {
            ("own", Some(owner)) => format!("own, of {owner}"),
            ("healed", Some(owner)) => format!("healed by {owner}"),
            ("otherCluster", _) => "another cluster".to_owned(),
            ("undecodable", _) => "cannot be parsed".to_owned(),
            (whose, _) => whose.to_owned(),
        }
    }

    /// The cells address, writer, weight and lease.
    pub fn cells(&self) -> [String; 4] {
        let address = if self.address.is_empty() { &self.key } else { &self.address };
        let weight = self.weight.map_or("-".to_owned(), |weight| weight.to_string());
        let lease = if self.lease.is_empty() { "-".to_owned() } else { self.lease.clone() };
        [address.clone(), self.writer(), weight, lease]
    }
}
