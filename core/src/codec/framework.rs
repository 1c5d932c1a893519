//! The contract of a format: everything that differs from one framework to the next.
//!
//! Owns the questions that a layout asks about a format, and the answers that most formats share. Refuses to know any
//! framework: each answers in a file of its own. Refuses to know prefixes in force and ranges: they are the layout's.

use jiff::SignedDuration;

use super::mark::{key_mark, marked, tag_mark};
use crate::model::{Instance, Mark, Owner, RecordKey, Registration, RegistryName};

/// One framework: what its servers write and what its clients read.
pub trait Framework: Sync {
    /// The name that `spec.format` gives it.
    fn name(&self) -> &'static str;

    /// The prefix that the framework uses where its programs set none.
    fn default_prefix(&self) -> &'static str;

    /// The prefixes that the programs of the framework can have, as a regular expression; any prefix if absent.
    fn prefix_pattern(&self) -> Option<&'static str> {
        None
    }

    /// Whether keys start with a slash where the prefix is empty.
    fn has_leading_slash(&self) -> bool;

    /// The last segment of the key of an own record.
    fn last_segment(&self, owner: &Owner, instance: &Instance) -> String;

    /// The part of the key of an own record between the name of the service and the last segment; empty, or it ends
    /// with a slash.
    fn directory(&self) -> &'static str {
        ""
    }

    /// Whether a text is that segment. Each pass asks it of every instance.
    fn is_last_segment(&self, owner: &Owner, instance: &Instance, text: &[u8]) -> bool {
        text == self.last_segment(owner, instance).as_bytes()
    }

    /// Whether the framework's own servers have their address as the last segment. In other formats it is an ID; one
    /// that is an address, often that of another port of the server, only tells its host.
    fn key_is_address(&self) -> bool;

    /// # Errors
    /// [`Undecodable`] where the framework's reader would skip the record or fail.
    fn decode(&self, value: &[u8]) -> Result<Registration, Undecodable>;

    fn encode(&self, registration: &Registration) -> Vec<u8>;

    /// The endpoints in the part of a key below the name of its service, where keys have them and values do not.
    ///
    /// # Errors
    /// [`Undecodable`], as of [`Framework::decode`].
    fn key_endpoints(&self, _below: &[u8]) -> Result<Option<Vec<String>>, Undecodable> {
        Ok(None)
    }

    /// Whether clients dial every address of a registration with the same scheme, and not only the first one.
    fn dials_every_address(&self) -> bool {
        false
    }

    /// Whether readers bear a record with an IPv6 address. Where they do not, none is exported.
    fn bears_ipv6(&self) -> bool {
        true
    }

    /// Whether an address has a scheme, so that a service can have several ports.
    fn has_schemes(&self) -> bool {
        false
    }

    /// The scheme of a port that names none.
    fn default_scheme(&self) -> &'static str {
        ""
    }

    /// Whether a record carries weight and tags. Where it does not, the key names the owner.
    fn has_tags(&self) -> bool;

    /// The weight that clients give a record; `None` where they do not tell the instances of a service by weight.
    fn weight(&self, _registration: &Registration) -> Option<i64> {
        None
    }

    /// Whether a lost registration can be put back: the marks that say so are tags.
    fn heals(&self) -> bool {
        self.has_tags()
    }

    /// The time until clients act on a record that is gone. Clients that watch the registry learn of it at once, and
    /// half a second is a margin for slow ones.
    fn clients_learn_within(&self) -> SignedDuration {
        SignedDuration::from_millis(500)
    }

    /// Whether a server that leaves revokes its lease, so that a lease that is gone proves nothing.
    fn leaves_by_revoking(&self) -> bool {
        false
    }

    /// The reason why clients of the framework can never find a service of this name, for the `InvalidName` condition.
    fn name_error(&self, _name: &RegistryName) -> Option<String> {
        None
    }

    /// The registration that an own record holds.
    fn registration(&self, _name: &RegistryName, owner: &Owner, instance: &Instance) -> Registration {
        let plain = Registration {
            network: "tcp".to_owned(),
            endpoints: vec![instance.addr.to_string()],
            ..Registration::default()
        };
        if !self.has_tags() {
            return plain;
        }
        marked(Registration { weight: instance.weight, tags: instance.tags.as_ref().clone(), ..plain }, owner)
    }

    /// Whether a registration is the one that an own record holds.
    fn says(&self, name: &RegistryName, owner: &Owner, instance: &Instance, says: &Registration) -> bool {
        *says == self.registration(name, owner, instance)
    }

    /// Scheme and `host:port` of one of the endpoints of a registration. The scheme is empty in formats without
    /// schemes.
    fn split_endpoint<'a>(&self, endpoint: &'a str) -> (&'a str, &'a str) {
        ("", endpoint)
    }

    /// The name of the service that the value states, where clients skip a record whose key names another one.
    fn stated_name<'a>(&self, _registration: &'a Registration) -> Option<&'a str> {
        None
    }

    /// The marks of a record: in its tags where the format has tags, else in its key.
    fn mark(&self, registration: &Registration, key: &RecordKey) -> Mark {
        if self.has_tags() { tag_mark(registration) } else { key_mark(key) }
    }
}

/// The reason why a value does not decode, as text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable(pub String);
