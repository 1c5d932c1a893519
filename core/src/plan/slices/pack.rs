//! Packing: the distribution of endpoints over the slices of one group, with as few writes as possible.
//!
//! Owns the steps of `reconcileByPortMapping` in k8s.io/endpointslice, in a deterministic order: (1) endpoints stay
//! where they are, and slices lose unwanted ones; (2) slices that change anyway are filled, fullest first; (3) the rest
//! goes into the fullest unchanged slice that has room for all of it, else into new slices. Refuses to move an endpoint
//! only to balance slices.

use std::collections::BTreeMap;

use crate::model::{Slice, SliceEndpoint};

/// The most endpoints in one slice; the built-in controller's default (`--max-endpoints-per-slice`).
pub const MAX_ENDPOINTS: usize = 100;

#[derive(Debug, Default)]
pub struct Packed<'a> {
    pub updates: Vec<(&'a Slice, Vec<SliceEndpoint>)>,
    pub creates: Vec<Vec<SliceEndpoint>>,
    pub deletes: Vec<&'a Slice>,
}

struct Bin<'a> {
    slice: &'a Slice,
    endpoints: BTreeMap<String, SliceEndpoint>,
    changed: bool,
}

impl Bin<'_> {
    fn room(&self) -> usize {
        MAX_ENDPOINTS.saturating_sub(self.endpoints.len())
    }

    fn fill(&mut self, wanted: &mut BTreeMap<String, SliceEndpoint>) {
        while self.room() > 0 {
            let Some((address, endpoint)) = wanted.pop_first() else { return };
            self.endpoints.insert(address, endpoint);
            self.changed = true;
        }
    }
}

/// Packs `wanted` (by address) into `slices` (in name order). `metadata_differs` says whether a slice must be written
/// in any case.
pub fn pack<'a>(
    mut wanted: BTreeMap<String, SliceEndpoint>,
    slices: &[&'a Slice],
    metadata_differs: impl Fn(&Slice) -> bool,
) -> Packed<'a> {
    let mut bins: Vec<Bin<'a>> = slices.iter().map(|slice| keep(slice, &mut wanted, metadata_differs(slice))).collect();

    // Fullest first, then by name: a stable sort keeps the name order among equals.
    let mut order: Vec<usize> = (0..bins.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(bins[*at].endpoints.len()));
    for &at in order.iter().filter(|at| bins[**at].changed).collect::<Vec<_>>() {
        bins[at].fill(&mut wanted);
    }
    let mut packed = Packed::default();
    while !wanted.is_empty() {
        let fits = order.iter().copied().find(|at| !bins[*at].changed && bins[*at].room() >= wanted.len());
        match fits {
            Some(at) => bins[at].fill(&mut wanted),
            None => {
                let rest = match wanted.keys().nth(MAX_ENDPOINTS).cloned() {
                    Some(first_of_rest) => wanted.split_off(&first_of_rest),
                    None => BTreeMap::new(),
                };
                packed.creates.push(std::mem::replace(&mut wanted, rest).into_values().collect());
            }
        }
    }
    for bin in bins {
        if bin.endpoints.is_empty() {
            packed.deletes.push(bin.slice);
        } else if bin.changed {
            packed.updates.push((bin.slice, bin.endpoints.into_values().collect()));
        }
    }
    packed
}

/// The endpoints that may stay in a slice. An endpoint that two slices hold stays in the first.
fn keep<'a>(slice: &'a Slice, wanted: &mut BTreeMap<String, SliceEndpoint>, mut changed: bool) -> Bin<'a> {
    let mut endpoints = BTreeMap::new();
    for endpoint in &slice.endpoints {
        match wanted.remove(&endpoint.address) {
            Some(wanted) => {
                changed |= wanted != *endpoint;
                endpoints.insert(wanted.address.clone(), wanted);
            }
            None => changed = true,
        }
    }
    Bin { slice, endpoints, changed }
}
