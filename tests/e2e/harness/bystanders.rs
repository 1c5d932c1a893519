//! Bystanders: foreign records and a foreign slice in every sandbox, which Twinspan must not touch.
//!
//! Owns them and the check at the end of each story. Refuses to know the story.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use super::{Sandbox, record};
use crate::safety::audit::no_denied_requests;

impl Sandbox<'_> {
    /// Creates foreign records, beside the names of the story and under one of them, and a foreign slice.
    pub(super) async fn plant_foreign(&mut self) -> Result<()> {
        for key in [
            format!("{}/bystander/10.77.250.1:7000", self.name),
            format!("{}/bystander/no-json", self.name),
            format!("{}x/bystander/10.77.250.1:7000", self.name),
        ] {
            let value = if key.ends_with("no-json") { "{".to_owned() } else { record("10.77.250.1:7000").to_string() };
            self.registry.put(&key, &value).await?;
        }
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "bystander", "labels": {
                "kubernetes.io/service-name": "bystander", "endpointslice.kubernetes.io/managed-by": "somebody-else.example",
            }},
            "addressType": "IPv4",
            "ports": [{"name": "rpc", "port": 7000}],
            "endpoints": [{"addresses": ["10.77.250.2"]}],
        }))?;
        self.slices().create(&PostParams::default(), &slice).await?;
        self.foreign_records = self.foreign().await?;
        self.foreign_slices = self.bystanders().await?;
        ensure!(self.foreign_records.len() == 3 && self.foreign_slices.len() == 1, "what was planted is there");
        Ok(())
    }

    pub(super) async fn foreign(&self) -> Result<BTreeMap<String, (String, i64, i64)>> {
        let mut found = self.registry.dump(&format!("{}/bystander/", self.name)).await?;
        found.extend(self.registry.dump(&format!("{}x/", self.name)).await?);
        Ok(found)
    }

    async fn bystanders(&self) -> Result<BTreeMap<String, Value>> {
        let labels = "endpointslice.kubernetes.io/managed-by=somebody-else.example";
        let slices = self.slices().list(&ListParams::default().labels(labels)).await?;
        slices
            .items
            .into_iter()
            .map(|s| Ok((s.metadata.name.clone().unwrap_or_default(), serde_json::to_value(s)?)))
            .collect()
    }

    /// The end of a story: foreign records and slices are byte for byte as they were, and no request of Twinspan was
    /// denied.
    pub async fn nothing_foreign_was_touched(&self) -> Result<()> {
        let records = self.foreign().await?;
        ensure!(records == self.foreign_records, "foreign records changed:\n{:?}\n{records:?}", self.foreign_records);
        let slices = self.bystanders().await?;
        ensure!(slices == self.foreign_slices, "foreign slices changed:\n{:?}\n{slices:?}", self.foreign_slices);
        no_denied_requests(self.bed)
    }
}
