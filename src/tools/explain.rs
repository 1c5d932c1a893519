//! What Twinspan thinks of one record or one address.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use twinspan_core::model::{InstanceAddr, Record, RecordKey};

use super::print::Columns;
use super::remarks;
use crate::controllers::onlooker::{Missing, Onlooker};
use crate::controllers::seen::SeenRecord;
use crate::controllers::services::{Outlook, account::Account};

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    Key(String),
    Ip(IpAddr),
    Instance(InstanceAddr),
}

impl Question {
    /// An IP, an IP and a port, and everything else is a key.
    pub fn new(text: &str) -> Self {
        if let Ok(ip) = text.parse() {
            return Self::Ip(ip);
        }
        InstanceAddr::parse(text).map_or_else(|_| Self::Key(text.to_owned()), Self::Instance)
    }

    fn about_record(&self, record: &Record) -> bool {
        match self {
            Self::Key(key) => record.key == RecordKey::from(key.as_str()),
            Self::Ip(ip) => record.dialled().any(|(other, _)| other == *ip),
            Self::Instance(addr) => record.dialled().any(|(ip, port)| (ip, port) == (addr.ip(), addr.port())),
        }
    }

    /// The records that were found tell which addresses a key stands for.
    fn about_account(&self, account: &Account, records: &[SeenRecord]) -> bool {
        match self {
            Self::Key(key) => {
                account.instance == *key
                    || records
                        .iter()
                        .flat_map(|record| &record.addresses)
                        .any(|address| ends_so(address, &account.instance))
            }
            Self::Ip(ip) => InstanceAddr::parse(&account.instance).is_ok_and(|addr| addr.ip() == *ip),
            Self::Instance(addr) => InstanceAddr::parse(&account.instance).is_ok_and(|other| other == *addr),
        }
    }
}

/// Kratos' addresses have a scheme before them.
fn ends_so(address: &str, instance: &str) -> bool {
    address == instance || address.split_once("://").is_some_and(|(_, rest)| rest == instance)
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub asked: String,
    /// Who writes now; absent where nobody does.
    pub leader: Option<String>,
    pub records: Vec<SeenRecord>,
    pub services: Vec<ByService>,
    /// What else explains it.
    pub remarks: Vec<String>,
    /// Whether the cluster and every registry could be asked.
    pub complete: bool,
}

/// What one RegisteredService makes of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ByService {
    pub service: String,
    #[serde(flatten)]
    pub account: Account,
}

/// Asks every registry and every RegisteredService.
pub fn explain(onlooker: &Onlooker, text: &str, leader: Option<String>, missing: &[Missing]) -> Explanation {
    let question = Question::new(text);
    let records = onlooker.records(|record| question.about_record(record));
    let mut explanation = Explanation {
        asked: text.to_owned(),
        leader,
        records,
        services: Vec::new(),
        remarks: Vec::new(),
        complete: missing.is_empty(),
    };
    let mut others = Vec::new();
    let mut asked_for = BTreeSet::new();
    for key in onlooker.services() {
        let Some(outlook) = onlooker.outlook(&key) else { continue };
        explanation.complete &= outlook.unavailable.is_none();
        let remarks = remarks::of_service(&outlook);
        let Outlook { registry, registry_name, instances, .. } = outlook;
        let mut of_it = explanation.records.iter().map(|record| (&record.registry, &record.name));
        let named = of_it.any(|record| record == (&registry, &registry_name));
        let about: Vec<Account> =
            instances.into_iter().filter(|account| question.about_account(account, &explanation.records)).collect();
        if named || !about.is_empty() {
            explanation.remarks.extend(remarks);
        } else {
            others.extend(remarks);
        }
        explanation.services.extend(about.into_iter().map(|account| ByService { service: key.to_string(), account }));
        asked_for.insert((registry, registry_name));
    }
    for record in &explanation.records {
        let (registry, name) = (&record.registry, &record.name);
        if !asked_for.contains(&(registry.clone(), name.clone())) {
            let remark = format!("no RegisteredService refers to the name {name:?} in registry {registry}");
            explanation.remarks.push(remark);
        }
    }
    if !explanation.is_known() {
        explanation
            .remarks
            .push("no registry that is watched has it, and no Service of a RegisteredService".to_owned());
        explanation.remarks.extend(others);
    }
    explanation.remarks.extend(remarks::of_leader(explanation.leader.as_deref()));
    explanation.remarks.extend(missing.iter().map(remarks::of_missing));
    explanation.remarks.dedup();
    explanation
}

impl Explanation {
    /// Somebody has it.
    pub fn is_known(&self) -> bool {
        !self.records.is_empty() || !self.services.is_empty()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for record in &self.records {
            writeln!(f, "record {} in registry {}", record.key, record.registry)?;
            let owner = record.owner.as_ref().map(|owner| format!(", of {owner}")).unwrap_or_default();
            let lease = if record.lease.is_empty() { "no lease".to_owned() } else { format!("lease {}", record.lease) };
            writeln!(f, "  {}{owner}; revision {}, {lease}", record.whose, record.revision)?;
            if !record.addresses.is_empty() {
                writeln!(f, "  address {}", record.addresses.join(", "))?;
            }
            if let Some(problem) = &record.problem {
                writeln!(f, "  it does not decode: {problem}")?;
            }
        }
        if !self.services.is_empty() {
            let mut columns = Columns::new(["REGISTEREDSERVICE", "INSTANCE", "STATE", "WHY"]);
            for by in &self.services {
                let account = &by.account;
                columns.add([
                    by.service.clone(),
                    account.instance.clone(),
                    account.state.clone(),
                    account.text.clone(),
                ]);
            }
            write!(f, "{columns}")?;
        }
        for remark in &self.remarks {
            writeln!(f, "note: {remark}")?;
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
