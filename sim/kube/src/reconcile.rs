//! The EndpointSlices that a Service needs, and the fewest writes to have them.
//!
//! Owns the endpoint of a pod and the packing into slices (`k8s.io/endpointslice/{reconciler,utils}.go`, v0.37.2), in a
//! fixed order. Refuses to write.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The label value of slices of the controller.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Endpoints in one slice.
const FULL: usize = 100;

#[derive(Debug, PartialEq)]
pub enum SliceOp {
    Create(Value),
    Replace(Value),
    Delete(Value),
}

/// The endpoints of one address type and one list of ports, by address.
type Group = BTreeMap<String, Value>;

/// The writes that make the slices of a Service those that it needs.
pub fn plan(service: &Value, pods: &[&Value], existing: &[&Value]) -> Vec<SliceOp> {
    let spec = &service["spec"];
    let Some(selector) = spec["selector"].as_object().filter(|selector| !selector.is_empty()) else {
        return Vec::new();
    };
    if spec["type"] == "ExternalName" || service["metadata"].get("deletionTimestamp").is_some() {
        return Vec::new();
    }
    let selects =
        |pod: &&&Value| selector.iter().all(|(label, value)| pod["metadata"]["labels"].get(label) == Some(value));
    let chosen: Vec<&Value> = pods.iter().filter(selects).copied().collect();
    let families: Vec<&str> = spec["ipFamilies"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut ops = Vec::new();
    for family in &families {
        let mut groups: BTreeMap<String, (Value, Group)> = BTreeMap::new();
        for pod in &chosen {
            for address in addresses(pod, family) {
                let ports = ports(service, pod);
                let endpoint = endpoint(service, pod, &address);
                let group = groups.entry(ports.to_string()).or_insert_with(|| (ports, Group::new()));
                group.1.insert(address, endpoint);
            }
        }
        let of_family: Vec<&Value> = existing.iter().filter(|slice| slice["addressType"] == *family).copied().collect();
        ops.extend(pack(service, family, groups, &of_family));
    }
    let others = existing.iter().filter(|slice| !families.iter().any(|family| slice["addressType"] == *family));
    ops.extend(others.map(|slice| SliceOp::Delete(Value::clone(slice))));
    ops
}

fn pack(service: &Value, family: &str, groups: BTreeMap<String, (Value, Group)>, existing: &[&Value]) -> Vec<SliceOp> {
    let (mut replaced, mut deleted, mut created) = (Vec::new(), Vec::new(), Vec::new());
    let in_no_group = existing.iter().filter(|slice| !groups.contains_key(&ports_of(slice).to_string()));
    deleted.extend(in_no_group.map(|slice| Value::clone(slice)));
    for (ports, mut wanted) in groups.into_values() {
        let mut slices: Vec<(Value, bool)> = Vec::new();
        for slice in existing.iter().filter(|slice| *ports_of(slice) == ports) {
            let mut kept = Value::clone(slice);
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            let still: Vec<Value> = endpoints
                .filter_map(|endpoint| wanted.remove(endpoint["addresses"][0].as_str().unwrap_or_default()))
                .collect();
            kept["endpoints"] = json!(still);
            let changed = kept["endpoints"] != slice["endpoints"] || set_metadata(service, &mut kept);
            slices.push((kept, changed));
        }
        // First into slices that are written anyway, then into one with room, then into new ones.
        fill(slices.iter_mut().filter(|(_, changed)| *changed), &mut wanted);
        if wanted.len() < FULL {
            let has_room = |(slice, _): &&mut (Value, bool)| length(slice) + wanted.len() <= FULL;
            let fullest = slices.iter_mut().filter(has_room).max_by_key(|(slice, _)| length(slice));
            fill(fullest.into_iter(), &mut wanted);
        }
        while !wanted.is_empty() {
            let mut slice = new_slice(service, family, &ports);
            take(&mut slice, &mut wanted);
            created.push(slice);
        }
        for (slice, changed) in slices {
            if length(&slice) == 0 {
                deleted.push(slice);
            } else if changed {
                replaced.push(slice);
            }
        }
    }
    // A Service without endpoints has one empty slice.
    if deleted.len() == existing.len() && created.is_empty() {
        let placeholder =
            deleted.iter().position(|slice| length(slice) == 0 && slice["ports"].as_array().is_none_or(Vec::is_empty));
        match placeholder {
            Some(index) => drop(deleted.remove(index)),
            None => created.push(new_slice(service, family, &json!([]))),
        }
    }
    let created = created.into_iter().map(SliceOp::Create);
    created.chain(replaced.into_iter().map(SliceOp::Replace)).chain(deleted.into_iter().map(SliceOp::Delete)).collect()
}

/// No ports are stored as null.
fn ports_of(slice: &Value) -> Cow<'_, Value> {
    if slice["ports"].is_null() { Cow::Owned(json!([])) } else { Cow::Borrowed(&slice["ports"]) }
}

