//! The tables of registered instances: one line for each name, or one for each instance.
//!
//! Owns their columns and notes. Refuses to ask anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use twinspan_core::codec::Format;
use twinspan_core::model::ServiceKey;

use super::gather::Gathered;
use super::instance::Instance;
use crate::tools::print::{Columns, clean};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    pub registries: Vec<RegistryAnswer>,
    pub names: Vec<Name>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegistryAnswer {
    pub name: String,
    pub format: String,
    /// The start of its keys; empty where there is none.
    pub prefix: String,
    /// The reason why it could not be asked.
    pub problem: Option<String>,
    /// The reason why only some of its names were read.
    pub partial: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Name {
    pub registry: String,
    pub name: String,
    pub own: usize,
    pub foreign: usize,
    pub healed: usize,
    pub undecodable: usize,
    /// Namespace and name of each.
    pub registered_services: Vec<String>,
    pub instances: Vec<Instance>,
}

impl Answer {
    pub fn new(gathered: &Gathered) -> Self {
        let mut names = Vec::new();
        for source in &gathered.sources {
            let read = source.contents.as_ref().map(super::Contents::by_name).unwrap_or_default();
            let used = gathered.users.keys().filter(|(registry, _)| registry == source.name()).map(|(_, name)| name);
            let all: BTreeSet<&str> = read.keys().copied().chain(used.map(String::as_str)).collect();
            names.extend(all.into_iter().map(|name| Name::new(source.name(), name, &read, &gathered.users)));
        }
        let registries = gathered.sources.iter().map(|source| RegistryAnswer {
            name: source.name().to_owned(),
            format: Format::from(source.object.spec.format).as_str().to_owned(),
            prefix: source.object.spec.layout().prefix().to_owned(),
            problem: source.contents.as_ref().err().cloned(),
            partial: source.contents.as_ref().ok().and_then(|contents| contents.partial.clone()),
        });
        Self { registries: registries.collect(), names, notes: gathered.notes.clone() }
    }

    /// Whether every registry could be asked, and the RegisteredServices listed.
    pub fn is_complete(&self) -> bool {
        self.notes.is_empty() && self.registries.iter().all(|registry| registry.problem.is_none())
    }

    fn remarks(&self) -> impl Iterator<Item = String> {
        let of_registries = self.registries.iter().flat_map(|registry| {
            let problem = registry.problem.iter().map(|why| format!("registry {}: not read: {why}", registry.name));
            let partial = registry.partial.iter().map(|why| format!("registry {}: {why}", registry.name));
            problem.chain(partial)
        });
        self.notes.iter().cloned().chain(of_registries)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, columns: &Columns) -> fmt::Result {
        if self.names.is_empty() {
            writeln!(f, "no instances found")?;
        } else {
            write!(f, "{columns}")?;
        }
        for (index, remark) in self.remarks().enumerate() {
            if index == 0 {
                writeln!(f)?;
            }
            writeln!(f, "{}", clean(&remark))?;
        }
        Ok(())
    }
}

impl Name {
    fn new(
        registry: &str,
        name: &str,
        read: &BTreeMap<&str, Vec<&Instance>>,
        users: &BTreeMap<(String, String), Vec<ServiceKey>>,
    ) -> Self {
        let instances: Vec<Instance> = read.get(name).into_iter().flatten().map(|it| (*it).clone()).collect();
        let count = |words: &[&str]| instances.iter().filter(|instance| words.contains(&instance.whose)).count();
        let users = users.get(&(registry.to_owned(), name.to_owned())).into_iter().flatten();
        Self {
            registry: registry.to_owned(),
            name: name.to_owned(),
            own: count(&["own"]),
            foreign: count(&["foreign", "otherCluster"]),
            healed: count(&["healed"]),
            undecodable: count(&["undecodable"]),
            registered_services: users.map(ToString::to_string).collect(),
            instances,
        }
    }

    fn services(&self) -> String {
        if self.registered_services.is_empty() { "-".to_owned() } else { self.registered_services.join(", ") }
    }

    fn counts(&self) -> String {
        let mut text = format!("{} own, {} foreign", self.own, self.foreign);
        if self.healed > 0 {
            text += &format!(", {} healed", self.healed);
        }
        if self.undecodable > 0 {
            text += &format!(", {} cannot be parsed", self.undecodable);
        }
        text
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut columns = Columns::new(["REGISTRY", "NAME", "INSTANCES", "REGISTEREDSERVICE"]);
        for name in &self.names {
            columns.add([name.registry.clone(), name.name.clone(), name.counts(), name.services()]);
        }
        self.write(f, &columns)
    }
}

/// The answer with a line for each instance.
#[derive(Clone, Copy, Debug)]
pub struct Detailed<'a>(pub &'a Answer);

