//! The defaults of built-in kinds.
//!
//! Owns what an API server fills in before it stores an object (`pkg/apis/{core,discovery}/v1/defaults.go`,
//! `pkg/registry/core/service/storage/alloc.go`, v1.37.2), as far as a controller can see it. Refuses custom resources,
//! whose schema has the defaults, and validation.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::identity::Identities;
use crate::kinds::{Family, Kind};

/// Sets what is missing. `before` is the stored object, where there is one.
pub fn fill(kind: &Kind, object: &mut Value, before: Option<&Value>, identities: &mut Identities, taken: &Taken<'_>) {
    match kind.family {
        Family::Service => service(object, before, identities, taken),
        Family::EndpointSlice => endpoint_slice(object),
        Family::Pod => pod(object),
        Family::Namespace => namespace(object),
        Family::Secret => set(object, "type", json!("Opaque")),
        Family::Lease => set(object, "spec", json!({})),
        Family::Event => event(object),
        Family::Node | Family::ServiceCidr => {
            set(object, "spec", json!({}));
            set(object, "status", json!({}));
        }
        Family::Custom { .. } => {}
    }
}

/// The ClusterIPs in use, asked for only where one is needed.
pub type Taken<'a> = dyn Fn() -> BTreeSet<String> + 'a;

/// Sets a field that is missing.
fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.entry(field).or_insert(value);
    }
}

fn each<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Drops nulls, and metadata's empty maps and lists: fields that typed objects leave out.
pub fn tidy(object: &mut Value) {
    drop_nulls(object);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        metadata.remove("selfLink");
        let is_empty = |value: &Value| match value {
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        metadata.retain(|_, value| !is_empty(value));
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn service(object: &mut Value, before: Option<&Value>, identities: &mut Identities, taken: &Taken<'_>) {
    set(object, "spec", json!({}));
    set(object, "status", json!({}));
    set(&mut object["status"], "loadBalancer", json!({}));
    let selects = object["spec"]["selector"].as_object().is_some_and(|selector| !selector.is_empty());
    let spec = &mut object["spec"];
    set(spec, "type", json!("ClusterIP"));
    set(spec, "sessionAffinity", json!("None"));
    for port in each(spec, "ports") {
        set(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        set(port, "targetPort", number);
    }
    if spec["type"] == "ExternalName" {
        return;
    }
    set(spec, "internalTrafficPolicy", json!("Cluster"));
    // A replace that leaves allocated values out keeps them (`patchAllocatedValues`).
    let old = before.map(|before| &before["spec"]).filter(|old| old["type"] != "ExternalName");
    if let Some(old) = old {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if let Some(value) = old.get(field) {
                set(spec, field, value.clone());
            }
        }
        return;
    }
    let headless = spec["clusterIP"] == "None";
    let policy = if headless && !selects { "RequireDualStack" } else { "SingleStack" };
    set(spec, "ipFamilyPolicy", json!(policy));
    let mut families: Vec<Value> = spec["ipFamilies"].as_array().cloned().unwrap_or_default();
    if families.is_empty() {
        families.push(json!("IPv4"));
    }
    if families.len() == 1 && spec["ipFamilyPolicy"] != "SingleStack" {
        let other = if families[0] == "IPv4" { "IPv6" } else { "IPv4" };
        families.push(json!(other));
    }
    if headless {
        set(spec, "clusterIPs", json!(["None"]));
    } else {
        let mut in_use = taken();
        let mut addresses = Vec::new();
        let asked = spec["clusterIP"].as_str().map(str::to_owned);
        for (index, family) in families.iter().enumerate() {
            let address = match &asked {
                Some(address) if index == 0 => address.clone(),
                _ => identities.cluster_ip(family.as_str().unwrap_or_default(), &in_use),
            };
            in_use.insert(address.clone());
            addresses.push(address);
        }
        set(spec, "clusterIP", json!(addresses[0]));
        set(spec, "clusterIPs", json!(addresses));
    }
    spec["ipFamilies"] = json!(families);
}

fn endpoint_slice(object: &mut Value) {
    // Stored as protobuf, which does not tell an empty list from none.
    for list in ["endpoints", "ports"] {
        if object[list].as_array().is_none_or(Vec::is_empty) {
            object[list] = Value::Null;
        }
    }
    for endpoint in each(object, "endpoints") {
        set(endpoint, "conditions", json!({}));
    }
    for port in each(object, "ports") {
        set(port, "name", json!(""));
        set(port, "protocol", json!("TCP"));
    }
}

fn pod(object: &mut Value) {
    set(object, "spec", json!({}));
    set(object, "status", json!({}));
    for condition in each(&mut object["status"], "conditions") {
        set(condition, "lastProbeTime", Value::Null);
        set(condition, "lastTransitionTime", Value::Null);
    }
    let spec = &mut object["spec"];
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("enableServiceLinks", json!(true)),
        ("preemptionPolicy", json!("PreemptLowerPriority")),
        ("priority", json!(0)),
    ] {
        set(spec, field, value);
    }
    // The admission plug-in DefaultTolerationSeconds.
    let tolerated = ["not-ready", "unreachable"].map(|taint| {
        json!({"key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 300})
    });
    set(spec, "tolerations", json!(tolerated));
    for container in each(spec, "containers") {
        let image = container["image"].as_str().unwrap_or_default();
        let named = image.rsplit('/').next().unwrap_or_default();
        let policy = if named.contains(':') && !named.ends_with(":latest") { "IfNotPresent" } else { "Always" };
        for (field, value) in [
            ("imagePullPolicy", json!(policy)),
            ("resources", json!({})),
            ("terminationMessagePath", json!("/dev/termination-log")),
            ("terminationMessagePolicy", json!("File")),
        ] {
            set(container, field, value);
        }
        for port in each(container, "ports") {
            set(port, "protocol", json!("TCP"));
        }
    }
}

fn namespace(object: &mut Value) {
    set(object, "spec", json!({}));
    set(object, "status", json!({}));
    let name = object["metadata"]["name"].clone();
    if let Some(metadata) = object.get_mut("metadata") {
        set(metadata, "labels", Value::Object(Map::new()));
        metadata["labels"]["kubernetes.io/metadata.name"] = name;
    }
}

/// Fields of the Event of `v1` that `events.k8s.io` always shows.
fn event(object: &mut Value) {
    set(object, "deprecatedFirstTimestamp", Value::Null);
    set(object, "deprecatedLastTimestamp", Value::Null);
    set(object, "deprecatedSource", json!({}));
    set(object, "regarding", json!({}));
}
