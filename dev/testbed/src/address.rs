//! Addresses that are unique in the namespace.
//!
//! `10.77.N.0/24` with N below 64, and from 224 on, belongs to beds; instances get the rest, one after the other.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Result;

use crate::namespace;

static NEXT: AtomicU16 = AtomicU16::new(0);
static BEDS: AtomicU16 = AtomicU16::new(0);

const FIRST_INSTANCE_NET: u16 = 64;
/// The first network of the beds that come after those below.
const FIRST_LATER_BED: u16 = 224;

fn next() -> (u8, u8) {
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let net = FIRST_INSTANCE_NET + n / 250;
    assert!(net < FIRST_LATER_BED, "a test run uses fewer addresses than there are");
    (u8::try_from(net).expect("checked above"), u8::try_from(n % 250 + 1).expect("at most 250"))
}

/// An IPv4 address for one instance.
pub fn next_v4() -> Ipv4Addr {
    let (net, host) = next();
    Ipv4Addr::new(10, 77, net, host)
}

/// An IPv6 address for one instance. Unlike with IPv4, a program cannot listen on it with a local route alone, so the
/// loopback interface gets the address.
pub fn next_v6() -> Result<Ipv6Addr> {
    let (net, host) = next();
    let ip = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, u16::from(net), u16::from(host));
    namespace::ip(&format!("-6 address add {ip}/128 dev lo nodad"))?;
    Ok(ip)
}

/// The third part of a new bed's addresses.
pub(crate) fn next_bed() -> u8 {
    let n = BEDS.fetch_add(1, Ordering::Relaxed);
    let net = if n < FIRST_INSTANCE_NET { n } else { FIRST_LATER_BED + n - FIRST_INSTANCE_NET };
    u8::try_from(net).expect("a test run has fewer beds than there are networks")
}

/// The address of a registry beside a bed.
pub(crate) fn next_registry(bed: u8) -> Ipv4Addr {
    static REGISTRIES: AtomicU16 = AtomicU16::new(10);
    let host = REGISTRIES.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(10, 77, bed, u8::try_from(host).expect("a test run starts fewer than 245 registries"))
}
