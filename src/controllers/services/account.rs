//! What becomes of each instance of a RegisteredService, and why: one line for a person who misses it.
//!
//! Owns the words. Refuses to decide: every word follows from what was observed and planned.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use twinspan_core::Timestamp;
use twinspan_core::model::{AddressType, InstanceAddr, Kind, Reason, Record, RecordKey, Slice, TCP};
use twinspan_core::plan::RecordOp;

use super::observe::Observed;
use super::plan::{Plan, Sides};
use super::status;
use super::validate::{Accepted, Refusal};
use crate::api::conditions::DELETIONS_HELD;

/// One instance, or a record that is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The address; the key of a record that has none.
    pub instance: String,
    /// One word: `Exported`, `Imported`, `NotReady`, or a reason of `status.skipped`.
    pub state: String,
    /// What it means, and what to do about it.
    pub text: String,
}

impl Account {
    fn new(instance: &impl ToString, state: impl Into<String>, text: impl Into<String>) -> Self {
        Self { instance: instance.to_string(), state: state.into(), text: text.into() }
    }

    /// Whether both sides have it, or will.
    pub fn is_shared(&self) -> bool {
        matches!(
            self.state.as_str(),
            "Exported" | "ToBeExported" | "Imported" | "ToBeImported" | "SelfRegistered" | "Lost" | "Healed"
        )
    }
}

/// In the order of addresses, then keys.
pub fn accounts(observed: &Observed, accepted: &Accepted, plan: &Plan, now: Timestamp) -> Vec<Account> {
    let mut all = BTreeMap::new();
    let mut rest = Vec::new();
    from_cluster(observed, accepted, plan, now, &mut all);
    let Some(sides) = &plan.sides else {
        for addr in addresses(&observed.our_slices) {
            let text =
                "the registry cannot be asked now, and what was imported from it is kept; see its ServiceRegistry";
            all.entry(addr).or_insert_with(|| Account::new(&addr, "RegistryUnavailable", text));
        }
        return all.into_values().collect();
    };
    from_registry(observed, accepted, plan, &mut all);
    from_imports(observed, accepted, sides, now, &mut all);
    for skipped in sides.import.skipped.iter().chain(&sides.export.skipped) {
        let account = Account::new(&skipped.instance, skipped.reason.label(), explanation(skipped.reason));
        match InstanceAddr::parse(&skipped.instance) {
            Ok(addr) => drop(all.entry(addr).or_insert(account)),
            Err(_) => rest.push(account),
        }
    }
    all.into_values().chain(rest).collect()
}

/// Of one that is not accepted: whatever either side has for it, all for one reason.
pub fn refused(observed: &Observed, refusal: &Refusal) -> Vec<Account> {
    let account = |instance: &dyn Display| Account::new(&instance, refusal.reason.as_str(), refusal.message.clone());
    let mut instances: BTreeSet<InstanceAddr> = addresses(&observed.others_slices).collect();
    instances.extend(addresses(&observed.our_slices));
    let mut rest = Vec::new();
    for (key, record) in observed.session.iter().flat_map(|session| &session.snapshot.records) {
        instances.extend(record.addrs());
        if record.addrs().next().is_none() {
            rest.push(account(key));
        }
    }
    instances.iter().map(|addr| account(addr)).chain(rest).collect()
}

/// What slices name, ready or not.
fn addresses(slices: &[Arc<Slice>]) -> impl Iterator<Item = InstanceAddr> {
    slices.iter().flat_map(|slice| {
        let ports = slice.ports.iter().filter(|port| port.protocol == TCP).filter_map(|port| port.number);
        let ips = move || slice.endpoints.iter().filter_map(|endpoint| endpoint.address.parse::<IpAddr>().ok());
        ports.flat_map(move |port| ips().filter_map(move |ip| InstanceAddr::new(ip, port).ok()))
    })
}

type Accounts = BTreeMap<InstanceAddr, Account>;

