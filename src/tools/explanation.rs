//! Explanations: the outcome of each instance in words, for a person who misses it.
//!
//! Owns the words. Refuses to decide: every explanation is one match on the outcome that the planner returned.

use serde::{Deserialize, Serialize};
use twinspan_core::model::{InstanceAddr, InstanceOutcome, Outcome, READINESS_GATE, Reason, RecordKey};

/// One instance, or a record that has no address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The address; the key of a record that has none.
    pub instance: String,
    /// One word: `Exported`, `Imported`, `NotReady`, or a reason of `status.differences`.
    pub state: String,
    /// The meaning of the state, and the advice.
    pub text: String,
}

impl Explanation {
    /// Whether the instance stands by for others, which is no difference between the sides.
    pub fn stands_by(&self) -> bool {
        self.state == Reason::Standby.label()
    }

    /// Whether the pod is about to be ready, which is no difference that a person has to know.
    pub fn is_before_ready(&self) -> bool {
        self.state == "ExportedBeforeReady"
    }

    /// Whether the instance waits for more evidence or for the guard.
    pub fn waits(&self) -> bool {
        matches!(self.state.as_str(), WAITING | HELD)
    }
}

/// The states of an instance that waits.
const WAITING: &str = "Waiting";
const HELD: &str = "Held";

/// The facts besides the outcome that the words depend on.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Whether an operator may write for the RegisteredService.
    pub writes: bool,
    /// The message of the condition `DeletionsHeld`, where it is True.
    pub held: Option<&'a str>,
    /// The reason and the message, if the RegisteredService is not accepted.
    pub rejection: Option<(&'a str, &'a str)>,
    /// The names of the chosen ports.
    pub ports: &'a [&'a str],
}

impl Context<'_> {
    /// The time of a planned write, in words.
    fn next(&self) -> &'static str {
        if self.writes {
            "it waits for the leader's next pass"
        } else {
            "nothing is written: spec.policy is Observe, or spec.suspend is set"
        }
    }

    /// The words for an instance that stays although one side lacks it: the guard holds it, or it waits for evidence.
    fn held(&self, why: &str) -> (String, String) {
        match self.held {
            Some(message) => (HELD.to_owned(), format!("{why}; {message}")),
            None => (WAITING.to_owned(), format!("{why}; it is judged within seconds")),
        }
    }
}

/// Explains every instance, in the order of addresses, then keys. `registered_as` returns the keys of foreign records
/// with an address.
pub fn explain_all<'a>(
    by_address: impl IntoIterator<Item = (&'a InstanceAddr, &'a InstanceOutcome)>,
    rest: &[&InstanceOutcome],
    registered_as: impl Fn(InstanceAddr) -> Vec<&'a RecordKey>,
    context: Context<'_>,
) -> Vec<Explanation> {
    let addressed = by_address.into_iter().map(|(addr, instance)| {
        let mut explanation = explain(instance, addr.to_string(), context);
        if instance.outcome.is_endpoint_of_cluster() && !instance.outcome.is_shared() {
            for key in registered_as(*addr) {
                explanation.text = format!("{}. It registered itself as {key}", explanation.text);
            }
        }
        explanation
    });
    let rest = rest.iter().map(|instance| explain(instance, instance.subject.to_string(), context));
    addressed.chain(rest).collect()
}

