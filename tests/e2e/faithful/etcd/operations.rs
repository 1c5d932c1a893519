//! Random operations on an etcd.
//!
//! Owns the choice: all calls that the operator makes, right and wrong. Refuses to send them.

use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp};
use rand::RngExt;
use rand::rngs::StdRng;
use sim_etcd::Etcd;
use sim_etcd::promises::WatchRequest;

pub const STREAMS: usize = 4;
/// Leases that operations name; some do not exist at any time.
const LEASES: i64 = 8;
/// Operations at the beginning of a round that only cancel and close watches, and compact.
const SETTLED: usize = 8;
const EPOCH: &str = "p/epoch";

#[derive(Clone, Debug)]
pub enum Operation {
    Get(Vec<u8>, GetOptions),
    Put(Vec<u8>, Vec<u8>, PutOptions),
    /// A put of so many bytes, and a delete.
    Large(usize),
    Delete(Vec<u8>, DeleteOptions),
    Txn(Txn),
    Compact(i64),
    Grant(i64, i64),
    /// A lease with an ID that the server chooses, and its revocation.
    GrantAny(i64),
    KeepAlive(i64),
    TimeToLive(i64, bool),
    Leases,
    Revoke(i64),
    /// A watch on an open stream, or on a new one.
    Watch(usize, WatchRequest),
    Cancel(usize, i64),
    Close(usize),
}

/// Chooses by what the fake etcd has stored.
pub struct Generator {
    rng: StdRng,
    etcd: Etcd,
    /// Every watch is in sync for so many operations: a compaction takes nothing from it, and a cancel cuts nothing
    /// off.
    settled: usize,
    compacted: i64,
}

impl Generator {
    pub fn new(rng: StdRng, etcd: Etcd) -> Self {
        Self { rng, etcd, settled: 0, compacted: 0 }
    }

    /// Every watch is in sync now.
    pub fn begin_round(&mut self) {
        self.settled = SETTLED;
    }

    pub fn next(&mut self) -> Operation {
        if self.settled > 0 {
            self.settled -= 1;
            return match self.below(8) {
                0..=4 => Operation::Cancel(self.stream(), self.below(9)),
                5..=6 => Operation::Close(self.stream()),
                _ => {
                    self.compacted = self.etcd.revision() - self.below(20);
                    Operation::Compact(self.compacted)
                }
            };
        }
        match self.below(100) {
            0..=14 => self.get(),
            15..=29 => self.put(),
            30..=37 => self.delete(),
            38..=57 => Operation::Txn(self.batch()),
            58..=70 => Operation::Txn(self.txn(3)),
            71 => self.too_many(),
            72 => self.large(),
            73..=78 => Operation::Grant(self.lease(), self.pick(&[600, 600, 900, 10_000_000_000])),
            79 => Operation::GrantAny(self.pick(&[-1, 0, 1, 6, 60])),
            80..=82 => Operation::KeepAlive(self.lease()),
            83..=85 => Operation::TimeToLive(self.lease(), self.one_in(2)),
            86 => Operation::Leases,
            87..=88 => Operation::Revoke(self.lease()),
            89 => Operation::Compact(self.pick(&[self.compacted, -1, i64::MAX])),
            _ => self.watch(),
        }
    }

    fn below(&mut self, end: i64) -> i64 {
        self.rng.random_range(0..end)
    }