/// Endpoints that others manage: why each is exported or not.
fn from_cluster(observed: &Observed, accepted: &Accepted, plan: &Plan, now: Timestamp, all: &mut Accounts) {
    let ready = accepted.ready(observed);
    for slice in &observed.others_slices {
        let AddressType::Ip(family) = slice.address_type else { continue };
        for port in slice.ports.iter().filter(|port| port.protocol == TCP) {
            let Some(number) = port.number else { continue };
            let meant = accepted.ports.iter().any(|wanted| wanted.port.name == port.name);
            for endpoint in &slice.endpoints {
                let Some(addr) =
                    endpoint.address.parse::<IpAddr>().ok().and_then(|ip| InstanceAddr::new(ip, number).ok())
                else {
                    continue;
                };
                let account = if ready.contains_key(&addr) {
                    exported(observed, accepted, plan, addr, now)
                } else if !meant {
                    let names: Vec<&str> = accepted.ports.iter().map(|wanted| wanted.port.name.as_str()).collect();
                    let text = format!(
                        "its port {:?} is not the one that is meant ({names:?}); see spec.service.ports",
                        port.name
                    );
                    Account::new(&addr, "WrongPort", text)
                } else if endpoint.is_terminating() {
                    Account::new(&addr, "Terminating", "its pod is terminating; it is not exported any more")
                } else if !endpoint.is_ready() {
                    Account::new(&addr, "NotReady", "its pod is not ready; see its readiness probe")
                } else if !accepted.families.contains(&family) {
                    let text = "only the Service's primary IP family is exported; see spec.export.ipFamilyPolicy";
                    Account::new(&addr, "OtherFamily", text)
                } else {
                    let text = "the Service has no selector any more, so nobody looks after this endpoint";
                    Account::new(&addr, "LeftOver", text)
                };
                all.insert(addr, account);
            }
        }
    }
}

fn exported(observed: &Observed, accepted: &Accepted, plan: &Plan, addr: InstanceAddr, now: Timestamp) -> Account {
    if !accepted.direction.exports() {
        return Account::new(&addr, "NotRequested", "it is not exported: spec.direction is Import");
    }
    let (Some(sides), Some(session)) = (&plan.sides, &observed.session) else {
        return Account::new(&addr, "RegistryUnavailable", "the registry cannot be asked now; see its ServiceRegistry");
    };
    if let Some(skipped) = sides.export.skipped.iter().find(|skipped| skipped.instance == addr.to_string()) {
        return Account::new(&addr, skipped.reason.label(), explanation(skipped.reason));
    }
    let at = |record: &Record| record.addrs().any(|other| other == addr);
    let cluster_id = &session.owner.cluster_id;
    let mut records = session.snapshot.records.values().filter(|record| at(record));
    if records.any(|record| !matches!(record.kind(cluster_id), Kind::Own(_))) {
        let text = "its own server registered it; Twinspan adds no second record, which would double its traffic";
        return Account::new(&addr, "SelfRegistered", text);
    }
    if let Some(until) = session.snapshot.departures.get(&addr).and_then(|departure| departure.holds_export(now)) {
        let text = format!("its own record left while it is ready; it is exported again at {until:.0}");
        return Account::new(&addr, "Waiting", text);
    }
    let own = session.snapshot.records.values().filter(|record| at(record)).find_map(|record| {
        let same = record.own(cluster_id).is_some_and(|owner| *owner == session.owner);
        same.then_some(&record.key)
    });
    match own {
        Some(key) => Account::new(&addr, "Exported", format!("as {key}")),
        None => Account::new(&addr, "ToBeExported", format!("its record is not there yet; {}", next(accepted))),
    }
}

/// Records under the name: own ones without an endpoint. Foreign ones are imported or skipped.
fn from_registry(observed: &Observed, accepted: &Accepted, plan: &Plan, all: &mut Accounts) {
    let Some(session) = &observed.session else { return };
    let deletes = |key: &RecordKey| {
        let ops = plan.records.iter().flat_map(|(_, ops)| ops);
        ops.into_iter().any(|op| matches!(op, RecordOp::Delete { .. }) && op.key() == key)
    };
    for (key, record) in &session.snapshot.records {
        let own = record.own(&session.owner.cluster_id);
        for addr in record.addrs() {
            match own {
                Some(owner) if *owner != session.owner => {
                    let text = format!("{owner} exported it under the same name");
                    all.entry(addr).or_insert_with(|| Account::new(&addr, "OthersExport", text));
                }
                Some(_) if deletes(key) => {
                    let text = format!("its endpoint is gone, and {key} is to go; {}", next(accepted));
                    all.entry(addr).or_insert_with(|| Account::new(&addr, "ToBeWithdrawn", text));
                }
                Some(_) => {
                    all.entry(addr).or_insert_with(|| held(observed, addr, "no ready endpoint is behind its record"));
                }
                None if !accepted.direction.imports() => {
                    let text = "it is not imported: spec.direction is Export";
                    all.entry(addr).or_insert_with(|| Account::new(&addr, "NotRequested", text));
                }
                None if all.get(&addr).is_some_and(|account| !account.is_shared()) => {
                    if let Some(account) = all.get_mut(&addr) {
                        account.text = format!("{}. It registered itself as {key}", account.text);
                    }
                }
                None => {}
            }
        }
    }
}

