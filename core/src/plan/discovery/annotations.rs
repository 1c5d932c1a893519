//! The annotations by which a Service or a namespace says what discovery shall do with it.
//!
//! Owns the meaning of each value. A bad one is refused, and costs the Service that has it alone. Refuses to know which
//! namespaces are asked.

use crate::model::{
    EXPORT_ANNOTATION, PORT_ANNOTATION, REGISTRY_NAME_ANNOTATION, RegistryName, ServiceView, WEIGHT_ANNOTATION,
};

/// A value that cannot be used, in words.
pub(super) type Bad = String;

/// The heaviest weight (`spec.export.weight`), and the one that is the default there.
const HEAVIEST: u32 = 10_000;
const DEFAULT: u32 = 10;

/// Whether an annotation takes a Service in; `None` where it says nothing.
pub(super) fn takes_in(value: Option<&str>) -> Result<Option<bool>, Bad> {
    match value {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => Err(format!(
            "annotation {EXPORT_ANNOTATION} is {other:?}, and counts as \"false\"; write \"true\" or \"false\""
        )),
    }
}

/// The settings from the annotations of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    pub name: Option<RegistryName>,
    pub port: Option<String>,
    pub weight: Option<u32>,
}

pub(super) fn chosen(service: &ServiceView) -> Result<Chosen, Bad> {
    let value = |annotation: &str| service.annotations.get(annotation);
    let name = value(REGISTRY_NAME_ANNOTATION).map(RegistryName::new).transpose();
    let name = name.map_err(|error| format!("annotation {REGISTRY_NAME_ANNOTATION}: {error}"))?;
    let weight = value(WEIGHT_ANNOTATION).map(|text| weight(text)).transpose()?;
    let port = value(PORT_ANNOTATION).map(|text| port(service, text)).transpose()?.flatten();
    Ok(Chosen { name, port, weight: weight.filter(|weight| *weight != DEFAULT) })
}

fn weight(text: &str) -> Result<u32, Bad> {
    let number = text.parse().ok().filter(|number| (1..=HEAVIEST).contains(number));
    number.ok_or_else(|| format!("annotation {WEIGHT_ANNOTATION} is {text:?}; write a number from 1 to {HEAVIEST}"))
}

/// The name of the port; `None` for the only one of a Service that does not name it.
fn port(service: &ServiceView, text: &str) -> Result<Option<String>, Bad> {
    let mut tcp = service.ports.iter().filter(|port| port.tcp);
    let found = tcp.find(|port| port.name == text || text.parse() == Ok(port.number));
    let port = found.ok_or_else(|| {
        let name = |name: &str| if name.is_empty() { "(unnamed)".to_owned() } else { name.to_owned() };
        let ports: Vec<String> =
            service.ports.iter().map(|port| format!("{} {}", name(&port.name), port.number)).collect();
        format!("annotation {PORT_ANNOTATION}: the Service has no TCP port {text:?}; it has {}", ports.join(", "))
    })?;
    Ok(Some(port.name.clone()).filter(|name| !name.is_empty()))
}
