//! Instances that one side alone has, for a reason that a person may have to know.
//!
//! Owns which outcomes count. An endpoint that its cluster does not serve is no difference, and neither is what the
//! spec does not ask for: a direction, and further ports and addresses of a pod that is meant at another one. Instances
//! that stand by are meant to. Refuses to know states and words.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::outcomes::Outcomes;
use crate::model::{InstanceOutcome, Outcome, Reason, Slice};

impl Outcomes {
    /// Whether an instance is on one side alone for a while: evidence or a time is waited for.
    pub fn wait(&self) -> bool {
        self.all().any(|instance| {
            matches!(
                instance.outcome,
                Outcome::ExportDelayed { .. } | Outcome::EndpointWithoutRecord | Outcome::RecordWithoutEndpoint
            )
        })
    }

    /// Whether an instance is left out on one side, and stays so until a person or its server changes something.
    /// `slices` are those of others, and `exports` says whether the spec asks for their endpoints.
    pub fn differ(&self, slices: &[Arc<Slice>], exports: bool) -> bool {
        self.skipped().any(|(_, reason)| reason != Reason::Standby)
            || self.records.iter().any(|i| matches!(i.outcome, Outcome::ExportedByAnother { .. }))
            || (exports && self.withholds(slices))
    }

    /// Whether an endpoint is withheld that the cluster serves, and its pod is meant at no other address.
    fn withholds(&self, slices: &[Arc<Slice>]) -> bool {
        if self.withheld.iter().any(|instance| instance.outcome == Outcome::Unmanaged) {
            return true;
        }
        if !self.withheld.iter().any(is_elsewhere) {
            return false;
        }
        let endpoints = [&self.ready, &self.gated, &self.withheld].into_iter().flatten();
        let meant = endpoints.filter(|instance| !is_elsewhere(instance));
        let meant: BTreeSet<IpAddr> = meant.filter_map(|i| Some(i.subject.address()?.ip())).collect();
        let ends = || slices.iter().flat_map(|slice| &slice.endpoints);
        let pods: BTreeSet<&str> = ends()
            .filter(|endpoint| endpoint.address.ip().is_some_and(|ip| meant.contains(&ip)))
            .filter_map(|endpoint| Some(endpoint.pod.as_ref()?.uid.as_str()))
            .collect();
        // At another port the outcome says nothing about readiness.
        let served: BTreeSet<IpAddr> = ends()
            .filter(|endpoint| endpoint.is_ready() && !endpoint.is_terminating())
            .filter(|endpoint| endpoint.pod.as_ref().is_none_or(|pod| !pods.contains(pod.uid.as_str())))
            .filter_map(|endpoint| endpoint.address.ip())
            .collect();
        let lone = |ip: &IpAddr| served.contains(ip) && !meant.contains(ip);
        let mut elsewhere = self.withheld.iter().filter(|instance| is_elsewhere(instance));
        elsewhere.any(|instance| instance.subject.address().is_some_and(|addr| lone(&addr.ip())))
    }
}