/// Endpoints that are imported, or stay although their record is gone.
fn from_imports(observed: &Observed, accepted: &Accepted, sides: &Sides, now: Timestamp, all: &mut Accounts) {
    let Some(session) = &observed.session else { return };
    let present = super::plan::present(observed, accepted);
    for (addr, imported) in &sides.import.endpoints {
        let registered = session.snapshot.records.values().any(|record| record.addrs().any(|other| other == *addr));
        let lost = imported.lost_until.filter(|until| *until > now);
        let account = match (registered, lost) {
            (true, Some(until)) => {
                let text = format!(
                    "it lost its registration and accepts connections; its record is put back until {until:.0}"
                );
                Account::new(&addr, "Healed", text)
            }
            (false, Some(until)) => {
                let text = format!(
                    "it lost its registration and accepts connections; it stays until {until:.0}. Restart it to register again"
                );
                Account::new(&addr, "Lost", text)
            }
            (false, None) => held(observed, *addr, "no record is behind its endpoint"),
            (true, None) if present.contains_key(addr) => {
                Account::new(&addr, "Imported", "it is an endpoint of the Service")
            }
            (true, None) => {
                Account::new(&addr, "ToBeImported", format!("its endpoint is not there yet; {}", next(accepted)))
            }
        };
        all.insert(*addr, account);
    }
}

/// When what is planned is written.
fn next(accepted: &Accepted) -> &'static str {
    if accepted.writes {
        "it waits for the leader's next pass"
    } else {
        "nothing is written: spec.policy is Observe, or spec.suspend is set"
    }
}

/// It stays although one side lacks it: the guard holds it, or more has to be known first.
fn held(observed: &Observed, addr: InstanceAddr, why: &str) -> Account {
    match status::before(observed, DELETIONS_HELD).filter(|held| held.status == "True") {
        Some(held) => Account::new(&addr, "Held", format!("{why}; {}", held.message)),
        None => Account::new(&addr, "Waiting", format!("{why}; it is judged within seconds")),
    }
}

/// What a reason of `status.skipped` means, and what to do.
pub fn explanation(reason: Reason) -> &'static str {
    match reason {
        Reason::AddressMissing => "the record has no address; its server has to register one",
        Reason::AddressMalformed => "its address cannot be read; its server has to register IP:PORT",
        Reason::HostnameAddress => "EndpointSlices take IP addresses, and this is a name; register the server's IP",
        Reason::PortMissing => "its address has no port",
        Reason::PortZero => "port 0 cannot be called",
        Reason::NonCanonicalAddress => {
            "the IP is written in an odd form that EndpointSlices refuse; register its usual form"
        }
        Reason::Ipv4MappedAddress => "an IPv4 address in IPv6 form; register it as IPv4",
        Reason::ZoneIdentifier => "an address with a zone means something on one machine only",
        Reason::UnspecifiedAddress => "0.0.0.0 and [::] are no addresses of a server; register its IP",
        Reason::LoopbackAddress => "a loopback address leads every client to itself; register the server's IP",
        Reason::LinkLocalAddress => "a link-local address means something on one link only",
        Reason::MulticastAddress => "a multicast address is no server",
        Reason::BroadcastAddress => "a broadcast address is no server",
        Reason::Undecodable => "the value is none of the registry's format; see twinspan explain KEY",
        Reason::NotTCP => "its network is not TCP, and only TCP ports are imported",
        Reason::KeyValueMismatch => "its key names another address than its value; one of them is wrong",
        Reason::OtherName => "its value names another service than its key, so clients pass over it",
        Reason::NoSuchScheme => "it has no address with the scheme of a chosen port; see spec.service.ports[].scheme",
        Reason::APIServerAddress => "it is the API server's address, which no registry may put into a Service",
        Reason::ServiceAddress => "it lies in a Service range, and traffic would go in a circle",
        Reason::NodeAddress => "it is a Node's address; spec.importPolicy.allowCIDRs of the ServiceRegistry permits it",
        Reason::OtherNamespacesPod => "it is the pod of another namespace",
        Reason::NoSuchPod => "it lies in a pod range, and no pod has it: its record was left behind",
        Reason::DeniedCIDR => "spec.importPolicy.denyCIDRs of the ServiceRegistry refuses it",
        Reason::NotInAllowCIDRs => "spec.importPolicy.allowCIDRs of the ServiceRegistry does not name it",
        Reason::NotSelected => "its tags do not match spec.import.tagSelector",
        Reason::OtherCluster => "another cluster's Twinspan exported it; spec.import.otherClusters All imports it",
        Reason::FormerEndpoint => {
            "it was a pod of the Service, and its record was left behind; registering anew imports it"
        }
        Reason::Conflict => "an older RegisteredService, or somebody's record under our key, has it",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_both_sides_have_is_shared() {
        let shared: BTreeSet<bool> =
            ["Exported", "Imported", "Lost"].into_iter().map(|s| Account::new(&"x", s, "").is_shared()).collect();
        assert_eq!(shared, BTreeSet::from([true]));
        assert!(!Account::new(&"x", "NotReady", "").is_shared());
        assert!(!Account::new(&"x", Reason::OtherCluster.label(), "").is_shared());
    }
}
