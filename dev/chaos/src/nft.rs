//! Faults of the network as rules of `nft` and `tc` on one host.
//!
//! Owns the text of the rules. Refuses to know which host they are for.

use std::net::Ipv4Addr;

use anyhow::Result;
use twinspan_testbed::{Host, OBSERVER};

use crate::fault::{Impairment, Traffic, Ways};

/// The table of one fault, so that it ends by the removal of its table.
fn table(number: usize) -> String {
    format!("fault{number}")
}

fn rules(number: usize, out: &str, into: &str) -> String {
    format!(
        "table inet {} {{\n\
         chain out {{ type filter hook output priority 0; {out}\n}}\n\
         chain in {{ type filter hook input priority 0; {into}\n}}\n}}\n",
        table(number)
    )
}

/// Drops packets between the host and one peer.
pub fn cut(number: usize, peer: Ipv4Addr, ways: Ways, traffic: Traffic) -> String {
    let (out, into) = match traffic {
        Traffic::All => ("", ""),
        Traffic::Syn => ("tcp flags & (syn|ack) == syn ", "tcp flags & (syn|ack) == syn "),
        // The peer is the one that serves the port.
        Traffic::Etcd => ("tcp dport 2379 ", "tcp sport 2379 "),
    };
    let out = if ways == Ways::In { String::new() } else { format!("ip daddr {peer} {out}drop;") };
    let into = if ways == Ways::Out { String::new() } else { format!("ip saddr {peer} {into}drop;") };
    rules(number, &out, &into)
}

/// Drops every packet of the host, except those of the bed's observer.
pub fn isolate(number: usize) -> String {
    let except = |side: &str, device: &str| format!("{device} eth0 ip {side} != {OBSERVER} drop;");
    rules(number, &except("daddr", "oifname"), &except("saddr", "iifname"))
}

/// Drops one packet in five.
pub fn loss(number: usize) -> String {
    let some = |device: &str| format!("{device} eth0 numgen random mod 100 < 20 drop;");
    rules(number, &some("oifname"), &some("iifname"))
}

/// Puts rules in force.
pub fn begin(host: &Host, rules: &str) -> Result<()> {
    host.run("nft", &["-f", "-"], rules)
}

pub fn end(host: &Host, number: usize) -> Result<()> {
    host.run("nft", &["delete", "table", "inet", &table(number)], "")
}

pub fn impair(host: &Host, number: usize, impairment: Impairment) -> Result<()> {
    match impairment {
        Impairment::Loss => begin(host, &loss(number)),
        Impairment::Delay => host.run("tc", &words("qdisc add dev eth0 root netem delay 200ms 100ms"), ""),
        Impairment::Rate => {
            host.run("tc", &words("qdisc add dev eth0 root tbf rate 64kbit burst 4kb latency 400ms"), "")
        }
    }
}

pub fn mend(host: &Host, number: usize, impairment: Impairment) -> Result<()> {
    match impairment {
        Impairment::Loss => end(host, number),
        Impairment::Delay | Impairment::Rate => host.run("tc", &words("qdisc del dev eth0 root"), ""),
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 20);

    #[test]
    fn one_way_leaves_the_other_chain_empty() {
        let out = cut(3, PEER, Ways::Out, Traffic::All);
        assert!(out.contains("table inet fault3") && out.contains("ip daddr 10.77.1.20 drop;"), "{out}");
        assert!(!out.contains("saddr"), "{out}");
        assert!(!cut(3, PEER, Ways::In, Traffic::All).contains("daddr"));
    }

    #[test]
    fn the_port_is_the_peers() {
        let both = cut(1, PEER, Ways::Both, Traffic::Etcd);
        assert!(both.contains("ip daddr 10.77.1.20 tcp dport 2379 drop;"), "{both}");
        assert!(both.contains("ip saddr 10.77.1.20 tcp sport 2379 drop;"), "{both}");
    }

    #[test]
    fn an_isolated_host_still_answers_the_observer() {
        let rules = isolate(2);
        assert!(rules.contains("oifname eth0 ip daddr != 10.77.255.254 drop;"), "{rules}");
    }
}
