//! The election: who of several replicas holds the Lease.
//!
//! Owns the protocol, which is client-go's (`tools/leaderelection`): the holder renews the Lease, and another replica
//! takes it over once it has seen it unchanged for as long as it lasts, on a monotonic clock of its own. Each attempt
//! has a deadline, so that one silent connection costs one attempt and neither the Lease nor the next election; the
//! claim begins when the request that won it was sent (`docs/decisions/0030`). Refuses to know what a leader does.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    LEASE, LEASE_CALL, LEASE_DURATION, Leadership, LeaseHistory, REGISTRIES_ANNOTATION, RETRY_PERIOD, VERSION,
    VERSION_ANNOTATION,
};
use crate::causes::of_kube;
use crate::env::Env;

/// The result of one attempt to take or renew the Lease.
#[derive(Debug)]
enum Attempt {
    /// Ours, by a request that was sent at this time.
    Won(Instant),
    HeldByAnother,
}

/// The reason why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("the API server did not answer in time")]
    Timeout,
    #[error("not permitted: {0}; apply the chart or deploy/twinspan.yaml of this version")]
    Forbidden(String),
    #[error("{0}")]
    Api(String),
}

impl From<kube::Error> for AttemptError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.is_forbidden() || status.code == 401 => Self::Forbidden(status.message),
            error => Self::Api(of_kube(&error)),
        }
    }
}

/// A candidate.
#[derive(Debug)]
pub struct Election {
    api: Api<Lease>,
    history: LeaseHistory,
    env: Env,
    /// The Lease as it was seen last, and when it was first seen so.
    observed: Option<(LeaseSpec, Instant)>,
    /// Whether the last attempt failed: a failure is told once.
    failing: bool,
    /// The ServiceRegistries that this release serves; empty means all.
    registries: BTreeSet<String>,
}

impl Election {
    pub fn new(client: Client, namespace: &str, history: LeaseHistory, env: Env) -> Self {
        let (api, registries) = (Api::namespaced(client, namespace), BTreeSet::new());
        Self { api, history, env, observed: None, failing: false, registries }
    }

    /// Tells in the Lease that this release serves only these ServiceRegistries; none means all.
    #[must_use]
    pub fn serving(self, registries: &BTreeSet<String>) -> Self {
        Self { registries: registries.clone(), ..self }
    }

