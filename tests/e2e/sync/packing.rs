//! Packing, measured against Kubernetes' own controller on the same sequences of states.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use twinspan::cluster::convert;
use twinspan_core::Timestamp;
use twinspan_core::model::{
    AddressType, IMPORTED_FROM_ANNOTATION, InstanceAddr, MANAGED_BY, MANAGED_BY_LABEL, PortSet, SERVICE_NAME_LABEL,
    ServiceKey, Slice, SliceEndpoint, TrafficDistribution,
};
use twinspan_core::plan::slices::{self, SliceOp, SliceSpec};
use twinspan_testbed::oracle::{BuiltIn, built_in_controller};
use twinspan_testbed::{eventually, next_v4};

use crate::harness::{Sandbox, Suite, record, stories};

stories![
    no_more_writes_than_the_built_in_controller;
    long: a_rolling_replacement_of_1000_instances,
];

type State = BTreeSet<SocketAddr>;

/// The source of the endpoints.
const SOURCE: &str = "main/svc";

/// The slices of one Service as the API server would hold them.
#[derive(Default)]
struct Simulated {
    slices: BTreeMap<String, Slice>,
    version: u64,
}

impl Simulated {
    /// The slices of the built-in controller, converted to ours. What it adds about pods is not measured, nor the empty
    /// slice that it keeps for a Service without endpoints.
    fn from_built_in(slices: &[EndpointSlice]) -> Result<Self> {
        let labels = [(SERVICE_NAME_LABEL, "svc"), (MANAGED_BY_LABEL, MANAGED_BY)];
        let mut simulated = Self::default();
        for slice in slices.iter().filter(|slice| !slice.endpoints.is_empty()) {
            let mut slice = convert::slice(slice.clone());
            slice.labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            slice.managed_by = Some(MANAGED_BY.to_owned());
            slice.owner_uid = Some("uid".to_owned());
            slice.annotations.insert(IMPORTED_FROM_ANNOTATION.to_owned(), SOURCE.to_owned());
            for endpoint in &mut slice.endpoints {
                *endpoint = SliceEndpoint::ready(endpoint.address.ip().context("no IP")?);
            }
            simulated.slices.insert(slice.name.clone(), slice);
        }
        Ok(simulated)
    }

    /// Plans and applies; returns the number of writes, and of endpoints that stayed but moved to another slice.
    fn become_state(&mut self, state: &State) -> Result<(usize, usize)> {
        let before = self.placement();
        let endpoints = state
            .iter()
            .filter_map(|a| InstanceAddr::new(a.ip(), a.port()).ok())
            .map(|addr| (addr, slices::EndpointInfo { ports: PortSet::of(0), ..slices::EndpointInfo::default() }))
            .collect::<BTreeMap<_, _>>();
        let existing: Vec<&Slice> = self.slices.values().collect();
        let plan = slices::plan(&slices::Input {
            owner: &ServiceKey::new("ns", "svc"),
            owner_uid: "uid",
            service: Some(slices::Service {
                name: "svc",
                ports: &[slices::Port { name: "rpc".to_owned(), app_protocol: None }],
                headless: false,
                traffic: TrafficDistribution::Anywhere,
                labels: &BTreeMap::new(),
            }),
            endpoints: &endpoints,
            existing: &existing,
            source: SOURCE,
            merges: false,
            refused: &slices::Refusals::default(),
            triggered: Timestamp::UNIX_EPOCH,
            now: Timestamp::UNIX_EPOCH,
        });
        for op in &plan.ops {
            self.version += 1;
            match op {
                SliceOp::Create(spec) | SliceOp::Update { spec, .. } => {
                    self.slices.insert(spec.name.clone(), stored(spec, self.version));
                }
                SliceOp::Delete { name, .. } => {
                    self.slices.remove(name);
                }
            }
        }
        let after = self.placement();
        ensure!(after.len() == state.len(), "every endpoint is in one slice: {} of {}", after.len(), state.len());
        let moved = after.iter().filter(|(addr, slice)| before.get(*addr).is_some_and(|old| old != *slice)).count();
        Ok((plan.ops.len(), moved))
    }

    fn placement(&self) -> BTreeMap<String, String> {
        let of = |slice: &Slice| -> Vec<(String, String)> {
            let number = slice.ports.first().and_then(|p| p.number).unwrap_or_default();
            let place = |e: &SliceEndpoint| (format!("{}:{number}", e.address), slice.name.clone());
            slice.endpoints.iter().map(place).collect()
        };
        self.slices.values().flat_map(of).collect()
    }
}

