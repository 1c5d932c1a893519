//! Ranges of keys, as etcd's requests give them.
//!
//! Owns the meaning of a key and its `range_end` (`rpc.proto` of etcd 3.7: RangeRequest). Refuses to know what is
//! stored.

use std::ops::Bound;

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// The range is the one key.
    Point,
    Before(Vec<u8>),
    Open,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange {
    start: Vec<u8>,
    end: End,
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl KeyRange {
    /// No `range_end` is the one key; a `range_end` of one zero byte is every key from `key` on.
    pub(crate) fn new(key: &[u8], range_end: &[u8]) -> Self {
        let end = match range_end {
            [] => End::Point,
            [0] => End::Open,
            end => End::Before(end.to_vec()),
        };
        Self { start: key.to_vec(), end }
    }

    pub(crate) fn point(key: &[u8]) -> Self {
        Self { start: key.to_vec(), end: End::Point }
    }

    pub(crate) fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while end.pop_if(|last| *last == u8::MAX).is_some() {}
        match end.last_mut() {
            Some(last) => {
                *last += 1;
                Self { start: prefix.to_vec(), end: End::Before(end) }
            }
            None => Self { start: prefix.to_vec(), end: End::Open },
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if *end <= self.start)
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Point => key == self.start,
            End::Before(end) => self.start.as_slice() <= key && key < end.as_slice(),
            End::Open => self.start.as_slice() <= key,
        }
    }

    /// Bounds for `BTreeMap::range`, which panics on an empty range: none for that.
    pub(crate) fn bounds(&self) -> Option<Bounds<'_>> {
        let start = Bound::Included(self.start.as_slice());
        match &self.end {
            End::Point => Some((start, start)),
            End::Before(end) => (!self.is_empty()).then_some((start, Bound::Excluded(end.as_slice()))),
            End::Open => Some((start, Bound::Unbounded)),
        }
    }

    /// The first key and the first key after the range; no end means that the range is open.
    pub(crate) fn interval(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let end = match &self.end {
            End::Point => Some([self.start.as_slice(), &[0]].concat()),
            End::Before(end) => Some(end.clone()),
            End::Open => None,
        };
        (self.start.clone(), end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_end_is_read_as_etcd_reads_it() {
        assert!(KeyRange::new(b"a", b"").contains(b"a") && !KeyRange::new(b"a", b"").contains(b"a/"));
        assert!(KeyRange::new(b"a", b"\0").contains(b"zz") && !KeyRange::new(b"b", b"\0").contains(b"a"));
        assert!(KeyRange::new(b"a", b"c").contains(b"b/1") && !KeyRange::new(b"a", b"c").contains(b"c"));
        assert!(KeyRange::new(b"b", b"a").is_empty() && KeyRange::new(b"b", b"a").bounds().is_none());
    }

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(KeyRange::prefix(b"a/"), KeyRange::new(b"a/", b"a0"));
        assert_eq!(KeyRange::prefix(b"a\xff"), KeyRange::new(b"a\xff", b"b"));
        assert_eq!(KeyRange::prefix(b"\xff"), KeyRange::new(b"\xff", b"\0"));
        assert!(KeyRange::prefix(b"").contains(b"anything"));
    }
}
