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
use super::print::{Cell, Columns, Tone, count, line};
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
    /// The IDs of other clusters that share its etcd.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<String>,
    /// For `-o wide`.
    #[serde(skip)]
    pub endpoints: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    pub namespace: String,
    pub name: String,
    pub registry: String,
    /// The name in the registry.
    pub registry_name: String,
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

/// The choice of RegisteredServices; everything by default.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub namespace: Option<String>,
    /// A selector of labels, in the form of kubectl.
    pub labels: Option<String>,
}

/// Reads every object once, or the chosen RegisteredServices and their registries. People who may not list
/// RegisteredServices everywhere see those of `own`, and people who may not read the Lease or ServiceRegistries see the
/// rest.
///
/// # Errors
/// [`LookupError`] if the cluster does not answer, or refuses the RegisteredServices.
pub async fn status(
    client: &Client,
    operator_namespace: &str,
    chosen: &Selection,
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
    let services = match &chosen.namespace {
        Some(namespace) => of(namespace).list(&chosen.params()).await,
        None => {
            let refused = format!("you may not list every RegisteredService, so these are those of namespace {own}");
            let everywhere = Api::<RegisteredService>::all(client.clone()).list(&chosen.params()).await;
            match permitted(everywhere, &refused, &mut notes).transpose() {
                Some(answer) => answer,
                None => of(own).list(&chosen.params()).await,
            }
        }
    };
    let services = reading("RegisteredServices", services)?;
    let mut registries: Vec<Registry> = registries.into_iter().map(registry).collect();
    let mut services: Vec<Service> = services.items.into_iter().map(service).collect();
    if chosen.namespace.is_some() || chosen.labels.is_some() {
        registries.retain(|registry| services.iter().any(|service| service.registry == registry.name));
    }
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

impl Selection {
    pub fn params(&self) -> ListParams {
        ListParams { label_selector: self.labels.clone(), ..ListParams::default() }
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
        clusters: status.clusters,
        endpoints: object.spec.etcd.endpoints,
    }
}

fn service(object: RegisteredService) -> Service {
    let registry_name = object.registry_name();
    let status = object.status.unwrap_or_default();
    Service {
        registry_name,
        namespace: object.metadata.namespace.unwrap_or_default(),
        name: object.metadata.name.unwrap_or_default(),
        registry: object.spec.registry_ref.name,
        ready: Ready::of(&status.conditions),
        held: held(&status.conditions),
        instances: status.instances,
    }
}

impl Ready {
    fn cell(&self) -> Cell {
        let tone = if self.is_well() { None } else { Some(Tone::Bad) };
        Cell::toned(self.status.clone(), tone)
    }

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
    /// The names of all objects, as `kubectl get -o name` prints them.
    pub fn names(&self) -> Vec<String> {
        let registries =
            self.registries.iter().map(|registry| format!("serviceregistry.twinspan.dev/{}", registry.name));
        let services = self.services.iter().map(|service| format!("registeredservice.twinspan.dev/{}", service.name));
        registries.chain(services).collect()
    }

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
            Some(leader) => line(f, "", format_args!("{leader} leads"))?,
            None if !self.leader_known => {}
            None => writeln!(f, "no leader, so nothing is written; start the operator, or see twinspan doctor")?,
        }
        match (self.registries.is_empty(), self.services.is_empty()) {
            (true, true) => writeln!(f, "\nNo resources found")?,
            // People who may not list them learn it by a note.
            (true, false) if !self.notes.is_empty() => {}
            (true, false) => writeln!(f, "\nNo ServiceRegistries found")?,
            (false, _) => write!(f, "\n{}", self.registry_columns(f.alternate()))?,
        }
        for registry in self.registries.iter().filter(|registry| !registry.clusters.is_empty()) {
            let (name, clusters) = (&registry.name, registry.clusters.join(", "));
            line(f, "", format_args!("registry {name} is shared with the clusters {clusters}"))?;
        }
        match (self.registries.is_empty(), self.services.is_empty()) {
            (true, true) => {}
            (false, true) => writeln!(f, "\nNo RegisteredServices found")?,
            (_, false) => write!(f, "\n{}", self.service_columns(f.alternate()))?,
        }
        self.notes.iter().try_for_each(|note| line(f, "note: ", note))
    }
}

