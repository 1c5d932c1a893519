//! The overview of leader, registries and services, from the status that the operator writes.
//!
//! Owns the rule about what needs attention. Refuses to look at registries and endpoints: it repeats the operator's
//! words.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Serialize;
use twinspan_core::codec::Format;

use super::lookup::{LookupError, reading};
use super::print::Columns;
use crate::api::conditions::{self, DELETIONS_HELD, READY, Reason, find_true};
use crate::api::{Counts, RegisteredService, ServiceRegistry};
use crate::env::Env;
use crate::leadership::leader;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The replica that leads; absent if none does, or if it is unknown.
    pub leader: Option<String>,
    /// Whether the Lease could be read.
    pub leader_known: bool,
    pub registries: Vec<Registry>,
    pub services: Vec<Service>,
    /// Notes on what could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Registry {
    pub name: String,
    pub format: String,
    pub ready: Ready,
    pub own: i64,
    pub foreign: i64,
    pub undecodable: i64,
    pub held: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    pub namespace: String,
    pub name: String,
    pub registry: String,
    pub ready: Ready,
    pub instances: Counts,
    pub held: Option<String>,
}

/// The condition `Ready`.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    pub reason: String,
    pub message: String,
}

impl Ready {
    fn of(all: &[Condition]) -> Self {
        match conditions::find(all, READY) {
            Some(ready) => {
                Self { status: ready.status.clone(), reason: ready.reason.clone(), message: ready.message.clone() }
            }
            None => Self {
                status: "Unknown".into(),
                reason: "NoStatus".into(),
                message: "no operator has seen it yet".into(),
            },
        }
    }
}

fn held(all: &[Condition]) -> Option<String> {
    find_true(all, DELETIONS_HELD).map(|held| held.message.clone())
}

/// Reads every object once, or those of one namespace. People who may not list RegisteredServices everywhere see those
/// of `own`, and people who may not read the Lease or ServiceRegistries see the rest.
///
/// # Errors
/// [`LookupError`] if the cluster does not answer, or refuses the RegisteredServices.
pub async fn status(
    client: &Client,
    operator_namespace: &str,
    namespace: Option<&str>,
    own: &str,
) -> Result<Status, LookupError> {
    let all = ListParams::default();
    let mut notes = Vec::new();
    let leader = leader(client, operator_namespace, Env::real().now()).await;
    let leader =
        reading("the Lease", permitted(leader, "leader: unknown, for you may not read the Lease", &mut notes))?;
    let registries: Api<ServiceRegistry> = Api::all(client.clone());
    let refused =
        "you may not list ServiceRegistries; the conditions of a RegisteredService say what its registry does";
    let registries = permitted(registries.list(&all).await, refused, &mut notes);
    let registries = reading("ServiceRegistries", registries)?.map(|list| list.items).unwrap_or_default();
    let of = |namespace: &str| Api::<RegisteredService>::namespaced(client.clone(), namespace);
    let services = match namespace {
        Some(namespace) => of(namespace).list(&all).await,
        None => {
            let refused = format!("you may not list every RegisteredService, so these are those of namespace {own}");
            let everywhere = Api::<RegisteredService>::all(client.clone()).list(&all).await;
            match permitted(everywhere, &refused, &mut notes).transpose() {
                Some(answer) => answer,
                None => of(own).list(&all).await,
            }
        }
    };
    let services = reading("RegisteredServices", services)?;
    let mut registries: Vec<Registry> = registries.into_iter().map(registry).collect();
    let mut services: Vec<Service> = services.items.into_iter().map(service).collect();
    registries.sort_by(|a, b| a.name.cmp(&b.name));
    services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let leader_known = leader.is_some();
    Ok(Status { leader: leader.flatten(), leader_known, registries, services, notes })
}

/// An answer, or a note where the API server does not permit the question.
fn permitted<T>(answer: kube::Result<T>, refused: &str, notes: &mut Vec<String>) -> kube::Result<Option<T>> {
    match answer {
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            notes.push(refused.to_owned());
            Ok(None)
        }
        answer => answer.map(Some),
    }
}

fn registry(object: ServiceRegistry) -> Registry {
    let status = object.status.unwrap_or_default();
    let records = status.records.unwrap_or_default();
    Registry {
        name: object.metadata.name.unwrap_or_default(),
        format: Format::from(object.spec.format).as_str().to_owned(),
        ready: Ready::of(&status.conditions),
        own: records.own,
        foreign: records.foreign,
        undecodable: records.undecodable,
        held: held(&status.conditions),
    }
}

fn service(object: RegisteredService) -> Service {
    let status = object.status.unwrap_or_default();
    Service {
        namespace: object.metadata.namespace.unwrap_or_default(),
        name: object.metadata.name.unwrap_or_default(),
        registry: object.spec.registry_ref.name,
        ready: Ready::of(&status.conditions),
        held: held(&status.conditions),
        instances: status.instances,
    }
}

