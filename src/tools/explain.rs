//! The explanation of one record or one address.
//!
//! Owns its parts and its printed form. Refuses to decide: explanations come from previews.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::explanation::Explanation;
use super::notes;
use super::preview::Preview;
use super::print::{Columns, line};
use super::question::Question;
use super::record::RecordReport;
use super::viewer::{AskError, Unsynced, Viewer};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub asked: String,
    /// The replica that leads; absent if none does.
    pub leader: Option<String>,
    pub records: Vec<RecordReport>,
    pub services: Vec<ByService>,
    /// Notes that also explain it.
    pub remarks: Vec<String>,
    /// Whether the cluster and every registry could be asked.
    pub complete: bool,
}

/// The explanations of one RegisteredService.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ByService {
    pub service: String,
    #[serde(flatten)]
    pub explanation: Explanation,
}

/// Asks every registry and every RegisteredService.
///
/// # Errors
/// [`AskError`] if the operator in this pod is asked, and does not answer.
pub async fn explain(
    viewer: &Viewer,
    text: &str,
    leader: Option<String>,
    missing: &[Unsynced],
) -> Result<Answer, AskError> {
    let question = Question::new(text);
    let records = viewer.records(text).await?;
    let mut answer = Answer {
        asked: text.to_owned(),
        leader,
        records,
        services: Vec::new(),
        remarks: Vec::new(),
        complete: missing.is_empty(),
    };
    let mut others = Vec::new();
    let mut asked_for = BTreeSet::new();
    for key in viewer.services().await? {
        let Some(preview) = viewer.preview(&key).await? else { continue };
        answer.complete &= preview.unavailable.is_none();
        let remarks = notes::of_service(&preview);
        let Preview { registry, registry_name, instances, .. } = preview;
        let mut of_it = answer.records.iter().map(|record| (&record.registry, &record.name));
        let named = of_it.any(|record| record == (&registry, &registry_name));
        let about: Vec<Explanation> = instances
            .into_iter()
            .filter(|explanation| question.is_about_instance(explanation, &answer.records))
            .collect();
        if named || !about.is_empty() {
            answer.remarks.extend(remarks);
        } else {
            others.extend(remarks);
        }
        answer
            .services
            .extend(about.into_iter().map(|explanation| ByService { service: key.to_string(), explanation }));
        asked_for.insert((registry, registry_name));
    }
    for record in &answer.records {
        let (registry, name) = (&record.registry, &record.name);
        if !asked_for.contains(&(registry.clone(), name.clone())) {
            let remark = format!("no RegisteredService refers to the name {name:?} in registry {registry}");
            answer.remarks.push(remark);
        }
    }
    if !answer.is_known() {
        let nowhere =
            format!("{text} is in no registry that Twinspan watches, and in no Service of a RegisteredService");
        answer.remarks.push(nowhere);
        let followed = viewer.followed_by_names().await?;
        answer.remarks.extend(followed.iter().map(|registry| notes::followed_names(registry)));
        answer.remarks.extend(others);
    }
    answer.remarks.extend(notes::of_leader(answer.leader.as_deref()));
    answer.remarks.extend(missing.iter().map(notes::unsynced));
    answer.remarks.dedup();
    Ok(answer)
}

impl Answer {
    /// Whether any side has the record or address.
    pub fn is_known(&self) -> bool {
        !self.records.is_empty() || !self.services.is_empty()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for record in &self.records {
            line(f, "record ", format_args!("{} in registry {}", record.key, record.registry))?;
            let lease = if record.lease.is_empty() {
                "no lease, so it never expires".to_owned()
            } else {
                format!("lease {}", record.lease)
            };
            line(f, "  ", format_args!("{}; revision {}, {lease}", record.writer(), record.revision))?;
            if !record.addresses.is_empty() {
                line(f, "  address ", record.addresses.join(", "))?;
            }
            if let Some(problem) = &record.problem {
                line(f, "  its value cannot be parsed: ", problem)?;
            }
            if let Some(beginning) = record.beginning.as_deref().filter(|text| !text.is_empty()) {
                line(f, "  the value begins with: ", beginning)?;
            }
        }
        if !self.services.is_empty() {
            let mut columns = Columns::new(["REGISTEREDSERVICE", "INSTANCE", "STATE", "WHY"]);
            for by in &self.services {
                let explanation = &by.explanation;
                columns.add([
                    by.service.clone(),
                    explanation.instance.clone(),
                    explanation.state.clone(),
                    explanation.text.clone(),
                ]);
            }
            write!(f, "{columns}")?;
        }
        for remark in &self.remarks {
            line(f, "note: ", remark)?;
        }
        Ok(())
    }
}