    /// Takes part until it is stopped, and then gives the Lease back.
    pub async fn run(mut self, leadership: Leadership, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.acquire(&leadership) => {}
            }
            info!("leading");
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.renew(&leadership) => {}
            }
            leadership.lost();
            warn!("lost the Lease; not writing until it is ours again");
        }
        leadership.lost();
        self.release().await;
    }

    /// Tries until the Lease is won.
    async fn acquire(&mut self, leadership: &Leadership) {
        loop {
            if let Some(sent) = self.attempt(Instant::now() + LEASE_CALL).await
                && leadership.acquired_at(sent)
            {
                return;
            }
            sleep(RETRY_PERIOD + self.env.jittered(RETRY_PERIOD / 2)).await;
        }
    }

    /// Renews the Lease until somebody else has it, or it could not be renewed in time.
    async fn renew(&mut self, leadership: &Leadership) {
        let mut next = Instant::now() + RETRY_PERIOD;
        while let Some(end) = leadership.ends().filter(|end| Instant::now() < *end) {
            sleep_until(next.min(end)).await;
            let started = Instant::now();
            match self.attempt(end.min(started + LEASE_CALL)).await {
                Some(sent) if leadership.renewed_at(sent) => {}
                Some(_) => return,
                None if self.is_held_by_another() => return,
                None => {}
            }
            // One that took its time, or failed, is followed by the next at once; never by two in one instant.
            next = (started + RETRY_PERIOD).max(Instant::now() + RETRY_PERIOD / 10);
        }
    }

    /// One attempt. Returns when the request was sent that makes the Lease ours.
    async fn attempt(&mut self, deadline: Instant) -> Option<Instant> {
        let attempt = timeout_at(deadline, self.take_or_renew()).await;
        let failure = match attempt.unwrap_or(Err(AttemptError::Timeout)) {
            Ok(Attempt::Won(sent)) => {
                self.failing = false;
                return Some(sent);
            }
            Ok(Attempt::HeldByAnother) => {
                self.failing = false;
                return None;
            }
            Err(failure) => failure,
        };
        if self.failing {
            debug!(error = %failure, "cannot take or renew the Lease");
        } else {
            warn!(error = %failure, "cannot take or renew the Lease; trying again");
        }
        self.failing = true;
        None
    }

    fn is_held_by_another(&self) -> bool {
        self.observed.as_ref().is_some_and(|(spec, _)| holder(spec) != Some(self.history.identity()))
    }

    async fn take_or_renew(&mut self) -> Result<Attempt, AttemptError> {
        let Some(mut lease) = self.api.get_opt(LEASE).await? else {
            let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
            let mut lease = Lease { metadata, spec: Some(self.next(None)) };
            self.annotate(&mut lease);
            let sent = Instant::now();
            return self.written(sent, self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        self.history.saw(holder(&spec).unwrap_or_default());
        let ours = holder(&spec) == Some(self.history.identity());
        self.observe(&spec);
        if !ours && holder(&spec).is_some() && !self.is_expired() {
            return Ok(Attempt::HeldByAnother);
        }
        lease.spec = Some(self.next(Some(&spec)));
        self.annotate(&mut lease);
        let sent = Instant::now();
        // A replace fails if another replica changed the Lease since it was read.
        let answer = self.api.replace(LEASE, &PostParams::default(), &lease).await;
        self.written(sent, answer)
    }

    fn written(&mut self, sent: Instant, answer: kube::Result<Lease>) -> Result<Attempt, AttemptError> {
        match answer {
            Ok(lease) => {
                self.observe(&lease.spec.unwrap_or_default());
                Ok(Attempt::Won(sent))
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(Attempt::HeldByAnother)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn observe(&mut self, spec: &LeaseSpec) {
        if self.observed.as_ref().is_none_or(|(known, _)| known != spec) {
            self.observed = Some((spec.clone(), Instant::now()));
        }
    }

    /// Whether the holder has not renewed the Lease for as long as it lasts: by our clock, for its clock may be wrong.
    fn is_expired(&self) -> bool {
        let Some((spec, since)) = &self.observed else { return false };
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        since.elapsed() >= seconds.map_or(LEASE_DURATION, Duration::from_secs)
    }

    /// Tells people which version leads, and other releases what it serves, with a write that is due anyway.
    fn annotate(&self, lease: &mut Lease) {
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(VERSION_ANNOTATION.to_owned(), VERSION.to_owned());
        if self.registries.is_empty() {
            annotations.remove(REGISTRIES_ANNOTATION);
        } else {
            let named: Vec<&str> = self.registries.iter().map(String::as_str).collect();
            annotations.insert(REGISTRIES_ANNOTATION.to_owned(), named.join(","));
        }
    }

    fn next(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        next(self.history.identity(), before, self.env.now())
    }

    /// Gives the Lease back, so that another replica need not wait until it expires.
    async fn release(&mut self) {
        let releasing = tokio::time::timeout(LEASE_CALL, self.try_release()).await;
        match releasing.unwrap_or(Err(AttemptError::Timeout)) {
            Ok(true) => info!("gave the Lease back"),
            Ok(false) => debug!("the Lease is not ours; nothing to give back"),
            Err(failure) => warn!(error = %failure, "cannot give the Lease back; it expires"),
        }
    }

    async fn try_release(&mut self) -> Result<bool, AttemptError> {
        let Some(mut lease) = self.api.get_opt(LEASE).await? else { return Ok(false) };
        let spec = lease.spec.take().unwrap_or_default();
        if holder(&spec) != Some(self.history.identity()) {
            return Ok(false);
        }
        // The number of transitions is all that the next holder needs.
        lease.spec = Some(LeaseSpec { lease_transitions: spec.lease_transitions, ..LeaseSpec::default() });
        let answer = self.api.replace(LEASE, &PostParams::default(), &lease).await;
        Ok(matches!(self.written(Instant::now(), answer)?, Attempt::Won(_)))
    }
}

/// A released Lease has none; client-go writes an empty one.
fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// The Lease of this holder from now on.
fn next(identity: &str, before: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
    let ours = before.filter(|spec| holder(spec) == Some(identity));
    let transitions = before.and_then(|spec| spec.lease_transitions);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
        acquire_time: ours.and_then(|spec| spec.acquire_time.clone()).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: match (before, ours) {
            (None, _) => Some(0),
            (_, Some(_)) => transitions,
            (Some(_), None) => Some(transitions.unwrap_or(0).saturating_add(1)),
        },
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