fn length(slice: &Value) -> usize {
    slice["endpoints"].as_array().map_or(0, Vec::len)
}

fn fill<'a>(slices: impl Iterator<Item = &'a mut (Value, bool)>, wanted: &mut Group) {
    for (slice, changed) in slices {
        if !wanted.is_empty() && length(slice) < FULL {
            take(slice, wanted);
            *changed = true;
        }
    }
}

/// Moves endpoints into a slice until it is full.
fn take(slice: &mut Value, wanted: &mut Group) {
    let mut endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
    while endpoints.len() < FULL {
        let Some((_, endpoint)) = wanted.pop_first() else { break };
        endpoints.push(endpoint);
    }
    slice["endpoints"] = json!(endpoints);
}

fn new_slice(service: &Value, family: &str, ports: &Value) -> Value {
    let metadata = &service["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{name}-"),
            "namespace": metadata["namespace"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": name, "uid": metadata["uid"],
                "controller": true, "blockOwnerDeletion": true}],
        },
        "addressType": family,
        "endpoints": [],
        "ports": ports,
    });
    set_metadata(service, &mut slice);
    slice
}

/// Sets the labels, which follow those of the Service. Returns whether they changed.
fn set_metadata(service: &Value, slice: &mut Value) -> bool {
    let mut labels = service["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    labels.insert("kubernetes.io/service-name".to_owned(), service["metadata"]["name"].clone());
    labels.insert("endpointslice.kubernetes.io/managed-by".to_owned(), json!(MANAGER));
    if service["spec"]["clusterIP"] == "None" {
        labels.insert("service.kubernetes.io/headless".to_owned(), json!(""));
    }
    let labels = json!(labels);
    let changed = slice["metadata"]["labels"] != labels;
    slice["metadata"]["labels"] = labels;
    changed
}

/// The addresses of a pod that are endpoints: a pod that ended has none.
fn addresses(pod: &Value, family: &str) -> Vec<String> {
    let status = &pod["status"];
    if status["phase"] == "Succeeded" || status["phase"] == "Failed" {
        return Vec::new();
    }
    let all = status["podIPs"].as_array().into_iter().flatten().filter_map(|ip| ip["ip"].as_str());
    let single = status["podIP"].as_str().filter(|_| status.get("podIPs").is_none());
    let is_of_family = |ip: &&str| ip.contains(':') == (family == "IPv6");
    all.chain(single).filter(is_of_family).take(1).map(str::to_owned).collect()
}

fn endpoint(service: &Value, pod: &Value, address: &str) -> Value {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let is_ready = conditions.filter(|condition| condition["type"] == "Ready").any(|ready| ready["status"] == "True");
    let terminating = pod["metadata"].get("deletionTimestamp").is_some();
    let unready_too = service["spec"]["publishNotReadyAddresses"] == true;
    let metadata = &pod["metadata"];
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {"ready": unready_too || (is_ready && !terminating), "serving": is_ready, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"]},
    });
    if let Some(node) = pod["spec"]["nodeName"].as_str() {
        endpoint["nodeName"] = json!(node);
    }
    if pod["spec"]["subdomain"] == service["metadata"]["name"]
        && let Some(hostname) = pod["spec"]["hostname"].as_str()
    {
        endpoint["hostname"] = json!(hostname);
    }
    endpoint
}

