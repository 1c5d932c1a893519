//! Packing: the distribution of endpoints over the slices of one group, with as few writes as possible.
//!
//! Owns the steps of `reconcileByPortMapping` in k8s.io/endpointslice, in a deterministic order: (1) endpoints stay
//! where they are, and slices lose unwanted ones; (2) slices that change anyway are filled, fullest first; (3) the rest
//! goes into the fullest unchanged slice that has room for all of it, else into new slices. Refuses to move an endpoint
//! only to balance slices.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::{Slice, SliceEndpoint};

/// The most endpoints in one slice; the built-in controller's default (`--max-endpoints-per-slice`).
pub const MAX_ENDPOINTS: usize = 100;

/// The endpoints of slices by their addresses, with everything else about them.
pub type Wanted<T> = BTreeMap<IpAddr, T>;

#[derive(Debug)]
pub struct Packed<'a, T> {
    pub updates: Vec<(&'a Slice, Wanted<T>)>,
    pub creates: Vec<Wanted<T>>,
    pub deletes: Vec<&'a Slice>,
}

struct Bin<'a, T> {
    slice: &'a Slice,
    endpoints: Vec<(IpAddr, T)>,
    changed: bool,
}

/// The wanted endpoints in the order of their addresses, without those that slices keep.
struct Left<T>(Vec<(IpAddr, Option<T>)>);

impl<T> Left<T> {
    fn take(&mut self, ip: IpAddr) -> Option<T> {
        let at = self.0.binary_search_by(|(other, _)| other.cmp(&ip)).ok()?;
        self.0[at].1.take()
    }
}

impl<T> Bin<'_, T> {
    fn room(&self) -> usize {
        MAX_ENDPOINTS.saturating_sub(self.endpoints.len())
    }

    fn fill(&mut self, wanted: &mut Wanted<T>) {
        while self.room() > 0 {
            let Some(endpoint) = wanted.pop_first() else { return };
            self.endpoints.push(endpoint);
            self.changed = true;
        }
    }
}

/// Packs `wanted`, in the order of addresses, into `slices`, in the order of names. `metadata_differs` says whether a
/// slice must be written in any case, and `is_written` whether an endpoint of a slice is the wanted one: most are, and
/// none of those is made anew.
pub fn pack<'a, T>(
    wanted: Vec<(IpAddr, T)>,
    slices: &[&'a Slice],
    metadata_differs: impl Fn(&Slice) -> bool,
    is_written: impl Fn(&SliceEndpoint, IpAddr, &T) -> bool,
) -> Packed<'a, T> {
    let mut left = Left(wanted.into_iter().map(|(ip, endpoint)| (ip, Some(endpoint))).collect());
    let keep = |slice: &&'a Slice| keep(slice, &mut left, metadata_differs(slice), &is_written);
    let mut bins: Vec<Bin<'a, T>> = slices.iter().map(keep).collect();
    let mut wanted: Wanted<T> = left.0.into_iter().filter_map(|(ip, endpoint)| Some((ip, endpoint?))).collect();

    // Fullest first, then by name: a stable sort keeps the name order among equals.
    let mut order: Vec<usize> = (0..bins.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(bins[*at].endpoints.len()));
    for &at in order.iter().filter(|at| bins[**at].changed).collect::<Vec<_>>() {
        bins[at].fill(&mut wanted);
    }
    let mut packed = Packed { updates: Vec::new(), creates: Vec::new(), deletes: Vec::new() };
    while !wanted.is_empty() {
        let fits = order.iter().copied().find(|at| !bins[*at].changed && bins[*at].room() >= wanted.len());
        match fits {
            Some(at) => bins[at].fill(&mut wanted),
            None => {
                let rest = match wanted.keys().nth(MAX_ENDPOINTS).copied() {
                    Some(first_of_rest) => wanted.split_off(&first_of_rest),
                    None => BTreeMap::new(),
                };
                packed.creates.push(std::mem::replace(&mut wanted, rest));
            }
        }
    }
    for bin in bins {
        if bin.endpoints.is_empty() {
            packed.deletes.push(bin.slice);
        } else if bin.changed {
            packed.updates.push((bin.slice, bin.endpoints.into_iter().collect()));
        }
    }
    packed
}

/// The endpoints that may stay in a slice. An endpoint that two slices hold stays in the first.
fn keep<'a, T>(
    slice: &'a Slice,
    wanted: &mut Left<T>,
    mut changed: bool,
    is_written: impl Fn(&SliceEndpoint, IpAddr, &T) -> bool,
) -> Bin<'a, T> {
    let mut endpoints = Vec::with_capacity(slice.endpoints.len());
    for endpoint in &slice.endpoints {
        match endpoint.address.ip().and_then(|ip| Some((ip, wanted.take(ip)?))) {
            Some((ip, wanted)) => {
                changed |= !is_written(endpoint, ip, &wanted);
                endpoints.push((ip, wanted));
            }
            None => changed = true,
        }
    }
    Bin { slice, endpoints, changed }
}