impl fmt::Display for Detailed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["REGISTRY", "NAME", "ADDRESS", "WHOSE", "WEIGHT", "LEASE", "REGISTEREDSERVICE"];
        let mut columns = Columns::new(head);
        for name in &self.0.names {
            let (registry, called) = (name.registry.clone(), name.name.clone());
            if name.instances.is_empty() {
                let none = ["-", "-", "-", "-"].map(ToOwned::to_owned);
                let [address, whose, weight, lease] = none;
                columns.add([registry.clone(), called.clone(), address, whose, weight, lease, name.services()]);
            }
            for instance in &name.instances {
                let [address, whose, weight, lease] = instance.cells();
                columns.add([registry.clone(), called.clone(), address, whose, weight, lease, name.services()]);
            }
        }
        self.0.write(f, &columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(address: &str, whose: &'static str) -> Instance {
        Instance {
            key: format!("p/user/{address}"),
            address: address.to_owned(),
            whose,
            owner: (whose == "own").then(|| "shop/user".to_owned()),
            weight: Some(10),
            tags: BTreeMap::new(),
            lease: "5f".to_owned(),
            problem: None,
        }
    }

    #[test]
    fn names_with_and_without_a_registered_service_and_registries_that_do_not_answer() {
        let (own, foreign) = (instance("10.0.0.1:80", "own"), instance("10.0.0.2:80", "foreign"));
        let read = BTreeMap::from([("team.user", vec![&own, &foreign]), ("lonely", vec![&foreign])]);
        let place = |name: &str| ("main".to_owned(), name.to_owned());
        let users = BTreeMap::from([
            (place("team.user"), vec![ServiceKey::new("shop", "user")]),
            (place("empty"), vec![ServiceKey::new("shop", "empty")]),
        ]);
        let names = ["empty", "lonely", "team.user"].map(|name| Name::new("main", name, &read, &users));
        let registry = |name: &str, problem: Option<&str>, partial: Option<&str>| RegistryAnswer {
            name: name.to_owned(),
            format: "Kitex".to_owned(),
            prefix: "p".to_owned(),
            problem: problem.map(ToOwned::to_owned),
            partial: partial.map(ToOwned::to_owned),
        };
        let registries = vec![registry("away", Some("no route"), None), registry("main", None, Some("only some"))];
        let answer = Answer { registries, names: names.into(), notes: Vec::new() };
        assert!(!answer.is_complete());
        let wanted = "\
REGISTRY  NAME       INSTANCES         REGISTEREDSERVICE
main      empty      0 own, 0 foreign  shop/empty
main      lonely     0 own, 1 foreign  -
main      team.user  1 own, 1 foreign  shop/user

registry away: not read: no route
registry main: only some
";
        assert_eq!(answer.to_string(), wanted);
        let wanted = "\
REGISTRY  NAME       ADDRESS      WHOSE              WEIGHT  LEASE  REGISTEREDSERVICE
main      empty      -            -                  -       -      shop/empty
main      lonely     10.0.0.2:80  foreign            10      5f     -
main      team.user  10.0.0.1:80  own, of shop/user  10      5f     shop/user
main      team.user  10.0.0.2:80  foreign            10      5f     shop/user
";
        assert!(Detailed(&answer).to_string().starts_with(wanted), "{}", Detailed(&answer));
    }
}