/// The ports of a Service at a pod; one that names a port that the pod does not have is left out.
fn ports(service: &Value, pod: &Value) -> Value {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let named: Vec<&Value> =
        containers.flat_map(|container| container["ports"].as_array().into_iter().flatten()).collect();
    let port = |port: &Value| -> Option<Value> {
        let target = &port["targetPort"];
        let number = match target.as_str() {
            None => target.clone(),
            Some(name) => named
                .iter()
                .find(|of| of["name"] == name && of["protocol"] == port["protocol"])
                .map(|of| of["containerPort"].clone())?,
        };
        let name = port["name"].as_str().unwrap_or_default();
        Some(json!({"name": name, "port": number, "protocol": port["protocol"]}))
    };
    let ports: Vec<Value> = service["spec"]["ports"].as_array().into_iter().flatten().filter_map(port).collect();
    json!(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Value {
        json!({"metadata": {"name": "echo", "namespace": "shop", "uid": "u"}, "spec": {"selector": {"app": "echo"},
            "clusterIP": "None", "ipFamilies": ["IPv4"], "ports": [{"name": "rpc", "port": 80, "targetPort": "rpc", "protocol": "TCP"}]}})
    }

    fn pod(number: usize, ready: bool) -> Value {
        json!({"metadata": {"name": format!("p{number}"), "namespace": "shop", "uid": "p", "labels": {"app": "echo"}},
            "spec": {"containers": [{"ports": [{"name": "rpc", "containerPort": 8080, "protocol": "TCP"}]}]},
            "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", number / 200, number % 200),
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
    }

    fn planned(pods: &[Value], existing: &[Value]) -> Vec<SliceOp> {
        plan(&service(), &pods.iter().collect::<Vec<_>>(), &existing.iter().collect::<Vec<_>>())
    }

    fn created(ops: Vec<SliceOp>) -> Vec<Value> {
        let slice = |op| match op {
            SliceOp::Create(slice) => slice,
            other => panic!("{other:?}"),
        };
        ops.into_iter().map(slice).collect()
    }

    #[test]
    fn pods_become_endpoints_of_slices_of_a_hundred() {
        let pods: Vec<Value> = (0..150).map(|number| pod(number, number != 0)).collect();
        let slices = created(planned(&pods, &[]));
        assert_eq!(slices.iter().map(length).collect::<Vec<_>>(), [100, 50]);
        assert_eq!(slices[0]["ports"], json!([{"name": "rpc", "port": 8080, "protocol": "TCP"}]));
        assert_eq!(slices[0]["endpoints"][0]["conditions"]["ready"], false);
        assert_eq!(slices[0]["metadata"]["labels"]["service.kubernetes.io/headless"], "");
        assert_eq!(planned(&pods, &slices), [], "nothing is left to do");
    }

    #[test]
    fn a_pod_more_or_less_is_one_write() {
        let pods: Vec<Value> = (0..150).map(|number| pod(number, true)).collect();
        let slices = created(planned(&pods, &[]));
        let more: Vec<Value> = pods.iter().cloned().chain([pod(160, true)]).collect();
        let ops = planned(&more, &slices);
        assert!(matches!(ops.as_slice(), [SliceOp::Replace(slice)] if length(slice) == 51), "{ops:?}");
        let ops = planned(&pods[1..], &slices);
        assert!(matches!(ops.as_slice(), [SliceOp::Replace(slice)] if length(slice) == 99), "{ops:?}");
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let slices = created(planned(&[], &[]));
        assert_eq!((slices.len(), length(&slices[0])), (1, 0));
        assert_eq!(planned(&[], &slices), []);
        let full = created(planned(&[pod(1, true)], &[]));
        let ops = planned(&[], &full);
        assert!(matches!(ops.as_slice(), [SliceOp::Create(_), SliceOp::Delete(_)]), "{ops:?}");
    }
}
