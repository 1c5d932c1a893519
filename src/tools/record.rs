//! A record as Twinspan reads it, for the command line.
//!
//! Owns the words for its writer. Refuses to decide.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use twinspan_core::model::{Content, Kind, Record};

use crate::registry::handle::RegistryHandle;

/// A record as Twinspan reads it, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordReport {
    pub registry: String,
    pub key: String,
    /// The service's name in the key.
    pub name: String,
    /// `own`, `otherCluster`, `healed`, `foreign` or `undecodable`.
    pub whose: Cow<'static, str>,
    /// The RegisteredService that owns it, if the record names one.
    pub owner: Option<String>,
    /// The addresses that clients would dial.
    pub addresses: Vec<String>,
    /// The reason why its value cannot be parsed.
    pub problem: Option<String>,
    /// The beginning of a value that cannot be parsed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beginning: Option<String>,
    pub revision: i64,
    /// The lease in hexadecimal; empty if the record has none and therefore never expires.
    pub lease: String,
}

impl RecordReport {
    /// The writer, in words.
    pub fn writer(&self) -> String {
        let of = self.owner.as_deref().unwrap_or("a RegisteredService");
        match self.whose.as_ref() {
            "own" => format!("exported by this cluster for {of}"),
            "otherCluster" => "exported by another cluster's Twinspan".to_owned(),
            "healed" => format!("lost by its server, and restored for {of}"),
            "undecodable" => "cannot be parsed, so its writer is unknown".to_owned(),
            _ => "registered by its server itself".to_owned(),
        }
    }

    pub fn new(handle: &RegistryHandle, record: &Record) -> Self {
        let kind = record.kind(&handle.cluster_id);
        let (whose, owner) = match kind {
            Kind::Own(owner) => ("own", Some(owner.service.to_string())),
            Kind::OtherCluster => ("otherCluster", None),
            Kind::Healed(owner) => ("healed", Some(owner.to_string())),
            Kind::Foreign => ("foreign", None),
            Kind::Undecodable => ("undecodable", None),
        };
        let (problem, beginning) = match &record.content {
            Content::Undecodable { why, beginning } => (Some(why.clone()), Some(beginning.clone())),
            Content::Registered { .. } => (None, None),
        };
        let name = handle.layout.split_key(&record.key).map(|(name, _)| String::from_utf8_lossy(name).into_owned());
        Self {
            registry: handle.name.clone(),
            key: record.key.to_string(),
            name: name.unwrap_or_default(),
            whose: Cow::Borrowed(whose),
            owner,
            addresses: record.listeners().iter().map(|listener| listener.text.clone()).collect(),
            problem,
            beginning,
            revision: record.mod_revision,
            lease: if record.lease.0 == 0 { String::new() } else { record.lease.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_writer_is_told_in_words() {
        let report = |whose: &'static str, owner: Option<&str>| RecordReport {
            registry: "main".into(),
            key: "k".into(),
            name: "user".into(),
            whose: Cow::Borrowed(whose),
            owner: owner.map(ToOwned::to_owned),
            addresses: Vec::new(),
            problem: None,
            beginning: None,
            revision: 1,
            lease: String::new(),
        };
        for (whose, owner, words) in [
            ("own", Some("shop/user"), "exported by this cluster for shop/user"),
            ("otherCluster", None, "exported by another cluster's Twinspan"),
            ("healed", Some("shop/user"), "lost by its server, and restored for shop/user"),
            ("foreign", None, "registered by its server itself"),
            ("undecodable", None, "cannot be parsed, so its writer is unknown"),
        ] {
            assert_eq!(report(whose, owner).writer(), words);
        }
    }
}
