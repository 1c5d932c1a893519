//! A question of `explain`: a key, an address, or an instance.
//!
//! Owns the rule about which records and instances it is about. Refuses to answer.

use std::net::IpAddr;

use twinspan_core::model::{InstanceAddr, Record, RecordKey};

use super::explanation::Explanation;
use super::record::RecordReport;

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

    pub(super) fn is_about_record(&self, record: &Record) -> bool {
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
