//! The answers of `explain`, `parity` and `plan` from the view of one namespace.
//!
//! Owns the remarks that say what was not asked. Refuses to claim what only a registry or a list of the whole cluster
//! shows.

use twinspan_core::model::InstanceAddr;

use super::Owned;
use super::instances::{Instance, instances};
use crate::api::conditions::{self, ACCEPTED, READY, Reason};
use crate::api::{Policy, RegisteredService};
use crate::tools::explain::{Answer, ByService};
use crate::tools::parity::{Cell, Dns, Row, Table};
use crate::tools::plan::{Plan, Planned};
use crate::tools::preview::Changes;
use crate::tools::question::Question;

impl Owned {
    /// The RegisteredService of a name.
    pub fn service(&self, name: &str) -> Option<&RegisteredService> {
        self.services.iter().find(|object| object.metadata.name.as_deref() == Some(name))
    }

    /// A note that says on what the answer rests.
    fn note(&self) -> String {
        format!(
            "you may not list what the operator lists, so this is what namespace {} shows: its EndpointSlices, its pods, and the \
             status that the operator writes; an administrator sees registries too",
            self.namespace
        )
    }

    /// Explains a record or an address.
    pub fn explain(&self, text: &str) -> Answer {
        let question = Question::new(text);
        let mut services = Vec::new();
        let mut remarks = Vec::new();
        for object in &self.services {
            let about: Vec<Instance> = instances(self, object)
                .into_iter()
                .filter(|instance| question.is_about_instance(&instance.explanation, &[]))
                .collect();
            remarks.extend(trouble(object).filter(|_| !about.is_empty()));
            let service = format!("{}/{}", self.namespace, name(object));
            let by_service =
                |instance: Instance| ByService { service: service.clone(), explanation: instance.explanation };
            services.extend(about.into_iter().map(by_service));
        }
        if services.is_empty() {
            remarks.extend(self.services.iter().filter_map(trouble));
            let pod = match question {
                Question::Ip(ip) => self.pods.get(&ip),
                Question::Instance(address) => self.pods.get(&address.ip()),
                Question::Key(_) => None,
            };
            if let Some(pod) = pod {
                remarks.push(format!(
                    "pod {} has this address, and no EndpointSlice of a RegisteredService's Service does: see the selector of \
                     the Service, and its ports",
                    pod.name
                ));
            }
        }
        remarks.push(self.note());
        Answer { asked: text.to_owned(), leader: None, records: Vec::new(), services, remarks, complete: false }
    }

    /// The instances of one RegisteredService, and the sides that are known to have them.
    pub fn parity(&self, object: &RegisteredService, dns: &Dns) -> Table {
        let mut table = Table { framework: "registry".to_owned(), ..Table::default() };
        for Instance { cluster, registry, explanation } in instances(self, object) {
            if matches!(explanation.state.as_str(), "NotReady" | "Terminating") {
                table.left_out.push(explanation);
                continue;
            }
            let row = Row {
                instance: explanation.instance.clone(),
                cluster: cluster.unwrap_or(Cell::Missing),
                registry: registry.unwrap_or(Cell::NotAsked),
                dns: InstanceAddr::parse(&explanation.instance).map_or(Cell::NotNamed, |addr| dns.cell(addr)),
                client: Cell::NotAsked,
                why: Some(explanation),
            };
            table.rows.push(row);
        }
        table.remarked(dns.remark()).remarked(trouble(object)).remarked([self.note()])
    }

    /// The writes that are still to come, as the operator counts them, of one RegisteredService or of all.
    pub fn plan(&self, only: Option<&str>) -> Plan {
        let chosen = self.services.iter().filter(|object| only.is_none_or(|only| only == name(object)));
        let services = chosen.map(|object| self.planned(object)).collect();
        Plan { services, discovery: Vec::new(), notes: vec![self.note()] }
    }

    fn planned(&self, object: &RegisteredService) -> Planned {
        let status = object.status.clone().unwrap_or_default();
        let ready = conditions::find(&status.conditions, READY);
        let is_current = status.observed_generation == object.metadata.generation;
        let waiting = instances(self, object).into_iter().map(|instance| instance.explanation);
        let pending = status.instances.pending.unwrap_or_default();
        let passive = object.spec.suspend || object.spec.policy == Policy::Observe;
        Planned {
            namespace: self.namespace.clone(),
            name: name(object).to_owned(),
            passive: passive && pending > 0,
            changes: Changes::default(),
            pending: Some(pending),
            waiting: waiting.filter(|explanation| explanation.waits()).collect(),
            problem: trouble(object),
            known: is_current && ready.is_some_and(|ready| ready.status != "Unknown"),
        }
    }
}

fn name(object: &RegisteredService) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

/// The reason why a RegisteredService is not as its owner wants it.
fn trouble(object: &RegisteredService) -> Option<String> {
    let key = object.key();
    let Some(status) = object.status.as_ref().filter(|status| !status.conditions.is_empty()) else {
        return Some(format!("RegisteredService {key}: no operator has seen it yet"));
    };
    let refused = conditions::find(&status.conditions, ACCEPTED).filter(|accepted| accepted.status == "False");
    if let Some(refused) = refused {
        return Some(format!("RegisteredService {key} is not accepted ({}): {}", refused.reason, refused.message));
    }
    let ready = conditions::find(&status.conditions, READY)?;
    let trouble = ready.status != "True" && ready.reason != Reason::NotWritten.as_str();
    trouble.then(|| format!("RegisteredService {key}: {}: {}", ready.reason, ready.message))
}