fn stored(spec: &SliceSpec, version: u64) -> Slice {
    Slice {
        name: spec.name.clone(),
        resource_version: version.to_string(),
        service: spec.labels.get(SERVICE_NAME_LABEL).cloned(),
        managed_by: spec.labels.get(MANAGED_BY_LABEL).cloned(),
        owner_uid: Some("uid".to_owned()),
        keeper: None,
        others_labels: std::collections::BTreeSet::new(),
        deleting: false,
        address_type: AddressType::Ip(spec.family),
        ports: vec![spec.port.clone()],
        endpoints: spec.endpoints.clone(),
        labels: spec.labels.clone(),
        annotations: spec.annotations.clone(),
    }
}

/// Writes and moves over a whole sequence.
fn ours(states: &[State]) -> Result<(usize, usize)> {
    let mut simulated = Simulated::default();
    let mut sum = (0, 0);
    for state in states {
        let (writes, moved) = simulated.become_state(state)?;
        sum = (sum.0 + writes, sum.1 + moved);
    }
    Ok(sum)
}

fn sum(built_in: &BuiltIn) -> (usize, usize) {
    (built_in.writes.iter().sum(), built_in.moved.iter().sum())
}

fn instance(n: u32, ports: u16) -> SocketAddr {
    let [_, b, c, d] = (n + 1).to_be_bytes();
    let port = 9000 + u16::try_from(n % u32::from(ports)).unwrap_or_default();
    SocketAddr::from((Ipv4Addr::new(10, b, c, d), port))
}

/// A Service that grows, shrinks and changes by small and by large steps.
fn churn(rng: &mut StdRng) -> Vec<State> {
    let ports = rng.random_range(1..=4);
    let mut next = 0;
    let mut state = State::new();
    let mut states = Vec::new();
    for _ in 0..rng.random_range(5..40) {
        let scale = if rng.random_bool(0.3) { 150 } else { 8 };
        for _ in 0..rng.random_range(0..=scale).min(state.len()) {
            let at = rng.random_range(0..state.len());
            let gone = *state.iter().nth(at).unwrap_or(&instance(0, 1));
            state.remove(&gone);
        }
        for _ in 0..rng.random_range(0..=scale) {
            state.insert(instance(next, ports));
            next += 1;
        }
        states.push(state.clone());
    }
    states
}

/// `total` instances are replaced, `step` at a time: the new instances come before the old ones go.
fn rolling(total: u32, step: u32, ports: u16) -> Vec<State> {
    let mut state: State = (0..total).map(|n| instance(n, ports)).collect();
    let mut states = vec![state.clone()];
    for from in (0..total).step_by(step as usize) {
        state.extend((from..from + step).map(|n| instance(total + n, ports)));
        states.push(state.clone());
        (from..from + step).for_each(|n| {
            state.remove(&instance(n, ports));
        });
        states.push(state.clone());
    }
    states
}

