//! The state of the watches: which parts of each kind were listed, and when each was heard of.
//!
//! Owns that a kind counts as listed once every part of it is, and as silent once one part is; a namespace rests on its
//! own parts. Refuses to know objects.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use twinspan_core::Timestamp;

use super::kind::{Kind, SILENT_AFTER};
use super::reach::{Reach, WHOLE};

/// The watch of one part of a kind.
#[derive(Clone, Debug, Default)]
struct Part {
    listed: bool,
    /// When it was heard of last; `None` before its watch begins.
    heard_at: Option<Timestamp>,
    /// Whether it broke and was not opened since.
    broken: bool,
}

#[derive(Debug)]
pub struct Watching {
    kinds: BTreeMap<Kind, BTreeMap<String, Part>>,
    /// Whether a part that was silent was heard of since somebody asked.
    silence_ended: bool,
}

impl Default for Watching {
    fn default() -> Self {
        Self::within(&Reach::default())
    }
}

impl Watching {
    /// Nothing was listed yet of the parts that the reach has.
    pub fn within(reach: &Reach) -> Self {
        let parts = |kind| reach.parts(kind).into_iter().map(|part| (part, Part::default())).collect();
        Self { kinds: Kind::ALL.into_iter().map(|kind| (kind, parts(kind))).collect(), silence_ended: false }
    }

    fn parts(&self, kind: Kind) -> impl Iterator<Item = &Part> {
        self.kinds.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    fn part(&mut self, kind: Kind, part: &str) -> &mut Part {
        self.kinds.entry(kind).or_default().entry(part.to_owned()).or_default()
    }

    /// Whether every part was listed completely.
    pub fn is_listed(&self, kind: Kind) -> bool {
        self.parts(kind).all(|part| part.listed)
    }

    /// The part that tells of a namespace.
    fn part_of(&self, kind: Kind, namespace: &str) -> Option<&Part> {
        let parts = self.kinds.get(&kind)?;
        parts.get(namespace).or_else(|| parts.get(WHOLE))
    }

    /// Whether everything was listed that a namespace rests on.
    pub fn is_listed_in(&self, kind: Kind, namespace: &str) -> bool {
        self.part_of(kind, namespace).map_or_else(|| self.is_listed(kind), |part| part.listed)
    }

    /// Whether nothing that a namespace rests on was heard of for [`SILENT_AFTER`].
    pub fn is_silent_in(&self, kind: Kind, namespace: &str, now: Timestamp) -> bool {
        let heard_at = self.part_of(kind, namespace).and_then(|part| part.heard_at);
        heard_at.is_some_and(|at| now.duration_since(at) >= SILENT_AFTER)
    }

    /// A part was listed completely. Returns true if it was not before.
    pub fn set_listed(&mut self, kind: Kind, part: &str) -> bool {
        !std::mem::replace(&mut self.part(kind, part).listed, true)
    }

    /// A part was heard of: an object, a bookmark, a page of a list, or a watch that was opened.
    pub fn heard(&mut self, kind: Kind, part: &str, now: Timestamp) {
        let known = self.part(kind, part);
        let was_silent = known.heard_at.is_some_and(|at| now.duration_since(at) >= SILENT_AFTER);
        known.heard_at = Some(now);
        self.silence_ended |= was_silent;
    }

    /// Whether a silence ended since the last call.
    pub fn take_silence_ended(&mut self) -> bool {
        std::mem::take(&mut self.silence_ended)
    }

    /// The time since the part was heard of that was not heard of for longest; `None` before a watch begins.
    pub fn unheard_for(&self, kind: Kind, now: Timestamp) -> Option<SignedDuration> {
        let oldest = self.parts(kind).filter_map(|part| part.heard_at).min();
        oldest.map(|at| now.duration_since(at).max(SignedDuration::ZERO))
    }

    /// Kinds with a part that was not heard of for [`SILENT_AFTER`].
    pub fn silent(&self, now: Timestamp) -> BTreeSet<Kind> {
        let is_silent = |kind: &Kind| self.unheard_for(*kind, now).is_some_and(|since| since >= SILENT_AFTER);
        Kind::ALL.into_iter().filter(is_silent).collect()
    }

    /// The watch of a part broke or was opened, or a re-list replaces it.
    pub fn set_broken(&mut self, kind: Kind, part: &str, broken: bool) {
        self.part(kind, part).broken = broken;
    }

    /// Whether the watch that tells of a namespace is broken.
    pub fn is_broken(&self, kind: Kind, namespace: &str) -> bool {
        self.part_of(kind, namespace).is_some_and(|part| part.broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::reach::Limits;

    #[test]
    fn a_kind_is_complete_with_its_last_part_and_silent_with_its_first() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let limits = Limits { namespaces: ["a", "b"].map(String::from).into(), ..Limits::default() };
        let mut watching = Watching::within(&Reach { limits: Some(limits), ..Reach::default() });
        assert!(watching.is_listed(Kind::Node), "nobody lists Nodes");
        assert!(watching.set_listed(Kind::Pod, "a") && !watching.is_listed(Kind::Pod));
        assert!(watching.is_listed_in(Kind::Pod, "a") && !watching.is_listed_in(Kind::Pod, "b"));
        assert!(watching.is_listed_in(Kind::Node, "a"), "nobody lists Nodes");
        assert!(!watching.is_listed_in(Kind::Secret, "a"), "it has no namespaces here");
        assert!(watching.set_listed(Kind::Pod, "b") && watching.is_listed(Kind::Pod));
        assert!(!watching.set_listed(Kind::Pod, "b"), "not for the first time");
        watching.heard(Kind::Pod, "a", at(0));
        watching.heard(Kind::Pod, "b", at(80));
        assert_eq!(watching.silent(at(95)), [Kind::Pod].into());
        assert!(watching.is_silent_in(Kind::Pod, "a", at(95)) && !watching.is_silent_in(Kind::Pod, "b", at(95)));
        assert!(!watching.take_silence_ended());
        watching.heard(Kind::Pod, "a", at(95));
        assert!(watching.take_silence_ended() && watching.silent(at(95)).is_empty());
        watching.set_broken(Kind::Pod, "a", true);
        assert!(watching.is_broken(Kind::Pod, "a") && !watching.is_broken(Kind::Pod, "b"));
    }
}