impl Status {
    fn registry_columns(&self, wide: bool) -> Columns {
        let more: &[&str] = if wide { &["ENDPOINTS"] } else { &[] };
        let head = [&["REGISTRY", "FORMAT", "READY", "OWN", "FOREIGN", "UNDECODABLE"], more, &["WHY"]].concat();
        let mut columns = Columns::headed(&head);
        for r in &self.registries {
            let mut cells: Vec<Cell> = vec![r.name.clone().into(), r.format.clone().into(), r.ready.cell()];
            cells.extend([r.own, r.foreign].map(|number| Cell::from(number.to_string())));
            cells.push(count(r.undecodable, Tone::Doubtful));
            cells.extend(wide.then(|| r.endpoints.join(",").into()));
            cells.push(why(&r.ready, r.held.clone()).into());
            columns.add(cells);
        }
        columns
    }

    fn service_columns(&self, wide: bool) -> Columns {
        let more: &[&str] = if wide { &["NAME IN REGISTRY", "HEALED"] } else { &[] };
        let head = ["REGISTEREDSERVICE", "REGISTRY", "READY", "EXPORTED", "IMPORTED", "LOST", "SKIPPED", "HELD"];
        let mut columns = Columns::headed(&[&head[..], more, &["WHY"]].concat());
        for s in &self.services {
            let counts = &s.instances;
            let restart = (counts.lost > 0).then(|| "restart what is lost; twinspan parity names it".to_owned());
            let name = format!("{}/{}", s.namespace, s.name);
            let mut cells: Vec<Cell> = vec![name.into(), s.registry.clone().into(), s.ready.cell()];
            cells.extend([counts.exported, counts.imported].map(|number| Cell::from(number.to_string())));
            cells.push(count(counts.lost, Tone::Bad));
            cells.extend([counts.skipped, counts.held].map(|number| count(number, Tone::Doubtful)));
            if wide {
                cells.extend([s.registry_name.clone().into(), count(counts.healed, Tone::Doubtful)]);
            }
            let why = match self.same_trouble(s) {
                Some(registry) => format!("registry {} is not ready, see above; what is there is kept", registry.name),
                None => why(&s.ready, s.held.iter().cloned().chain(restart)),
            };
            cells.push(why.into());
            columns.add(cells);
        }
        columns
    }

    /// The registry that has the same trouble as a service, whose words would stand in every row.
    fn same_trouble(&self, service: &Service) -> Option<&Registry> {
        let registry = self.registries.iter().find(|registry| registry.name == service.registry)?;
        let (here, there) = (&service.ready, &registry.ready);
        (!there.is_well() && here.status == there.status && here.reason == there.reason && service.held.is_none())
            .then_some(registry)
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
        let registry_name = "douyinec.user".into();
        let service = Service { namespace, name, registry, registry_name, ready, instances, held: None };
        Status {
            leader: Some("a".into()),
            leader_known: true,
            registries: Vec::new(),
            services: vec![service],
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_trouble_of_a_registry_stands_in_its_own_row_alone() {
        let mut status = status("Unreachable", Counts::default());
        status.services[0].ready.message = "no endpoint of the registry answers".into();
        status.registries = vec![Registry {
            name: "main".into(),
            format: "Kitex".into(),
            ready: status.services[0].ready.clone(),
            own: 0,
            foreign: 0,
            undecodable: 0,
            held: None,
            clusters: vec!["c2".into(), "c3".into()],
            endpoints: Vec::new(),
        }];
        let text = anstream::adapter::strip_str(&status.to_string()).to_string();
        assert!(text.contains("\nregistry main is shared with the clusters c2, c3\n"), "{text}");
        assert_eq!(text.matches("no endpoint of the registry answers").count(), 1, "{text}");
        assert!(text.ends_with("registry main is not ready, see above; what is there is kept\n"), "{text}");
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
        let plain = |text: String| anstream::adapter::strip_str(&text).to_string();
        let text = plain(lost.to_string());
        assert!(text.ends_with("1     -        -     restart what is lost; twinspan parity names it\n"), "{text}");
        let wide = plain(format!("{lost:#}"));
        assert!(wide.contains("NAME IN REGISTRY") && wide.contains("douyinec.user"), "{wide}");
        assert_eq!(lost.names(), ["registeredservice.twinspan.dev/user"]);
        assert!(Status { leader: None, leader_known: false, ..status("Synced", none.clone()) }.is_well());
        let empty = Status { leader: None, services: Vec::new(), ..status("Synced", none) };
        assert!(!empty.is_well());
        let text = empty.to_string();
        assert!(text.starts_with("no leader, so nothing is written; start the operator"), "{text}");
        assert!(text.ends_with("\n\nNo resources found\n"), "{text}");
    }
}
