//! Puts what each side sees beside the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use twinspan_core::model::InstanceAddr;

/// What each side sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sides {
    /// Ready endpoints of the Service, and whether Twinspan imported them.
    pub cluster: BTreeMap<InstanceAddr, Cell>,
    /// Records, and whether Twinspan exported them.
    pub registry: BTreeMap<InstanceAddr, Cell>,
    /// `None` where DNS does not name instances: a ClusterIP Service answers with its own address.
    pub dns: Option<BTreeSet<InstanceAddr>>,
    /// What a Kitex client calls, or would.
    pub kitex: BTreeSet<InstanceAddr>,
}

/// How a side sees an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// An endpoint that the cluster has by itself.
    Pod,
    /// An endpoint in a slice of ours.
    Imported,
    /// A record that we wrote.
    Own,
    /// A record that somebody else wrote.
    Foreign,
    Seen,
    Missing,
    /// The side does not name instances.
    NotNamed,
}

impl Cell {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Imported => "imported",
            Self::Own => "exported",
            Self::Foreign => "registered",
            Self::Seen => "yes",
            Self::Missing => "-",
            Self::NotNamed => "(n/a)",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub instance: InstanceAddr,
    pub cluster: Cell,
    pub registry: Cell,
    pub dns: Cell,
    pub kitex: Cell,
}

impl Row {
    /// Every side that names instances sees it.
    pub fn agrees(&self) -> bool {
        [self.cluster, self.registry, self.dns, self.kitex].iter().all(|cell| *cell != Cell::Missing)
    }
}

/// One row an instance, in address order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub rows: Vec<Row>,
}

impl Table {
    pub fn new(sides: &Sides) -> Self {
        let mut all: BTreeSet<InstanceAddr> =
            sides.cluster.keys().chain(sides.registry.keys()).chain(&sides.kitex).copied().collect();
        all.extend(sides.dns.iter().flatten().copied());
        let seen = |by: &BTreeSet<InstanceAddr>, instance: &InstanceAddr| {
            if by.contains(instance) { Cell::Seen } else { Cell::Missing }
        };
        let rows = all
            .into_iter()
            .map(|instance| Row {
                cluster: sides.cluster.get(&instance).copied().unwrap_or(Cell::Missing),
                registry: sides.registry.get(&instance).copied().unwrap_or(Cell::Missing),
                dns: sides.dns.as_ref().map_or(Cell::NotNamed, |dns| seen(dns, &instance)),
                kitex: seen(&sides.kitex, &instance),
                instance,
            })
            .collect();
        Self { rows }
    }

    /// Every side sees the same instances.
    pub fn agrees(&self) -> bool {
        self.rows.iter().all(Row::agrees)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["INSTANCE", "CLUSTER", "REGISTRY", "DNS", "KITEX CLIENT", ""];
        let mut lines = vec![head.map(ToOwned::to_owned)];
        lines.extend(self.rows.iter().map(|row| {
            let cells = [row.cluster, row.registry, row.dns, row.kitex].map(|cell| cell.as_str().to_owned());
            let [cluster, registry, dns, kitex] = cells;
            let mark = if row.agrees() { "" } else { "differs" };
            [row.instance.to_string(), cluster, registry, dns, kitex, mark.to_owned()]
        }));
        let mut widths = [0; 6];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.len().max(*width);
            }
        }
        for line in &lines {
            let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
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

    #[test]
    fn a_row_for_each_instance_that_anybody_sees_and_a_mark_where_somebody_does_not() {
        let (pod, vm, lost) = (addr("10.0.0.1:80"), addr("10.0.0.2:80"), addr("[fd77::1]:80"));
        let mut sides = Sides {
            cluster: BTreeMap::from([(pod, Cell::Pod), (vm, Cell::Imported), (lost, Cell::Imported)]),
            registry: BTreeMap::from([(pod, Cell::Own), (vm, Cell::Foreign)]),
            dns: Some(BTreeSet::from([pod, vm, lost])),
            kitex: BTreeSet::from([pod, vm]),
        };
        let table = Table::new(&sides);
        assert!(!table.agrees());
        assert_eq!(
            table.to_string(),
            "INSTANCE      CLUSTER   REGISTRY    DNS  KITEX CLIENT\n\
             10.0.0.1:80   pod       exported    yes  yes\n\
             10.0.0.2:80   imported  registered  yes  yes\n\
             [fd77::1]:80  imported  -           yes  -             differs\n"
        );
        sides.cluster.remove(&lost);
        sides.dns = None;
        assert!(Table::new(&sides).agrees(), "a side that names nobody misses nobody");
    }
}
