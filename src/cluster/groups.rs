//! Values by key, where nearly every key has one: the slices of a Service, the RegisteredServices of a name.
//!
//! Owns the form in memory: a single value lies in the map itself, for a set of its own takes as much as eleven values.
//! Refuses to keep a key without a value.

use std::borrow::Borrow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;

#[derive(Debug)]
pub struct Groups<K, T>(BTreeMap<K, Group<T>>);

impl<K, T> Default for Groups<K, T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

#[derive(Debug)]
enum Group<T> {
    One(T),
    Many(BTreeSet<T>),
}

impl<K: Ord, T: Ord> Groups<K, T> {
    pub fn insert(&mut self, key: K, value: T) {
        match self.0.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(Group::One(value));
            }
            Entry::Occupied(mut entry) => entry.get_mut().insert(value),
        }
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q, value: &T)
    where
        K: Borrow<Q>,
    {
        if self.0.get_mut(key).is_some_and(|group| group.remove(value)) {
            self.0.remove(key);
        }
    }

    /// The values of a key, in order.
    pub fn of<Q: Ord + ?Sized>(&self, key: &Q) -> impl Iterator<Item = &T>
    where
        K: Borrow<Q>,
    {
        self.0.get(key).into_iter().flat_map(Group::iter)
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// The values of all keys.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.values().flat_map(Group::iter)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Ord> Group<T> {
    fn insert(&mut self, value: T) {
        match mem::replace(self, Self::Many(BTreeSet::new())) {
            Self::One(before) if before == value => *self = Self::One(before),
            Self::One(before) => *self = Self::Many(BTreeSet::from([before, value])),
            Self::Many(mut all) => {
                all.insert(value);
                *self = Self::Many(all);
            }
        }
    }

    /// Returns true if nothing is left.
    fn remove(&mut self, value: &T) -> bool {
        match self {
            Self::One(one) => one == value,
            Self::Many(all) => {
                all.remove(value);
                all.is_empty()
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        let (one, many) = match self {
            Self::One(one) => (Some(one), None),
            Self::Many(all) => (None, Some(all)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_values_in_order_and_goes_with_the_last_one() {
        let mut groups: Groups<String, u8> = Groups::default();
        let of = |groups: &Groups<String, u8>| groups.of("a").copied().collect::<Vec<_>>();
        groups.insert("a".to_owned(), 2);
        groups.insert("a".to_owned(), 2);
        assert_eq!(of(&groups), [2]);
        groups.insert("a".to_owned(), 3);
        groups.insert("a".to_owned(), 1);
        groups.insert("b".to_owned(), 9);
        assert_eq!(of(&groups), [1, 2, 3]);
        assert_eq!(groups.values().copied().collect::<Vec<_>>(), [1, 2, 3, 9]);
        groups.remove("a", &7);
        groups.remove("none", &1);
        for value in [2, 1, 3] {
            assert!(groups.keys().any(|key| key == "a"));
            groups.remove("a", &value);
        }
        assert_eq!(groups.keys().collect::<Vec<_>>(), ["b"]);
        groups.remove("b", &1);
        assert!(!groups.is_empty());
        groups.remove("b", &9);
        assert!(groups.is_empty());
    }
}
