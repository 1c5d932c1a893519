//! The table of parity: one row for each instance, one column for each side.
//!
//! Owns the comparison and the printed form. Refuses to ask any side.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use twinspan_core::model::InstanceAddr;

use crate::tools::explanation::Explanation;
use crate::tools::print::{self, Columns, Tone, line};

/// The instances that each side sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenBy {
    /// Ready endpoints of the Service, and whether Twinspan imported them.
    pub cluster: BTreeMap<InstanceAddr, Cell>,
    /// Records, and whether Twinspan exported them.
    pub registry: BTreeMap<InstanceAddr, Cell>,
    pub dns: Dns,
    /// The instances that a client of the registry's framework calls, or would call.
    pub client: BTreeSet<InstanceAddr>,
}

/// The answer of in-cluster DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Dns {
    /// DNS does not name instances: a ClusterIP Service answers with its own address.
    #[default]
    NotNamed,
    /// DNS was not asked, for this reason.
    NotAsked(String),
    Answers(BTreeSet<InstanceAddr>),
}

impl Dns {
    /// The cell of an instance.
    pub fn cell(&self, instance: InstanceAddr) -> Cell {
        match self {
            Self::NotNamed => Cell::NotNamed,
            Self::NotAsked(_) => Cell::NotAsked,
            Self::Answers(dns) => Cell::seen(dns, instance),
        }
    }

    /// A note where it was not asked.
    pub fn remark(&self) -> Option<String> {
        match self {
            Self::NotAsked(why) => Some(format!("DNS was not asked: {why}; say which server to ask with --dns")),
            Self::NotNamed | Self::Answers(_) => None,
        }
    }
}

/// The state of an instance on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Cell {
    /// An endpoint of the cluster that Twinspan did not import.
    Pod,
    /// An endpoint in a slice of ours.
    Imported,
    /// A record that we wrote.
    Own,
    /// A record of another writer.
    Foreign,
    Seen,
    Missing,
    /// The side does not name instances.
    NotNamed,
    /// The side was not asked.
    NotAsked,
}

impl Cell {
    fn seen(by: &BTreeSet<InstanceAddr>, instance: InstanceAddr) -> Self {
        if by.contains(&instance) { Self::Seen } else { Self::Missing }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Imported => "imported",
            Self::Own => "exported",
            Self::Foreign => "registered",
            Self::Seen => "yes",
            Self::Missing => "-",
            Self::NotNamed => "(n/a)",
            Self::NotAsked => "not asked",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub instance: String,
    pub cluster: Cell,
    pub registry: Cell,
    pub dns: Cell,
    /// A client of the registry's framework.
    pub client: Cell,
    /// Twinspan's explanation.
    pub why: Option<Explanation>,
}

impl Row {
    /// Whether every side that was asked and names instances sees this one.
    pub fn agrees(&self) -> bool {
        [self.cluster, self.registry, self.dns, self.client].iter().all(|cell| *cell != Cell::Missing)
    }

    /// Whether a person has to know: an instance that stands by, or whose pod is about to be ready, is meant to be on
    /// one side alone.
    fn differs(&self) -> bool {
        let is_meant = |why: &Explanation| why.stands_by() || why.is_before_ready();
        !self.agrees() && !self.why.as_ref().is_some_and(is_meant)
    }
}

/// One row for each instance, in address order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// The framework whose clients read the registry.
    pub framework: String,
    pub rows: Vec<Row>,
    /// Instances and records that are left out on purpose, with the reasons.
    pub left_out: Vec<Explanation>,
    /// Notes that also explain it.
    pub remarks: Vec<String>,
}

impl Table {
    pub fn new(seen_by: &SeenBy, framework: &str) -> Self {
        let mut all: BTreeSet<InstanceAddr> =
            seen_by.cluster.keys().chain(seen_by.registry.keys()).chain(&seen_by.client).copied().collect();
        if let Dns::Answers(dns) = &seen_by.dns {
            all.extend(dns);
        }
        let rows = all
            .into_iter()
            .map(|instance| Row {
                cluster: seen_by.cluster.get(&instance).copied().unwrap_or(Cell::Missing),
                registry: seen_by.registry.get(&instance).copied().unwrap_or(Cell::Missing),
                dns: seen_by.dns.cell(instance),
                client: Cell::seen(&seen_by.client, instance),
                instance: instance.to_string(),
                why: None,
            })
            .collect();
        let remarks = seen_by.dns.remark().into_iter().collect();
        Self { framework: framework.to_owned(), rows, left_out: Vec::new(), remarks }
    }

    /// Adds the explanations to rows that differ, and the instances that are left out.
    pub fn explained(mut self, explanations: Vec<Explanation>) -> Self {
        for explanation in explanations {
            match self.rows.iter_mut().find(|row| row.instance == explanation.instance) {
                Some(row) => row.why = Some(explanation),
                None => self.left_out.push(explanation),
            }
        }
        self
    }

    /// Adds notes about the whole table.
    pub fn remarked(mut self, remarks: impl IntoIterator<Item = String>) -> Self {
        self.remarks.extend(remarks);
        self
    }

