//! `spec.import.clusters` of a RegisteredService: the other clusters whose exports are imported, and when.
//!
//! Owns the fields, their bounds and defaults, and their conversion to the core. Refuses to know whose export a record
//! is.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinspan_core::plan::import;

/// The other clusters whose exports are imported, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.preference == 'LocalFirst' || self.minLocal == 1").message("spec.import.clusters.minLocal: only preference LocalFirst has it; leave it out").field_path(".minLocal"))]
pub struct Clusters {
    /// The IDs of these clusters, as `status.clusterID` of their ServiceRegistries says. Empty means every other
    /// cluster. The ID in a record is the word of its writer, and no proof.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Vec<String>,
    /// Equal imports the instances of all clusters alike. LocalFirst imports those of other clusters only while fewer
    /// than `minLocal` of this cluster are there; they come at once, and leave 30 s after that many are back.
    #[serde(default)]
    pub preference: Preference,
    /// With LocalFirst, how many instances of this cluster are enough: ready pods of the Service, and servers that
    /// registered themselves and are neither lost nor held.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_local: i32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preference {
    #[default]
    Equal,
    LocalFirst,
}

fn one() -> i32 {
    1
}

impl From<&Clusters> for import::OtherClusters {
    fn from(clusters: &Clusters) -> Self {
        let min_local = usize::try_from(clusters.min_local).unwrap_or(1).max(1);
        Self {
            names: clusters.names.iter().cloned().collect(),
            min_local: (clusters.preference == Preference::LocalFirst).then_some(min_local),
        }
    }
}