/// Whether the endpoint is at a port, or of a family, that is not exported.
fn is_elsewhere(instance: &InstanceOutcome) -> bool {
    matches!(instance.outcome, Outcome::OtherPort { .. } | Outcome::OtherFamily)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{AddressType, Family, InstanceAddr, Owner, RecordKey, ServiceKey, SliceEndpoint, TargetPod};

    fn of(address: &str, outcome: Outcome) -> InstanceOutcome {
        InstanceOutcome::of(InstanceAddr::parse(address).unwrap(), outcome)
    }

    fn end(ip: &str, pod: Option<&str>) -> SliceEndpoint {
        let named = |uid: &str| Box::new(TargetPod { namespace: "shop".into(), name: uid.into(), uid: uid.into() });
        SliceEndpoint { pod: pod.map(named), ..SliceEndpoint::ready(ip.parse().unwrap()) }
    }

    fn slices(endpoints: Vec<SliceEndpoint>) -> Vec<Arc<Slice>> {
        vec![Arc::new(Slice {
            name: "others".into(),
            resource_version: "1".into(),
            service: None,
            managed_by: None,
            owner_uid: None,
            keeper: None,
            others_labels: BTreeSet::new(),
            deleting: false,
            address_type: AddressType::Ip(Family::V4),
            ports: Vec::new(),
            endpoints,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        })]
    }

    fn exported(address: &str) -> InstanceOutcome {
        of(address, Outcome::Exported { key: RecordKey::from("p/echo/x") })
    }

    fn other_port() -> Outcome {
        Outcome::OtherPort { port: "metrics".to_owned() }
    }

    #[test]
    fn a_served_pod_that_is_meant_nowhere_else_is_a_difference() {
        let withheld = |outcome| Outcomes { withheld: vec![of("10.0.0.2:90", outcome)], ..Outcomes::default() };
        let there = slices(vec![end("10.0.0.2", Some("b"))]);
        for outcome in [other_port(), Outcome::OtherFamily, Outcome::Unmanaged] {
            assert!(withheld(outcome.clone()).differ(&there, true), "{outcome:?}");
            assert!(!withheld(outcome.clone()).differ(&there, false), "{outcome:?}, and nothing is to be exported");
        }
        for outcome in [Outcome::NotReady, Outcome::Terminating] {
            assert!(!withheld(outcome.clone()).differ(&there, true), "{outcome:?}: the cluster does not serve it");
        }
        let not_ready = SliceEndpoint { ready: Some(false), ..end("10.0.0.2", Some("b")) };
        assert!(!withheld(other_port()).differ(&slices(vec![not_ready]), true));
    }

    #[test]
    fn a_further_port_or_family_of_a_pod_is_no_difference() {
        let outcomes = |more: InstanceOutcome| Outcomes {
            ready: vec![exported("10.0.0.1:80")],
            withheld: vec![more],
            ..Outcomes::default()
        };
        let both = slices(vec![end("10.0.0.1", Some("a")), end("fd00::1", Some("a")), end("fd00::2", Some("b"))]);
        assert!(!outcomes(of("10.0.0.1:90", other_port())).differ(&both, true));
        assert!(!outcomes(of("[fd00::1]:80", Outcome::OtherFamily)).differ(&both, true));
        assert!(outcomes(of("[fd00::2]:80", Outcome::OtherFamily)).differ(&both, true), "it is of another pod");
        let nameless = slices(vec![end("10.0.0.1", None), end("fd00::1", None)]);
        assert!(outcomes(of("[fd00::1]:80", Outcome::OtherFamily)).differ(&nameless, true), "nothing says whose it is");
    }

    #[test]
    fn records_that_are_left_out_differ_unless_they_stand_by() {
        let owner = Owner { cluster_id: "c1".to_owned(), service: ServiceKey::new("shop", "other") };
        let another = of("10.0.0.1:80", Outcome::ExportedByAnother { owner: Box::new(owner) });
        assert!(Outcomes { records: vec![another], ..Outcomes::default() }.differ(&[], true));
        let skipped = |outcome| Outcomes { skipped: vec![of("192.0.2.1:80", outcome)], ..Outcomes::default() };
        assert!(skipped(Outcome::Skipped(Reason::LoopbackAddress)).differ(&[], true));
        assert!(!skipped(Outcome::Standby { local: 3, min_local: 1 }).differ(&[], true));
        assert!(!skipped(Outcome::ImportNotRequested).differ(&[], true), "the spec does not ask for it");
        assert!(!Outcomes { ready: vec![exported("10.0.0.1:80")], ..Outcomes::default() }.differ(&[], true));
    }

    #[test]
    fn what_a_time_or_evidence_will_decide_waits() {
        let until = crate::Timestamp::UNIX_EPOCH;
        for outcome in
            [Outcome::ExportDelayed { until }, Outcome::EndpointWithoutRecord, Outcome::RecordWithoutEndpoint]
        {
            let outcomes = Outcomes { records: vec![of("10.0.0.1:80", outcome.clone())], ..Outcomes::default() };
            assert!(outcomes.wait() && !outcomes.differ(&[], true), "{outcome:?}");
        }
        assert!(!Outcomes { ready: vec![exported("10.0.0.1:80")], ..Outcomes::default() }.wait());
    }
}
