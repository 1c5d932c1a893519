//! Hertz: JSON values as hertz-contrib/registry/etcd v0.1.1 (`registry.go`, `resolver.go`) writes and reads them.
//!
//! Owns the prefix and the rule for names. The value is the same object as Kitex', with the same laxness, so the codec
//! of [`kitex`] reads and writes it. Refuses to know its fields.

use jiff::SignedDuration;

use super::framework::{Framework, Undecodable};
use super::kitex;
use crate::model::{Instance, Owner, Registration, RegistryName};

#[derive(Debug)]
pub struct Hertz;

impl Framework for Hertz {
    fn name(&self) -> &'static str {
        "Hertz"
    }

    /// Programs cannot choose another one: the registry has no option for it (`option.go`).
    fn default_prefix(&self) -> &'static str {
        "hertz/registry-etcd"
    }

    fn prefix_pattern(&self) -> Option<&'static str> {
        Some("^hertz/registry-etcd$")
    }

    fn has_leading_slash(&self) -> bool {
        true
    }

    /// The key of a server that registers this address: such a server takes the record over, and removes it when it
    /// leaves.
    fn last_segment(&self, _owner: &Owner, instance: &Instance) -> String {
        instance.addr.to_string()
    }

    fn is_last_segment(&self, _owner: &Owner, instance: &Instance, text: &[u8]) -> bool {
        instance.addr.is_written(text)
    }

    fn key_is_address(&self) -> bool {
        true
    }

    fn decode(&self, value: &[u8]) -> Result<Registration, Undecodable> {
        kitex::decode(value)
    }

    fn encode(&self, registration: &Registration) -> Vec<u8> {
        kitex::encode(registration)
    }

    fn has_tags(&self) -> bool {
        true
    }

    fn weight(&self, registration: &Registration) -> Option<i64> {
        Some(kitex::weight(registration))
    }

    fn clients_learn_within(&self) -> SignedDuration {
        kitex::POLLED
    }

    fn says(&self, _name: &RegistryName, owner: &Owner, instance: &Instance, says: &Registration) -> bool {
        kitex::says(owner, instance, says)
    }

    /// Hertz clients take the name from the host of a request and lower-case it.
    fn name_error(&self, name: &RegistryName) -> Option<String> {
        name.as_str().bytes().any(|b| b.is_ascii_uppercase()).then(|| {
            format!("Hertz clients look for lower-case names only, and would never find {name}; set spec.registryName")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_find_lower_case_names_only() {
        let error = |name: &str| Hertz.name_error(&RegistryName::new(name).unwrap());
        assert_eq!(error("hertz.echo_1"), None);
        let text =
            "Hertz clients look for lower-case names only, and would never find Hertz.Echo; set spec.registryName";
        assert_eq!(error("Hertz.Echo").as_deref(), Some(text));
    }
}
