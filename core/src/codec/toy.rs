//! A format that exists in tests only: `k=v;` pairs.
//!
//! Owns the proof that a new format is one file and one line of the list: every test over `Format::ALL` covers it.
//! Refuses to be built outside tests.

use serde_json::Value;

use super::framework::{Framework, Undecodable};
use crate::model::{Instance, Owner, Registration};

#[derive(Debug)]
pub struct Toy;

/// Keys that begin so are tags.
const TAG: &str = "tag.";

impl Framework for Toy {
    fn name(&self) -> &'static str {
        "Toy"
    }

    fn default_prefix(&self) -> &'static str {
        "toys"
    }

    fn has_leading_slash(&self) -> bool {
        false
    }

    fn last_segment(&self, _owner: &Owner, instance: &Instance) -> String {
        instance.addr.to_string()
    }

    fn key_is_address(&self) -> bool {
        true
    }

    fn decode(&self, value: &[u8]) -> Result<Registration, Undecodable> {
        let text = std::str::from_utf8(value).map_err(|error| Undecodable(error.to_string()))?;
        let mut found = Registration { network: "tcp".to_owned(), ..Registration::default() };
        for pair in text.split_terminator(';') {
            match pair.split_once('=') {
                Some(("at", address)) => found.endpoints.push(address.to_owned()),
                Some(("weight", weight)) => found.weight = weight.parse().map_err(|_| Undecodable(pair.to_owned()))?,
                Some((key, value)) => match key.strip_prefix(TAG) {
                    Some(tag) => drop(found.tags.insert(tag.to_owned(), value.to_owned())),
                    None => drop(found.rest.insert(key.to_owned(), Value::from(value))),
                },
                None => return Err(Undecodable(pair.to_owned())),
            }
        }
        Ok(found)
    }

    fn encode(&self, registration: &Registration) -> Vec<u8> {
        let at = registration.endpoints.iter().map(|address| format!("at={address};"));
        let weight = [format!("weight={};", registration.weight)];
        let tags = registration.tags.iter().map(|(tag, value)| format!("{TAG}{tag}={value};"));
        let rest =
            registration.rest.iter().map(|(key, value)| format!("{key}={};", value.as_str().unwrap_or_default()));
        at.chain(weight).chain(tags).chain(rest).collect::<String>().into_bytes()
    }

    fn has_tags(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Format, Layout};
    use crate::model::{InstanceAddr, RegistryName, ServiceKey, Tags};

    #[test]
    fn its_keys_and_bytes_are_its_own() {
        let layout = Layout::new(Format::Toy, Format::Toy.default_prefix());
        let owner = Owner { cluster_id: "c-1".into(), service: ServiceKey::new("shop", "echo") };
        let name = RegistryName::new("echo").unwrap();
        let instance = Instance::single(InstanceAddr::parse("10.0.0.1:80").unwrap(), 7, Tags::new());
        assert_eq!(layout.key(&name, &owner, &instance).to_string(), "toys/echo/10.0.0.1:80");
        let value = layout.encode(&layout.registration(&name, &owner, &instance));
        assert_eq!(String::from_utf8(value).unwrap(), "at=10.0.0.1:80;weight=7;tag.twinspan.dev/owner=c-1/shop/echo;");
        assert_eq!(Toy.decode(b"broken"), Err(Undecodable("broken".to_owned())));
    }
}