    fn one_in(&mut self, n: i64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.random_range(0..of.len())]
    }

    fn key(&mut self) -> Vec<u8> {
        let folder = self.pick(&["p/a", "p/b", "q"]);
        format!("{folder}/{}", self.below(8)).into_bytes()
    }

    /// A key, a prefix, or something else that starts a range.
    fn start(&mut self) -> Vec<u8> {
        if self.one_in(2) { self.key() } else { self.pick(&["p/", "p/a/", "p/b/", "q", "", "z"]).into() }
    }

    fn value(&mut self) -> Vec<u8> {
        vec![b'v'; usize::try_from(self.below(4)).unwrap_or(0)]
    }

    fn lease(&mut self) -> i64 {
        self.below(LEASES) + 1
    }

    /// No lease, one that lives, or any.
    fn lease_for_put(&mut self) -> i64 {
        let living: Vec<i64> = self.etcd.leases().into_keys().collect();
        match self.below(8) {
            0..=2 => 0,
            3..=6 if !living.is_empty() => self.pick(&living),
            _ => self.lease(),
        }
    }

    fn stream(&mut self) -> usize {
        self.rng.random_range(0..STREAMS)
    }

    /// A revision: none, in the past, compacted, present or future.
    fn revision(&mut self) -> i64 {
        let now = self.etcd.revision();
        match self.below(8) {
            0..=2 => 0,
            3..=4 => (now - self.below(30)).max(0),
            5 => self.compacted + self.below(5) - 2,
            6 => now,
            _ => now + self.below(3),
        }
    }

    fn get(&mut self) -> Operation {
        let (key, options) = self.range();
        Operation::Get(key, options)
    }

    fn range(&mut self) -> (Vec<u8>, GetOptions) {
        let key = self.start();
        let mut options = GetOptions::new().with_revision(self.revision());
        options = match self.below(6) {
            0 => options,
            1..=3 => options.with_prefix(),
            4 => options.with_from_key(),
            _ => options.with_range(self.start()),
        };
        if self.one_in(3) {
            options = options.with_limit(self.below(6));
        }
        if self.one_in(4) {
            let order = self.pick(&[SortOrder::None, SortOrder::Ascend, SortOrder::Descend]);
            options = options.with_sort(SortTarget::Key, order);
        }
        options = match self.below(12) {
            0 => options.with_keys_only(),
            1 => options.with_count_only(),
            2 => options.with_serializable(),
            3 => options.with_min_mod_revision(self.revision()),
            4 => options.with_max_mod_revision(self.revision()),
            5 => options.with_min_create_revision(self.revision()),
            6 => options.with_max_create_revision(self.revision()),
            _ => options,
        };
        (key, options)
    }

    fn put(&mut self) -> Operation {
        let key = if self.one_in(40) { Vec::new() } else { self.key() };
        let (value, options) = self.put_options();
        Operation::Put(key, value, options)
    }

    fn put_options(&mut self) -> (Vec<u8>, PutOptions) {
        let (mut value, mut options) = (self.value(), PutOptions::new());
        match self.below(12) {
            0 => {
                value.truncate(usize::from(self.one_in(4)));
                options = options.with_ignore_value();
            }
            1 => options = options.with_ignore_lease(),
            _ => options = options.with_lease(self.lease_for_put()),
        }
        if self.one_in(3) {
            options = options.with_prev_key();
        }
        (value, options)
    }

    fn delete(&mut self) -> Operation {
        let options = self.delete_options();
        Operation::Delete(if self.one_in(8) { self.start() } else { self.key() }, options)
    }

    fn delete_options(&mut self) -> DeleteOptions {
        let mut options = DeleteOptions::new();
        options = match self.below(16) {
            0 => options.with_prefix(),
            1 => options.with_range(self.start()),
            2 if self.one_in(4) => options.with_from_key(),
            _ => options,
        };
        if self.one_in(2) { options.with_prev_key() } else { options }
    }

    /// The revision of the last change of a key, mostly; or one that it does not have.
    fn mod_revision(&mut self, key: &[u8]) -> i64 {
        let found = self.etcd.records().get(key).map_or(0, |record| record.mod_revision);
        match self.below(6) {
            0 => 0,
            1 => found - 1,
            _ => found,
        }
    }

    /// As the operator writes: an outer compare, and transactions inside with one compare and one operation each.
    fn batch(&mut self) -> Txn {
        let count = self.below(12) + 1;
        let inner: Vec<TxnOp> = (0..count).map(|_| self.compare_and_swap()).collect();
        let txn = match self.below(4) {
            0 => Txn::new(),
            1 => Txn::new().when([Compare::value(EPOCH, CompareOp::Equal, self.value())]),
            _ => {
                let value = self.etcd.records().get(EPOCH.as_bytes()).map(|record| record.value.clone());
                Txn::new().when([Compare::value(EPOCH, CompareOp::Equal, value.unwrap_or_default())])
            }
        };
        txn.and_then(inner)
    }

    fn compare_and_swap(&mut self) -> TxnOp {
        let key = if self.one_in(20) { EPOCH.into() } else { self.key() };
        let compare = Compare::mod_revision(key.clone(), CompareOp::Equal, self.mod_revision(&key));
        let operation = if self.one_in(4) {
            TxnOp::delete(key.clone(), None)
        } else {
            let options = PutOptions::new().with_lease(self.lease_for_put());
            TxnOp::put(key.clone(), self.value(), Some(options))
        };
        TxnOp::txn(Txn::new().when([compare]).and_then([operation]).or_else([TxnOp::get(key, None)]))
    }

    /// Anything that a transaction can be.
    fn txn(&mut self, depth: i64) -> Txn {
        let compares: Vec<Compare> = (0..self.below(3)).map(|_| self.compare()).collect();
        let success: Vec<TxnOp> = (0..self.below(4)).map(|_| self.operation(depth)).collect();
        let failure: Vec<TxnOp> = (0..self.below(4)).map(|_| self.operation(depth)).collect();
        Txn::new().when(compares).and_then(success).or_else(failure)
    }

    fn compare(&mut self) -> Compare {
        let key = if self.one_in(60) { Vec::new() } else { self.key() };
        let by = self.pick(&[CompareOp::Equal, CompareOp::Greater, CompareOp::Less, CompareOp::NotEqual]);
        let compare = match self.below(5) {
            0 => Compare::value(key, by, self.value()),
            1 => Compare::version(key, by, self.below(4)),
            2 => Compare::create_revision(key, by, self.revision()),
            3 => Compare::lease(key, by, self.below(LEASES)),
            _ => {
                let revision = self.mod_revision(&key);
                Compare::mod_revision(key, by, revision)
            }
        };
        match self.below(10) {
            0 => compare.with_prefix(),
            1 => compare.with_range(self.start()),
            _ => compare,
        }
    }

    fn operation(&mut self, depth: i64) -> TxnOp {
        match self.below(if depth > 0 { 8 } else { 6 }) {
            0..=1 => {
                let (key, options) = self.range();
                TxnOp::get(key, Some(options))
            }
            2..=4 => {
                let (value, options) = self.put_options();
                TxnOp::put(self.key(), value, Some(options))
            }
            5 => {
                let options = self.delete_options();
                TxnOp::delete(self.key(), Some(options))
            }
            _ => TxnOp::txn(self.txn(depth - 1)),
        }
    }

    /// At the limit of operations, or above.
    fn too_many(&mut self) -> Operation {
        let put = |n: i64| TxnOp::put(format!("many/{n}"), "", None);
        let nested = |n: i64| TxnOp::txn(Txn::new().and_then([put(n)]));
        let operations: Vec<TxnOp> = match self.below(4) {
            0 => (0..128).map(put).collect(),
            1 => (0..129).map(put).collect(),
            2 => (0..127).map(nested).collect(),
            _ => (0..128).map(nested).collect(),
        };
        Operation::Txn(Txn::new().and_then(operations))
    }

    fn large(&mut self) -> Operation {
        // The limits of etcd and of gRPC: 1.5 MiB, and 512 KiB more.
        Operation::Large(self.pick(&[1_572_830, 1_572_840, 1_600_000, 2_097_100, 3_000_000]))
    }

    fn watch(&mut self) -> Operation {
        let key = self.start();
        let start_revision = match self.below(12) {
            0 => -1,
            1 => self.etcd.revision() + 1 + self.below(40),
            _ => self.revision(),
        };
        let range_end = match self.below(8) {
            0..=1 => Vec::new(),
            2..=5 => end_of_prefix(&key),
            6 => vec![0],
            _ => self.start(),
        };
        let watch_id = if self.one_in(2) { self.below(8) } else { 0 };
        let (prev_kv, filter) = (self.one_in(2), self.below(12));
        let (no_put, no_delete) = (filter == 0, filter == 1);
        let request = WatchRequest { key, range_end, start_revision, watch_id, prev_kv, no_put, no_delete };
        Operation::Watch(self.stream(), request)
    }
}

fn end_of_prefix(key: &[u8]) -> Vec<u8> {
    let mut end = key.to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        None => end.push(0),
    }
    end
}
