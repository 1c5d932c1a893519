//! Precedence: the order in which RegisteredServices have what several of them want.
//!
//! Owns the order: one that a person wrote comes before one that discovery made, whatever their age; then the older
//! one, by creation time; then namespace and name. One that is gone comes last. Refuses to know how an object shows
//! that discovery made it.

use crate::Timestamp;

use super::ServiceKey;

/// The smaller one has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Precedence {
    // The order of the fields is the order of their weight.
    discovered: bool,
    created: Timestamp,
    key: ServiceKey,
}

impl Precedence {
    /// `discovered` tells whether discovery made the RegisteredService. One that the API server has yet to create has
    /// no creation time.
    pub fn new(discovered: bool, created: Option<Timestamp>, key: ServiceKey) -> Self {
        Self { discovered, created: created.unwrap_or(Timestamp::MAX), key }
    }

    /// The precedence of a RegisteredService that is gone, or that cannot be read at all: every other comes before it.
    pub fn last(key: ServiceKey) -> Self {
        Self::new(true, None, key)
    }

    pub fn key(&self) -> &ServiceKey {
        &self.key
    }

    /// Whether this RegisteredService has what both want.
    pub fn precedes(&self, other: &Self) -> bool {
        self < other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_written_one_precedes_a_discovered_one_then_age_decides_then_the_name() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let key = |name| ServiceKey::new("shop", name);
        let in_order = [
            Precedence::new(false, at(10), key("b")),
            Precedence::new(false, at(20), key("a")),
            Precedence::new(false, at(20), key("c")),
            Precedence::new(false, None, key("a")),
            Precedence::new(true, at(5), key("z")),
            Precedence::new(true, at(10), key("a")),
            Precedence::new(true, at(10), key("b")),
            Precedence::last(key("a")),
        ];
        for (n, one) in in_order.iter().enumerate() {
            for (m, other) in in_order.iter().enumerate() {
                assert_eq!(one.precedes(other), n < m, "{one:?} and {other:?}");
            }
        }
    }
}