fn explain(instance: &InstanceOutcome, name: String, context: Context<'_>) -> Explanation {
    let says = |state: &str, text: &str| (state.to_owned(), text.to_owned());
    let (state, text) = match &instance.outcome {
        Outcome::Exported { key } => says("Exported", &format!("as {key}")),
        Outcome::ExportedBeforeReady { key } => says(
            "ExportedBeforeReady",
            &format!("as {key}; its pod is not ready yet, and waits for its readiness gate {READINESS_GATE}"),
        ),
        Outcome::ToBeExported => says("ToBeExported", &format!("its record is not there yet; {}", context.next())),
        Outcome::SelfRegistered { refused: None, .. } => says(
            "SelfRegistered",
            "its own server registered it; Twinspan adds no second record, which would double its traffic",
        ),
        Outcome::SelfRegistered { key, refused: Some(reason) } => says(
            "SelfRegistered",
            &format!(
                "{key} names it already, although that record is not imported ({reason}: {}); Twinspan adds no second record, which \
                 would double its traffic",
                meaning(*reason)
            ),
        ),
        Outcome::TakenByOtherCluster { key } => says(
            "TakenByOtherCluster",
            &format!(
                "another cluster's Twinspan registered it as {key}; Twinspan adds no second record, which would double its traffic"
            ),
        ),
        Outcome::ReachedAt { address } => {
            says("ReachedAt", &format!("clients call it at {address}; see spec.export.address"))
        }
        Outcome::ExportDelayed { until } => {
            says(WAITING, &format!("its own record left while it is ready; it is exported again at {until:.0}"))
        }
        Outcome::ExportNotRequested => says("NotRequested", "it is not exported: spec.direction is Import"),
        Outcome::ExportUnavailable => {
            says("RegistryUnavailable", "the registry cannot be asked now; see its ServiceRegistry")
        }
        Outcome::OtherPort { port } => says(
            "WrongPort",
            &format!("its port {port:?} is not the one that is meant ({:?}); see spec.service.ports", context.ports),
        ),
        Outcome::Terminating => says("Terminating", "its pod is terminating; it is not exported any more"),
        Outcome::NotReady => says("NotReady", "its pod is not ready; see its readiness probe"),
        Outcome::OtherFamily => {
            says("OtherFamily", "only the Service's primary IP family is exported; see spec.export.ipFamilyPolicy")
        }
        Outcome::Unmanaged => {
            says("LeftOver", "the Service has no selector any more, so nobody looks after this endpoint")
        }
        Outcome::ExportedByAnother { owner } => {
            says("OthersExport", &format!("{owner} exported it under the same name"))
        }
        Outcome::ToBeWithdrawn { key } => {
            says("ToBeWithdrawn", &format!("its endpoint is gone, and {key} is to go; {}", context.next()))
        }
        Outcome::RecordWithoutEndpoint => context.held("no ready endpoint is behind its record"),
        Outcome::Imported => says("Imported", "it is an endpoint of the Service"),
        Outcome::ToBeImported => says("ToBeImported", &format!("its endpoint is not there yet; {}", context.next())),
        Outcome::Lost { until } | Outcome::ToBeHealed { until } => says(
            "Lost",
            &format!(
                "it lost its registration and accepts connections; it stays until {until:.0}. Restart it to register again"
            ),
        ),
        Outcome::Healed { until } => says(
            "Healed",
            &format!("it lost its registration and accepts connections; its record is restored until {until:.0}"),
        ),
        Outcome::EndpointWithoutRecord => context.held("no record is behind its endpoint"),
        Outcome::ImportUnavailable => says(
            "RegistryUnavailable",
            "the registry cannot be asked now, and what was imported from it is kept; see its ServiceRegistry",
        ),
        Outcome::ImportNotRequested => says("NotRequested", "it is not imported: spec.direction is Export"),
        Outcome::Skipped(reason) => says(reason.label(), meaning(*reason)),
        Outcome::Standby { local, min_local } => says(
            "Standby",
            &format!(
                "another cluster's, and it waits while this cluster has {local} (spec.import.clusters: LocalFirst, minLocal \
                 {min_local}); nothing is wrong"
            ),
        ),
        Outcome::NotAccepted => {
            let (reason, message) = context.rejection.unwrap_or_default();
            says(reason, message)
        }
    };
    Explanation { instance: name, state, text }
}

