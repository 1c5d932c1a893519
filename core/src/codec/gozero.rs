//! go-zero: a value is `host:port` alone, as zeromicro/go-zero v1.10.3 (`core/discov/publisher.go`,
//! `internal/registry.go`) writes and reads it.
//!
//! Owns the key and the value. Readers take any text for an address, so every value decodes. It carries neither weight
//! nor tags, so the key names the owner. Refuses to judge an address.

use super::framework::{Framework, Undecodable};
use super::go_json;
use super::mark::key_owner;
use crate::model::{Instance, Owner, Registration};

#[derive(Debug)]
pub struct GoZero;

impl Framework for GoZero {
    fn name(&self) -> &'static str {
        "GoZero"
    }

    fn default_prefix(&self) -> &'static str {
        ""
    }

    /// Keys start with the name of the service.
    fn has_leading_slash(&self) -> bool {
        false
    }

    fn last_segment(&self, owner: &Owner, instance: &Instance) -> String {
        key_owner(owner, &instance.addr)
    }

    /// The ID of the lease, or `EtcdConf.ID`; hand-written registrars use addresses.
    fn key_is_address(&self) -> bool {
        false
    }

    fn decode(&self, value: &[u8]) -> Result<Registration, Undecodable> {
        Ok(Registration {
            network: "tcp".to_owned(),
            endpoints: vec![go_json::text(value).into_owned()],
            ..Registration::default()
        })
    }

    fn encode(&self, registration: &Registration) -> Vec<u8> {
        registration.endpoints.first().cloned().unwrap_or_default().into_bytes()
    }

    fn has_tags(&self) -> bool {
        false
    }

    /// `Publisher.revoke` of go-zero.
    fn leaves_by_revoking(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(address in ".{0,40}") {
            let registration = GoZero.decode(address.as_bytes()).unwrap();
            prop_assert_eq!(&registration.endpoints, &[address]);
            prop_assert_eq!(GoZero.decode(&GoZero.encode(&registration)), Ok(registration));
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(GoZero.decode(&bytes).is_ok());
        }
    }
}
