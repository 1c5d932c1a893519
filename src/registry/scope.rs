//! The scope of a session: every record of the registry, or the names that RegisteredServices ask for.
//!
//! Owns the choice between both (`docs/decisions/0039`). Refuses to count the records on which it rests, which
//! [`super::record_count`] does, and to list: a session whose scope is not the right one any more begins again.

use std::collections::BTreeSet;

use twinspan_core::codec::{Layout, Range};
use twinspan_core::model::RegistryName;

/// With fewer records than this a session always begins with all of them.
pub const SMALL: usize = 20_000;
/// A name that is listed and watched by itself costs no more than so many records of a long list: 24 to 41 were
/// measured (`docs/decisions/0039`).
const RECORDS_A_NAME: usize = 50;
/// The other scope has to be so many times as cheap before it is taken, so that few records more or less change
/// nothing.
const HYSTERESIS: usize = 2;
/// With so many records a registry is not followed as a whole for the sake of its names alone: they would take 43 MB,
/// and anybody who may write there could add more.
pub const BEARABLE: usize = 100_000;

/// The part of a registry that a session lists and watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One range with every record.
    Everything,
    /// A range for each name that is asked for, or that has own records.
    FollowedNames,
}

impl Scope {
    /// The only scope of a layout without a root, where other programs have keys too.
    pub fn at_first(layout: &Layout) -> Self {
        if layout.root().is_some() { Self::Everything } else { Self::FollowedNames }
    }

    /// The scope for so many records and names that are asked for; `names` is `None` before they are known. `before` is
    /// the scope in force.
    pub fn choose(before: Option<Self>, records: usize, names: Option<usize>) -> Self {
        let names = match (names, before) {
            (Some(names), _) => names.saturating_mul(RECORDS_A_NAME),
            (None, Some(before)) => return before,
            (None, None) => 0,
        };
        let (least, dear) = match before {
            Some(Self::FollowedNames) => (SMALL / HYSTERESIS, names),
            Some(Self::Everything) | None => (SMALL, names.saturating_mul(HYSTERESIS)),
        };
        if records >= least && dear <= records { Self::FollowedNames } else { Self::Everything }
    }

    /// Whether a registry with so many records may be followed as a whole because somebody asks for every name.
    pub fn is_bearable(before: Option<Self>, records: usize) -> bool {
        let most = if before == Some(Self::FollowedNames) { BEARABLE / HYSTERESIS } else { BEARABLE };
        records < most
    }

    /// The ranges in which these names lie.
    pub fn ranges(self, names: impl IntoIterator<Item = RegistryName>) -> BTreeSet<Range> {
        match self {
            Self::Everything => BTreeSet::from([Range::Everything]),
            Self::FollowedNames => names.into_iter().map(Range::Service).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_names_among_many_records_are_followed_one_by_one_and_a_few_more_or_less_change_nothing() {
        use Scope::{Everything, FollowedNames};
        let choose = Scope::choose;
        assert_eq!(choose(None, 1_000_000, Some(1_000)), FollowedNames);
        assert_eq!(choose(None, 100_000, Some(10_000)), Everything, "most records are asked for");
        assert_eq!(choose(None, SMALL - 1, Some(1)), Everything, "one list of so few is quick");
        for (records, names) in [(SMALL, SMALL / 100), (1_000_000, 10_000)] {
            assert_eq!(choose(None, records, Some(names)), FollowedNames);
            assert_eq!(choose(Some(Everything), records, Some(names + 1)), Everything);
            assert_eq!(choose(Some(FollowedNames), records, Some(2 * names)), FollowedNames);
            assert_eq!(choose(Some(FollowedNames), records, Some(2 * names + 1)), Everything);
            assert_eq!(choose(Some(FollowedNames), records / 2, Some(names)), FollowedNames);
            assert_eq!(choose(Some(FollowedNames), records / 2 - 1, Some(names)), Everything);
        }
    }

    #[test]
    fn a_scope_stays_until_the_names_are_known_and_a_large_registry_is_not_listed_without_them() {
        for before in [Scope::Everything, Scope::FollowedNames] {
            assert_eq!(Scope::choose(Some(before), 1_000_000, None), before);
            assert_eq!(Scope::choose(Some(before), 10, None), before);
        }
        assert_eq!(Scope::choose(None, 1_000_000, None), Scope::FollowedNames);
        assert_eq!(Scope::choose(None, 10, None), Scope::Everything);
    }
}
