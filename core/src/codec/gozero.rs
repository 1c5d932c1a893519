//! go-zero: the value is `host:port` and nothing else, as zeromicro/go-zero v1.10.3 (`core/discov/publisher.go`,
//! `internal/registry.go`) writes and reads it.
//!
//! Owns the value. Readers take whatever stands there for an address, so nothing is unreadable; there is no weight and there are
//! no tags, and whose a record is can only be told from its key.

use super::go_json;
use crate::model::Registration;

pub fn decode(value: &[u8]) -> Registration {
    Registration {
        network: "tcp".to_owned(),
        endpoints: vec![go_json::text(value).into_owned()],
        ..Registration::default()
    }
}

pub fn encode(registration: &Registration) -> Vec<u8> {
    registration.endpoints.first().cloned().unwrap_or_default().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(address in ".{0,40}") {
            let registration = decode(address.as_bytes());
            prop_assert_eq!(&registration.endpoints, &[address]);
            prop_assert_eq!(decode(&encode(&registration)), registration);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            decode(&bytes);
        }
    }
}