/// The meaning of a reason of `status.differences`, and the advice.
pub fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::AddressMissing => "the record has no address; its server has to register one",
        Reason::AddressMalformed => "its address cannot be read; its server has to register IP:PORT",
        Reason::HostnameAddress => "EndpointSlices take IP addresses, and this is a name; register the server's IP",
        Reason::PortMissing => "its address has no port",
        Reason::PortZero => "port 0 cannot be called",
        Reason::NonCanonicalAddress => {
            "the IP is written in an odd form that EndpointSlices refuse; register its usual form"
        }
        Reason::Ipv4MappedAddress => "an IPv4 address in IPv6 form; register it as IPv4",
        Reason::ZoneIdentifier => "an address with a zone means something on one machine only",
        Reason::UnspecifiedAddress => "0.0.0.0 and [::] are no addresses of a server; register its IP",
        Reason::LoopbackAddress => "a loopback address leads every client to itself; register the server's IP",
        Reason::LinkLocalAddress => "a link-local address means something on one link only",
        Reason::MulticastAddress => "a multicast address is no server",
        Reason::BroadcastAddress => "a broadcast address is no server",
        Reason::Undecodable => {
            "the value cannot be parsed in the registry's format, or is longer than 64 KiB; twinspan explain with the record's key shows it"
        }
        Reason::NotTCP => "its network is not TCP, and only TCP ports are imported",
        Reason::KeyValueMismatch => "its key names another address than its value; one of them is wrong",
        Reason::OtherName => "its value names another service than its key, so clients pass over it",
        Reason::NoSuchScheme => "it has no address with the scheme of a chosen port; see spec.service.ports[].scheme",
        Reason::APIServerAddress => "it is the API server's address, which no registry may put into a Service",
        Reason::ServiceAddress => "it is an address of a Service, and traffic would go in a circle",
        Reason::NodeAddress => "it is a Node's address; spec.importPolicy.allowCIDRs of the ServiceRegistry permits it",
        Reason::OtherNamespacesPod => "it is the pod of another namespace",
        Reason::NoSuchPod => "it lies in a pod range, and no pod has it: its record was left behind",
        Reason::DeniedCIDR => "spec.importPolicy.denyCIDRs of the ServiceRegistry refuses it",
        Reason::NotInAllowCIDRs => "spec.importPolicy.allowCIDRs of the ServiceRegistry does not name it",
        Reason::NoAddress => {
            "spec.export.address asks for an address that it does not have: its Node has none of that type and family, or the load \
             balancer no IP in the Service's status (names are not resolved)"
        }
        Reason::FamilyNotServed => "the Service does not serve its IP family; see spec.ipFamilyPolicy of the Service",
        Reason::NotSelected => "its tags do not match spec.import.tagSelector",
        Reason::OtherCluster => "another cluster's Twinspan exported it; spec.import.otherClusters All imports it",
        Reason::ClusterNotNamed => {
            "another cluster's Twinspan exported it, and spec.import.clusters.names does not have that cluster"
        }
        Reason::FormerEndpoint => {
            "it was a pod of the Service, and its record was left behind; registering anew imports it"
        }
        Reason::TooManySlices => {
            "the name's records would fill more than 500 slices; fewer port numbers among its servers need fewer"
        }
        Reason::RefusedByCluster => {
            "the API server refuses the slice that would hold it, by a quota or a policy; the condition Imported has its words"
        }
        Reason::Standby => {
            "another cluster's, and it waits while enough instances of this cluster are there (spec.import.clusters: LocalFirst); \
             nothing is wrong"
        }
        Reason::Conflict => {
            "a RegisteredService that precedes it, or a record that another client wrote under Twinspan's key, has it"
        }
    }
}

#[cfg(test)]
mod tests {
    use twinspan_core::Timestamp;
    use twinspan_core::model::{Owner, ServiceKey};

    use super::*;

    const ACTIVE: Context<'_> = Context { writes: true, held: None, rejection: None, ports: &["rpc"] };

