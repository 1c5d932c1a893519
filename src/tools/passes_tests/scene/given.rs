//! The inputs of one pass.
//!
//! Owns their names and their defaults: a RegisteredService that syncs both ways with an empty registry that answers.
//! Refuses to fill views from them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::objects::{PodGiven, SliceGiven};
use super::records::{DeletionGiven, ErrorsGiven, ProbeGiven, RecordGiven, ReportGiven};

/// The objects that exist unless a file says `null`.
const OBJECTS: [&str; 4] = ["registeredService", "serviceRegistry", "service", "namespace"];

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Given {
    /// Seconds after noon.
    pub time: i64,
    /// Whether this process leads, and how often it has won the Lease.
    pub leads: bool,
    pub term: u64,
    /// Merged into a default; `null` where it is gone.
    pub registered_service: Option<Value>,
    /// Other RegisteredServices, merged into the same default.
    pub siblings: Vec<Value>,
    pub service_registry: Option<Value>,
    /// Other ServiceRegistries, by name, merged into the same default.
    pub registries: BTreeMap<String, Value>,
    pub service: Option<Value>,
    /// Other Services, merged into the same default.
    pub services: Vec<Value>,
    pub namespace: Option<Value>,
    pub slices: Vec<SliceGiven>,
    pub pods: BTreeMap<String, PodGiven>,
    pub nodes: BTreeMap<String, Value>,
    /// How many Nodes a list did not name any more.
    pub vanished_nodes: u64,
    pub service_cidrs: Vec<String>,
    /// Pods at these addresses vanished in a re-list.
    pub unseen: Vec<String>,
    /// The watches of the API server are broken: its objects are as they were.
    pub api_server_away: bool,
    /// Kinds of which the API server has told nothing for 100 s.
    pub silent: Vec<String>,
    /// How often a list changed the Service.
    pub relists: u64,
    pub records: BTreeMap<String, RecordGiven>,
    /// Records in other registries, by name.
    pub former_records: BTreeMap<String, BTreeMap<String, RecordGiven>>,
    /// Records that the view had and that went, one entry for each revision or list.
    pub deletions: Vec<DeletionGiven>,
    pub view: View,
    pub incarnation: Incarnation,
    /// The error of the session.
    pub failed: Option<String>,
    /// The older ServiceRegistry that serves the name in the same etcd.
    pub taken_by: Option<String>,
    /// Registry names that the registry refuses although it tells of others.
    pub refused_names: Vec<String>,
    pub probes: BTreeMap<String, ProbeGiven>,
    /// The deletions of other RegisteredServices, as they report them to the registry's guard.
    pub reports: BTreeMap<String, ReportGiven>,
    /// Seconds until which orphans are left alone.
    pub orphan_grace_until: Option<i64>,
    /// How the writes of the pass end.
    pub errors: ErrorsGiven,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            time: 0,
            leads: true,
            term: 1,
            registered_service: Some(json!({})),
            siblings: Vec::new(),
            service_registry: Some(json!({})),
            registries: BTreeMap::new(),
            service: Some(json!({})),
            services: Vec::new(),
            namespace: Some(json!({})),
            slices: Vec::new(),
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
            vanished_nodes: 0,
            service_cidrs: Vec::new(),
            unseen: Vec::new(),
            api_server_away: false,
            silent: Vec::new(),
            relists: 0,
            records: BTreeMap::new(),
            former_records: BTreeMap::new(),
            deletions: Vec::new(),
            view: View::Fresh,
            incarnation: Incarnation::AsItWas,
            failed: None,
            taken_by: None,
            refused_names: Vec::new(),
            probes: BTreeMap::new(),
            reports: BTreeMap::new(),
            orphan_grace_until: None,
            errors: ErrorsGiven::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum View {
    Fresh,
    Unknown,
    Stale,
}

/// The registry that answers: since the last list where `deletions` are given, else since another process met one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Incarnation {
    AsItWas,
    ClusterChanged,
    RolledBack,
}

impl Given {
    /// `null` stands for the default, and within a map for an entry that is not there.
    pub fn read(file: &str, given: Value) -> Self {
        let mut given = if given.is_null() { json!({}) } else { given };
        let all = given.as_object_mut().unwrap();
        all.retain(|name, value| OBJECTS.contains(&name.as_str()) || !value.is_null());
        for (_, value) in all.iter_mut().filter(|(name, _)| !OBJECTS.contains(&name.as_str())) {
            if let Value::Object(entries) = value {
                entries.retain(|_, entry| !entry.is_null());
            }
        }
        serde_json::from_value(given).unwrap_or_else(|error| panic!("{file}: given: {error}"))
    }
}
