//! The records of other writers, by the addresses of their servers.
//!
//! Owns the question who else registered an address. Refuses to know the consequence.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::writers::{Writer, Writers};
use crate::model::{InstanceAddr, Record};

/// The records of other writers under the name, by the addresses that a client would call, regardless of key and form.
/// A healed record of this owner counts for none: it ends where the cluster has the endpoint.
#[derive(Debug)]
pub(super) struct Registered<'b, 'a> {
    writers: &'b Writers<'a>,
    /// Other addresses of instances.
    aliases: &'b BTreeMap<InstanceAddr, (IpAddr, u16)>,
    /// Read at the first question: nobody asks where there is neither an instance nor an own record to end.
    by_address: OnceCell<BTreeMap<(IpAddr, u16), &'a Record>>,
}

impl<'b, 'a> Registered<'b, 'a> {
    pub fn by_others(writers: &'b Writers<'a>, aliases: &'b BTreeMap<InstanceAddr, (IpAddr, u16)>) -> Self {
        Self { writers, aliases, by_address: OnceCell::new() }
    }

    /// The first record that a client would call at an address, or at another one of the same server.
    pub fn at(&self, addr: InstanceAddr) -> Option<&'a Record> {
        let by_address = self.by_address.get_or_init(|| self.read());
        let found = by_address.get(&(addr.ip(), addr.port()));
        found.or_else(|| by_address.get(self.aliases.get(&addr)?)).copied()
    }

    fn read(&self) -> BTreeMap<(IpAddr, u16), &'a Record> {
        let mut by_address = BTreeMap::new();
        for record in self.writers.by(|writer| matches!(writer, Writer::HealedBySibling | Writer::Other)) {
            for addr in record.client_addresses() {
                by_address.entry(addr).or_insert(record);
            }
        }
        by_address
    }
}