impl Ready {
    /// Whether the service needs no attention. A suspended or observing one is as its owner wants it, and Ready.
    fn is_well(&self) -> bool {
        self.status == "True"
    }

    /// Whether the reason is worth a word: what is wrong, or that nothing is written.
    fn is_telling(&self) -> bool {
        let idle = [Reason::Suspended, Reason::Observing].map(Reason::as_str);
        !self.is_well() || idle.contains(&self.reason.as_str())
    }
}

impl Status {
    /// Whether nothing needs attention; everything that does has an alert too.
    pub fn is_well(&self) -> bool {
        let ready = self.registries.iter().map(|r| &r.ready).chain(self.services.iter().map(|s| &s.ready));
        let held = self.registries.iter().map(|r| &r.held).chain(self.services.iter().map(|s| &s.held));
        (self.leader.is_some() || !self.leader_known)
            && ready.into_iter().all(Ready::is_well)
            && held.into_iter().all(Option::is_none)
            && self.services.iter().all(|service| service.instances.lost == 0)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.leader {
            Some(leader) => writeln!(f, "{leader} leads\n")?,
            None if !self.leader_known => {}
            None => writeln!(f, "nobody leads: nothing is written\n")?,
        }
        let mut registries = Columns::new(["REGISTRY", "FORMAT", "READY", "OWN", "FOREIGN", "UNDECODABLE", "WHY"]);
        for r in &self.registries {
            let numbers = [r.own, r.foreign, r.undecodable].map(|n| n.to_string());
            let [own, foreign, undecodable] = numbers;
            let why = why(&r.ready, r.held.clone());
            registries.add([r.name.clone(), r.format.clone(), r.ready.status.clone(), own, foreign, undecodable, why]);
        }
        if !self.registries.is_empty() || self.leader_known {
            writeln!(f, "{registries}")?;
        }
        let head = ["REGISTEREDSERVICE", "REGISTRY", "READY", "EXPORTED", "IMPORTED", "LOST", "SKIPPED", "HELD", "WHY"];
        let mut columns = Columns::new(head);
        for s in &self.services {
            let counts = &s.instances;
            let numbers = [counts.exported, counts.imported, counts.lost, counts.skipped, counts.held];
            let [exported, imported, lost, skipped, held] = numbers.map(|n| n.to_string());
            let restart = (counts.lost > 0).then(|| "restart what is lost; twinspan parity names it".to_owned());
            let (name, why) =
                (format!("{}/{}", s.namespace, s.name), why(&s.ready, s.held.iter().cloned().chain(restart)));
            let ready = s.ready.status.clone();
            columns.add([name, s.registry.clone(), ready, exported, imported, lost, skipped, held, why]);
        }
        write!(f, "{columns}")?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

fn why(ready: &Ready, more: impl IntoIterator<Item = String>) -> String {
    let trouble = ready.is_telling().then(|| {
        if ready.message.is_empty() { ready.reason.clone() } else { format!("{}: {}", ready.reason, ready.message) }
    });
    let all: Vec<String> = trouble.into_iter().chain(more).collect();
    all.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(reason: &str, instances: Counts) -> Status {
        let well = if ["Synced", "Observing"].contains(&reason) { "True" } else { "False" };
        let ready = Ready { status: well.into(), reason: reason.into(), message: String::new() };
        let (namespace, name, registry) = ("shop".into(), "user".into(), "main".into());
        let service = Service { namespace, name, registry, ready, instances, held: None };
        Status {
            leader: Some("a".into()),
            leader_known: true,
            registries: Vec::new(),
            services: vec![service],
            notes: Vec::new(),
        }
    }

    #[test]
    fn what_needs_a_person_is_what_alerts_are_about() {
        let (none, lost) = (Counts::default(), Counts { lost: 1, ..Counts::default() });
        assert!(status("Synced", none.clone()).is_well());
        assert!(status("Synced", Counts { healed: 1, skipped: 1, ..Counts::default() }).is_well());
        let observing = status("Observing", none.clone());
        assert!(observing.is_well() && observing.to_string().ends_with("Observing\n"), "somebody chose to observe");
        assert!(!status("NotAllowed", none.clone()).is_well());
        let lost = status("Synced", lost);
        assert!(!lost.is_well());
        let text = lost.to_string();
        assert!(text.ends_with("1     0        0     restart what is lost; twinspan parity names it\n"), "{text}");
        assert!(!Status { leader: None, ..status("Synced", none.clone()) }.is_well());
        assert!(Status { leader: None, leader_known: false, ..status("Synced", none) }.is_well());
    }
}
