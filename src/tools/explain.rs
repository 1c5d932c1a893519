//! The explanation of one record or one address.
//!
//! Owns the rule about which records and instances a question is about. Refuses to decide: explanations come from
//! previews.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use twinspan_core::model::{InstanceAddr, Record, RecordKey};

use super::explanation::Explanation;
use super::notes;
use super::preview::Preview;
use super::print::{Columns, line};
use super::record::RecordReport;
use super::viewer::{Unsynced, Viewer};

/// The object of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    Key(String),
    Ip(IpAddr),
    Instance(InstanceAddr),
}

impl Question {
    /// Parses an IP or an IP and a port; any other text is a key.
    pub fn new(text: &str) -> Self {
        if let Ok(ip) = text.parse() {
            return Self::Ip(ip);
        }
        InstanceAddr::parse(text).map_or_else(|_| Self::Key(text.to_owned()), Self::Instance)
    }

    fn is_about_record(&self, record: &Record) -> bool {
        match self {
            Self::Key(key) => record.key == RecordKey::from(key.as_str()),
            Self::Ip(ip) => record.client_addresses().any(|(other, _)| other == *ip),
            Self::Instance(addr) => record.client_addresses().any(|(ip, port)| (ip, port) == (addr.ip(), addr.port())),
        }
    }

    /// Whether the explanation answers the question. The found records have the addresses that a key stands for.
    pub(super) fn is_about_instance(&self, explanation: &Explanation, records: &[RecordReport]) -> bool {
        match self {
            Self::Key(key) => {
                explanation.instance == *key
                    || records
                        .iter()
                        .flat_map(|record| &record.addresses)
                        .any(|address| ends_so(address, &explanation.instance))
            }
            Self::Ip(ip) => InstanceAddr::parse(&explanation.instance).is_ok_and(|addr| addr.ip() == *ip),
            Self::Instance(addr) => InstanceAddr::parse(&explanation.instance).is_ok_and(|other| other == *addr),
        }
    }
}

/// Whether an address ends with the instance: addresses of Kratos start with a scheme.
fn ends_so(address: &str, instance: &str) -> bool {
    address == instance || address.split_once("://").is_some_and(|(_, rest)| rest == instance)
}

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
pub fn explain(viewer: &Viewer, text: &str, leader: Option<String>, missing: &[Unsynced]) -> Answer {
    let question = Question::new(text);
    let records = viewer.records(|record| question.is_about_record(record));
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
    for key in viewer.services() {
        let Some(preview) = viewer.preview(&key) else { continue };
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
        answer.remarks.extend(viewer.followed_by_names().iter().map(|registry| notes::followed_names(registry)));
        answer.remarks.extend(others);
    }
    answer.remarks.extend(notes::of_leader(answer.leader.as_deref()));
    answer.remarks.extend(missing.iter().map(notes::unsynced));
    answer.remarks.dedup();
    answer
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
            let owner = record.owner.as_ref().map(|owner| format!(", of {owner}")).unwrap_or_default();
            let lease = if record.lease.is_empty() { "no lease".to_owned() } else { format!("lease {}", record.lease) };
            line(f, "  ", format_args!("{}{owner}; revision {}, {lease}", record.whose, record.revision))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_and_everything_else_is_a_key() {
        assert_eq!(Question::new("10.0.0.1"), Question::Ip([10, 0, 0, 1].into()));
        assert!(matches!(Question::new("[fd77::1]:80"), Question::Instance(_)));
        assert!(matches!(Question::new("10.0.0.1:80"), Question::Instance(_)));
        for key in ["kitex/registry-etcd/user/10.0.0.1:80", "10.0.0.1:80/x", ""] {
            assert_eq!(Question::new(key), Question::Key(key.to_owned()));
        }
        assert!(ends_so("grpc://10.0.0.1:80", "10.0.0.1:80") && !ends_so("10.0.0.1:8080", "10.0.0.1:80"));
    }
}
