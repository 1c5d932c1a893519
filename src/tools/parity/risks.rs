//! Risks of a Service that has pods and imports beside each other, for clients that read it in their own way.
//!
//! Owns the words for the risks, which `docs/clients.md` explains. Refuses to decide which there are, as the core does.

use std::collections::BTreeSet;

use twinspan_core::plan::service::{Risk, risks as risks_of};

use super::gather::Gathered;
use super::table::Cell;

/// Ports that are named.
const NAMED: usize = 5;

/// A remark for each risk.
pub fn risks(gathered: &Gathered) -> Vec<String> {
    let mut remarks = Vec::new();
    let ports = |wanted: Cell| -> BTreeSet<u16> {
        let all = gathered.seen_by.cluster.iter().filter(|(_, cell)| **cell == wanted);
        all.map(|(instance, _)| instance.port()).collect()
    };
    let (pods, imports) = (ports(Cell::Pod), ports(Cell::Imported));
    let found = risks_of(gathered.place, &pods, &imports);
    if found.contains(&Risk::SecondSlice) {
        remarks.push(
        "SecondSlice: pods and imports are in different EndpointSlices of one Service, and a client that keeps one slice \
         misses instances; with spec.import.into: Together one \
         Service has both in one slice, and with Apart imports have a Service of their own"
            .to_owned(),
        );
    }
    let other: Vec<String> = imports.difference(&pods).take(NAMED).map(ToString::to_string).collect();
    if found.contains(&Risk::PortDiffers) {
        let pods: Vec<String> = pods.iter().take(NAMED).map(ToString::to_string).collect();
        remarks.push(format!(
            "PortDiffers: imports listen on port {} and pods on {}, so a client that calls every address at one port does not \
             reach them; SRV records have the ports",
            other.join(", "),
            pods.join(", "),
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use twinspan_core::model::{InstanceAddr, RegistryName, ServiceKey};
    use twinspan_core::plan::service::ImportPlace;

    use super::*;
    use crate::tools::parity::SeenBy;

    fn gathered(cluster: &[(&str, Cell)]) -> Gathered {
        let cluster = cluster.iter().map(|(addr, cell)| (InstanceAddr::parse(addr).unwrap(), *cell));
        Gathered {
            seen_by: SeenBy { cluster: cluster.collect::<BTreeMap<_, _>>(), ..SeenBy::default() },
            registry_name: RegistryName::new("echo").unwrap(),
            service: ServiceKey::new("shop", "echo"),
            place: ImportPlace::Beside,
            framework: "Kitex",
        }
    }

    fn named(of: &Gathered) -> Vec<String> {
        risks(of).iter().map(|text| text.split(':').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn pods_and_imports_beside_each_other_are_a_risk_and_ports_that_differ_another() {
        let pod = ("10.0.0.1:80", Cell::Pod);
        assert!(risks(&gathered(&[pod])).is_empty());
        assert!(risks(&gathered(&[("10.0.0.2:90", Cell::Imported)])).is_empty());
        assert_eq!(named(&gathered(&[pod, ("10.0.0.2:80", Cell::Imported)])), ["SecondSlice"]);
        let other_port = [pod, ("10.0.0.2:90", Cell::Imported)];
        let both = gathered(&other_port);
        assert_eq!(named(&both), ["SecondSlice", "PortDiffers"]);
        assert!(risks(&both)[1].contains("on port 90 and pods on 80"), "{:?}", risks(&both));
        assert_eq!(named(&Gathered { place: ImportPlace::Together, ..gathered(&other_port) }), ["PortDiffers"]);
        assert!(risks(&Gathered { place: ImportPlace::Apart, ..both }).is_empty());
    }
}