async fn no_more_writes_than_the_built_in_controller(_suite: Arc<Suite>) -> Result<()> {
    let seed: u64 = rand::random();
    eprintln!("packing: seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut sequences: Vec<(String, Vec<State>)> = (0..40).map(|n| (format!("churn {n}"), churn(&mut rng))).collect();
    sequences.push(("a rolling replacement of 1000".to_owned(), rolling(1000, 20, 1)));
    sequences.push(("a rolling replacement of 300 on 3 ports".to_owned(), rolling(300, 10, 3)));
    let (mut all_ours, mut all_theirs) = ((0, 0), (0, 0));
    for (name, states) in &sequences {
        let built_in = built_in_controller(states).await?;
        // Both start each step from the built-in controller's slices: the order of Go's maps, which decides between its
        // choices, must not decide the comparison.
        for (step, state) in states.iter().enumerate().skip(1) {
            let mut from = Simulated::from_built_in(&built_in.slices[step - 1])?;
            let (writes, moved) = from.become_state(state)?;
            ensure!(
                writes <= built_in.writes[step] && moved <= built_in.moved[step],
                "{name}, step {step}, seed {seed}: {writes} writes and {moved} moved; the built-in controller: {} and {}",
                built_in.writes[step],
                built_in.moved[step]
            );
        }
        let (ours, theirs) = (ours(states)?, sum(&built_in));
        ensure!(ours.1 == 0, "{name}, seed {seed}: an endpoint that stays is never moved, {} were", ours.1);
        if name.starts_with('a') {
            eprintln!("packing: {name}: {} writes, the built-in controller {}", ours.0, theirs.0);
        }
        all_ours = (all_ours.0 + ours.0, all_ours.1 + ours.1);
        all_theirs = (all_theirs.0 + theirs.0, all_theirs.1 + theirs.1);
    }
    eprintln!(
        "packing: over all sequences, each from its own start: {all_ours:?} writes and moves, built-in {all_theirs:?}"
    );
    Ok(())
}

/// 1,000 live instances are replaced 20 at a time. The states of the slices are then replayed to the built-in
/// controller.
async fn a_rolling_replacement_of_1000_instances(suite: Arc<Suite>) -> Result<()> {
    const TOTAL: usize = 1000;
    const STEP: usize = 20;
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "rolling").await?;
    sandbox.headless_without_selector("user", 80).await?;
    sandbox.register("user", json!({})).await?;
    let addresses: Vec<SocketAddr> = (0..2 * TOTAL).map(|_| SocketAddr::from((next_v4(), 9000))).collect();
    for address in &addresses[..TOTAL] {
        bed.registry.put(&sandbox.key("user", address), &record(address).to_string()).await?;
    }
    let imported = |expected: State| {
        let sandbox = &sandbox;
        async move {
            eventually("the imported endpoints", Duration::from_secs(60), || async {
                let found = sandbox.imported("user").await?;
                ensure!(found == expected, "{} of {} imported", found.intersection(&expected).count(), expected.len());
                Ok(())
            })
            .await
        }
    };
    imported(addresses[..TOTAL].iter().copied().collect()).await?;
    // Every write of a slice from now on, and the states in between.
    let config = watcher::Config::default().labels("kubernetes.io/service-name=user");
    let mut events = std::pin::pin!(watcher(sandbox.slices(), config).default_backoff());
    let mut current: BTreeMap<String, EndpointSlice> = BTreeMap::new();
    let (mut writes, mut states): (usize, Vec<State>) = (0, Vec::new());
    let mut listed = false;
    let replace = async {
        for from in (0..TOTAL).step_by(STEP) {
            for address in &addresses[TOTAL + from..TOTAL + from + STEP] {
                bed.registry.put(&sandbox.key("user", address), &record(address).to_string()).await?;
            }
            for address in &addresses[from..from + STEP] {
                bed.registry.delete(&sandbox.key("user", address)).await?;
            }
        }
        imported(addresses[TOTAL..].iter().copied().collect()).await
    };
    let mut replace = std::pin::pin!(replace);
    let started = Instant::now();
    loop {
        let event = tokio::select! {
            done = &mut replace => break done?,
            Some(event) = events.next() => event?,
        };
        match event {
            watcher::Event::Init => listed = false,
            watcher::Event::InitDone => {
                listed = true;
                states.push(state_of(&current)?);
                continue;
            }
            watcher::Event::InitApply(slice) | watcher::Event::Apply(slice) => {
                current.insert(slice.metadata.name.clone().unwrap_or_default(), slice);
            }
            watcher::Event::Delete(slice) => {
                current.remove(slice.metadata.name.as_deref().unwrap_or_default());
            }
        }
        if listed {
            writes += 1;
            states.push(state_of(&current)?);
        }
    }
    states.dedup();
    let built_in = sum(&built_in_controller(&states).await?);
    eprintln!(
        "packing: {TOTAL} live instances replaced {STEP} at a time in {:.1} s: {writes} writes of {} slices, \
         {} states; the built-in controller needs {} writes for the same states",
        started.elapsed().as_secs_f64(),
        current.len(),
        states.len(),
        built_in.0
    );
    let fullest = current.values().map(|slice| slice.endpoints.len()).max().unwrap_or_default();
    ensure!(fullest <= slices::MAX_ENDPOINTS, "{fullest} endpoints in one slice");
    sandbox.nothing_foreign_was_touched().await
}

fn state_of(slices: &BTreeMap<String, EndpointSlice>) -> Result<State> {
    let mut state = State::new();
    for slice in slices.values() {
        for port in slice.ports.iter().flatten().filter_map(|p| p.port) {
            for address in slice.endpoints.iter().flat_map(|e| &e.addresses) {
                state.insert(SocketAddr::new(address.parse()?, u16::try_from(port)?));
            }
        }
    }
    Ok(state)
}
