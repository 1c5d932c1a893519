//! A subset of a RegisteredService's ports.
//!
//! Owns the set. Refuses to know the ports themselves: callers hold the list that the indexes point into.

/// The most ports that a RegisteredService can name (`maxItems` of `spec.service.ports`).
pub const MAX_PORTS: usize = 16;

/// A set of ports, by their index in the list of ports in force. Formats without schemes have one port, at index 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortSet(u16);

impl PortSet {
    /// The port at an index; empty from [`MAX_PORTS`] on.
    pub fn of(index: usize) -> Self {
        if index < MAX_PORTS { Self(1 << index) } else { Self(0) }
    }

    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub fn contains(self, index: usize) -> bool {
        self.0 & Self::of(index).0 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn indexes(self) -> impl Iterator<Item = usize> {
        (0..MAX_PORTS).filter(move |index| self.contains(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_the_indexes_that_were_put_into_it() {
        let mut set = PortSet::default();
        assert!(set.is_empty());
        set.insert(PortSet::of(0));
        set.insert(PortSet::of(15));
        set.insert(PortSet::of(16));
        assert_eq!(set.indexes().collect::<Vec<_>>(), [0, 15]);
        assert!(!set.contains(16) && !set.contains(1));
    }
}