    /// Whether every side sees the same instances, but for those that stand by.
    pub fn agrees(&self) -> bool {
        !self.rows.iter().any(Row::differs)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = format!("{} CLIENT", self.framework.to_uppercase());
        let mut columns = Columns::new(["INSTANCE", "CLUSTER", "REGISTRY", "DNS", &client, "WHY"]);
        for row in &self.rows {
            let cells = [row.cluster, row.registry, row.dns, row.client].map(|cell| cell.as_str().to_owned());
            let [cluster, registry, dns, client] = cells;
            let why = match &row.why {
                _ if row.agrees() => String::new(),
                Some(explanation) => {
                    let word = if row.differs() { "differs" } else { "left out" };
                    format!("{word}, {}: {}", explanation.state, explanation.text)
                }
                None => "differs".to_owned(),
            };
            let tone = row.differs().then_some(Tone::Bad);
            let cells = [cluster, registry, dns, client].map(|text| {
                let tone = tone.filter(|_| text == Cell::Missing.as_str());
                print::Cell::toned(text, tone)
            });
            let [cluster, registry, dns, client] = cells;
            columns.add([row.instance.clone().into(), cluster, registry, dns, client, print::Cell::from(why)]);
        }
        for explanation in &self.left_out {
            let why = format!("left out, {}: {}", explanation.state, explanation.text);
            // A record without an address that can be called has its key instead of one.
            let registry = if explanation.instance.contains('/') { Cell::Foreign } else { Cell::Missing };
            let [none, registry] = [Cell::Missing, registry].map(|cell| cell.as_str().to_owned());
            columns.add([explanation.instance.clone(), none.clone(), registry, none.clone(), none, why]);
        }
        match columns.is_empty() {
            true => writeln!(f, "No resources found")?,
            false => write!(f, "{columns}")?,
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

    fn addr(text: &str) -> InstanceAddr {
        InstanceAddr::parse(text).unwrap()
    }

    fn plain(table: &Table) -> String {
        anstream::adapter::strip_str(&table.to_string()).to_string()
    }

    #[test]
    fn a_row_for_each_instance_that_anybody_sees_and_a_mark_where_somebody_does_not() {
        let (pod, vm, lost) = (addr("10.0.0.1:80"), addr("10.0.0.2:80"), addr("[fd77::1]:80"));
        let mut seen_by = SeenBy {
            cluster: BTreeMap::from([(pod, Cell::Pod), (vm, Cell::Imported), (lost, Cell::Imported)]),
            registry: BTreeMap::from([(pod, Cell::Own), (vm, Cell::Foreign)]),
            dns: Dns::Answers(BTreeSet::from([pod, vm, lost])),
            client: BTreeSet::from([pod, vm]),
        };
        let table = Table::new(&seen_by, "Kitex");
        assert!(!table.agrees());
        assert_eq!(
            plain(&table),
            "INSTANCE      CLUSTER   REGISTRY    DNS  KITEX CLIENT  WHY\n\
             10.0.0.1:80   pod       exported    yes  yes\n\
             10.0.0.2:80   imported  registered  yes  yes\n\
             [fd77::1]:80  imported  -           yes  -             differs\n"
        );
        let account = |instance: &str, state: &str| Explanation {
            instance: instance.into(),
            state: state.into(),
            text: "so it is".into(),
        };
        let table = table.explained(vec![account("[fd77::1]:80", "Held"), account("10.0.0.9:80", "NotReady")]);
        let text = plain(&table);
        assert!(
            text.contains("[fd77::1]:80  imported  -           yes  -             differs, Held: so it is\n"),
            "{text}"
        );
        assert!(
            text.ends_with("10.0.0.9:80   -         -           -    -             left out, NotReady: so it is\n"),
            "{text}"
        );
        let standing_by = table.clone().explained(vec![account("[fd77::1]:80", "Standby")]);
        assert!(standing_by.agrees() && plain(&standing_by).contains("left out, Standby: so it is\n"), "{standing_by}");
        let before_ready = table.clone().explained(vec![account("[fd77::1]:80", "ExportedBeforeReady")]);
        assert!(before_ready.agrees(), "its gate is about to open: {before_ready}");
        let text = table.remarked(["no leader".to_owned()]).to_string();
        assert!(text.ends_with("so it is\nnote: no leader\n"), "{text}");
        seen_by.cluster.remove(&lost);
        seen_by.dns = Dns::NotNamed;
        assert!(Table::new(&seen_by, "Kitex").agrees(), "a side that names nobody misses nobody");
        seen_by.dns = Dns::NotAsked("it is another's".to_owned());
        let table = Table::new(&seen_by, "Kitex");
        assert!(table.agrees(), "and neither does one that was not asked");
        let text = table.to_string();
        assert!(text.contains("10.0.0.1:80  pod       exported    not asked  yes\n"), "{text}");
        assert!(
            text.ends_with("note: DNS was not asked: it is another's; say which server to ask with --dns\n"),
            "{text}"
        );
    }
}
