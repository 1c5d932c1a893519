//! The writer of each record under a name, looked at once by an export and the outcomes of its pass.
//!
//! A record, its mark and its owner lie apart in memory, so one look at the writers of a large service costs more than
//! all that follows from it. Owns that look. Refuses to judge.

use crate::model::{Kind, Owner, Record, RecordKey, Records};

/// The writer of a record, seen from one RegisteredService.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The RegisteredService exported it.
    Us,
    /// Another RegisteredService of this cluster exported it.
    Sibling,
    /// The RegisteredService put it back for its server.
    HealedByUs,
    /// Another RegisteredService of this cluster put it back.
    HealedBySibling,
    /// Somebody else wrote it, or nobody knows who.
    Other,
}

impl Writer {
    fn of(record: &Record, owner: &Owner) -> Self {
        match record.kind(&owner.cluster_id) {
            Kind::Own(by) if by.service == owner.service => Self::Us,
            Kind::Own(_) => Self::Sibling,
            Kind::Healed(by) if by == owner => Self::HealedByUs,
            Kind::Healed(by) if by.cluster_id == owner.cluster_id => Self::HealedBySibling,
            Kind::Healed(_) | Kind::OtherCluster | Kind::Foreign | Kind::Undecodable => Self::Other,
        }
    }

    /// Whether this cluster exported the record.
    pub fn exported(self) -> bool {
        matches!(self, Self::Us | Self::Sibling)
    }
}

/// Every record under a name with its writer, in key order.
#[derive(Debug)]
pub struct Writers<'a>(Vec<(&'a Record, Writer)>);

impl<'a> Writers<'a> {
    pub fn of(records: &'a Records, owner: &Owner) -> Self {
        Self(records.values().map(|record| (record.as_ref(), Writer::of(record, owner))).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a Record, Writer)> {
        self.0.iter().copied()
    }

    /// The records of some writers.
    pub fn by(&self, written: impl Fn(Writer) -> bool) -> impl Iterator<Item = &'a Record> {
        self.iter().filter(move |(_, writer)| written(*writer)).map(|(record, _)| record)
    }

    /// The record at a position in key order.
    pub fn at(&self, position: usize) -> Option<(&'a Record, Writer)> {
        self.0.get(position).copied()
    }

    /// Whether neither this RegisteredService nor another one of the cluster wrote the record at a position.
    pub fn is_of_others(&self, position: usize) -> bool {
        self.0.get(position).is_some_and(|(_, writer)| *writer == Writer::Other)
    }

    /// The position of the record with a key.
    pub fn position(&self, key: &RecordKey) -> Option<usize> {
        self.0.binary_search_by(|(record, _)| record.key.cmp(key)).ok()
    }
}