    fn state(outcome: Outcome, context: Context<'_>) -> (String, bool) {
        let instance = InstanceOutcome::of(InstanceAddr::parse("10.0.0.1:80").unwrap(), outcome);
        let explanation = explain(&instance, "10.0.0.1:80".into(), context);
        assert!(!explanation.text.is_empty(), "{explanation:?}");
        (explanation.state.clone(), explanation.waits())
    }

    #[test]
    fn an_instance_waits_until_the_guard_holds_it() {
        assert_eq!(state(Outcome::EndpointWithoutRecord, ACTIVE), ("Waiting".into(), true));
        let held = Context { held: Some("they stay"), ..ACTIVE };
        assert_eq!(state(Outcome::RecordWithoutEndpoint, held), ("Held".into(), true));
        let until = Timestamp::UNIX_EPOCH;
        assert_eq!(state(Outcome::ExportDelayed { until }, held), ("Waiting".into(), true));
        assert_eq!(state(Outcome::ToBeHealed { until }, held), ("Lost".into(), false));
    }

    #[test]
    fn the_page_has_a_chinese_word_for_each_state() {
        let (until, key) = (Timestamp::UNIX_EPOCH, || RecordKey::from("p/echo/10.0.0.1:80"));
        let owner = Box::new(Owner { cluster_id: "c1".to_owned(), service: ServiceKey::new("shop", "other") });
        let texts = include_str!("../page/assets/texts.js");
        let (_, chinese) = texts.split_once("\n    outcomes: {\n").unwrap();
        for outcome in [
            Outcome::Exported { key: key() },
            Outcome::ExportedBeforeReady { key: key() },
            Outcome::ToBeExported,
            Outcome::SelfRegistered { key: key(), refused: None },
            Outcome::TakenByOtherCluster { key: key() },
            Outcome::ReachedAt { address: InstanceAddr::parse("10.0.0.1:80").unwrap() },
            Outcome::ExportDelayed { until },
            Outcome::ExportNotRequested,
            Outcome::ExportUnavailable,
            Outcome::OtherPort { port: "metrics".to_owned() },
            Outcome::Terminating,
            Outcome::NotReady,
            Outcome::OtherFamily,
            Outcome::Unmanaged,
            Outcome::ExportedByAnother { owner },
            Outcome::ToBeWithdrawn { key: key() },
            Outcome::RecordWithoutEndpoint,
            Outcome::Imported,
            Outcome::ToBeImported,
            Outcome::Lost { until },
            Outcome::ToBeHealed { until },
            Outcome::Healed { until },
            Outcome::EndpointWithoutRecord,
            Outcome::ImportUnavailable,
            Outcome::ImportNotRequested,
            Outcome::Standby { local: 3, min_local: 1 },
        ] {
            for context in [ACTIVE, Context { held: Some("they stay"), ..ACTIVE }] {
                let (state, _) = state(outcome.clone(), context);
                let has_word = [" ", "\n"].iter().any(|before| chinese.contains(&format!("{before}{state}: \"")));
                assert!(has_word, "{state} of {outcome:?}");
            }
        }
    }

    #[test]
    fn a_record_in_an_odd_form_is_named_with_its_reason() {
        let key = RecordKey::from("p/echo/10.9.9.9:80");
        let outcome = Outcome::SelfRegistered { key, refused: Some(Reason::KeyValueMismatch) };
        let instance = InstanceOutcome::of(InstanceAddr::parse("10.0.0.1:80").unwrap(), outcome);
        let explanation = explain(&instance, "10.0.0.1:80".into(), ACTIVE);
        assert_eq!(explanation.state, "SelfRegistered");
        assert!(explanation.text.starts_with("p/echo/10.9.9.9:80 names it already"), "{}", explanation.text);
        assert!(explanation.text.contains("KeyValueMismatch: its key names another address"), "{}", explanation.text);
    }
}
