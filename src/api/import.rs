//! `spec.import` of a RegisteredService: which records become endpoints, where, and for how long.
//!
//! Owns its fields, bounds and defaults, and their conversion to the core. Refuses to know which records there are.

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinspan_core::model::Selector as TagSelector;
use twinspan_core::plan::{departure, import};

use super::Selector;
use super::clusters::Clusters;

/// The records that become endpoints, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Import {
    /// The records that become endpoints, by their tags; empty selects all. GoZero and GRPC records have no tags.
    pub tag_selector: Selector,
    /// The use of records that another cluster's Twinspan exported: Ignore leaves them out, for pod addresses of
    /// another cluster may not be routable here; All imports them too.
    pub other_clusters: OtherClusters,
    /// The other clusters that are meant, and when; only where `otherClusters` is All. Default: every one, always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusters: Option<Clusters>,
    /// Key of a tag whose value becomes the zone of the endpoint; empty for none.
    #[schemars(length(max = 253))]
    pub zone_tag: String,
    /// The answer to a lease that ended without a deregistration: Probe keeps the endpoint while it accepts TCP
    /// connections; Heal does the same and puts its record back; Remove opens no connection. The deletion guard still
    /// limits the deletions that follow. GoZero and GRPC records cannot be restored, nor any of more than 64 KiB.
    pub on_expiry: OnExpiry,
    /// The place of imports: Beside the pods in EndpointSlices of the Service itself, Apart in a Service of their own,
    /// or Together with the pods in a Service whose EndpointSlices hold both. Such a Service has the same ports; it is
    /// created without a selector where it is missing, and deleted with the RegisteredService. Some clients in the
    /// cluster keep only the EndpointSlice that changed last, and lose instances where a Service has two.
    pub into: ImportInto,
    /// Name of the Service of imports that are Apart or Together. Default: the name of the Service with `-imported`
    /// or `-all` behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub service_name: Option<String>,
    /// How long an endpoint that lost its registration is kept while it accepts connections, in seconds.
    #[schemars(range(min = 1, max = 2592000))]
    pub keep_lost_seconds: i32,
}

impl Default for Import {
    fn default() -> Self {
        Self {
            tag_selector: Selector::default(),
            other_clusters: OtherClusters::Ignore,
            clusters: None,
            zone_tag: String::new(),
            on_expiry: OnExpiry::Probe,
            into: ImportInto::Beside,
            service_name: None,
            keep_lost_seconds: 86_400,
        }
    }
}

/// The place of imports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImportInto {
    #[default]
    Beside,
    Apart,
    Together,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OtherClusters {
    #[default]
    Ignore,
    All,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnExpiry {
    Remove,
    #[default]
    Probe,
    Heal,
}

impl Import {
    /// As the planner of the core takes it, with the scheme of each port.
    pub fn options(&self, schemes: Vec<String>) -> import::Options {
        import::Options {
            schemes,
            other_clusters: (self.other_clusters == OtherClusters::All)
                .then(|| self.clusters.as_ref().map(Into::into).unwrap_or_default()),
            tag_selector: TagSelector::from(&self.tag_selector),
            zone_tag: self.zone_tag.clone(),
            on_expiry: self.on_expiry.into(),
            keep_lost: SignedDuration::from_secs(self.keep_lost_seconds.into()),
        }
    }
}

impl From<OnExpiry> for departure::OnExpiry {
    fn from(on_expiry: OnExpiry) -> Self {
        match on_expiry {
            OnExpiry::Remove => Self::Remove,
            OnExpiry::Probe => Self::Probe,
            OnExpiry::Heal => Self::Heal,
        }
    }
}
