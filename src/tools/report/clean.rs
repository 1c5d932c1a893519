//! The fields that are removed from objects of the API server.
//!
//! Owns the fields in which people put secrets: values of environment variables, annotations of others, arguments of
//! foreign containers, sources of volumes, and the values of tags. Refuses to read texts, which [`super::scrub`] does.

use serde_json::{Map, Value, json};

use super::REMOVED;

/// Annotations that are kept begin so. Another one may hold anything: kubectl's has the whole object once more.
const KEPT: [&str; 5] = [
    "twinspan.dev/",
    "endpoints.kubernetes.io/",
    "service.kubernetes.io/",
    "deployment.kubernetes.io/",
    "meta.helm.sh/",
];

/// The object without secrets.
pub fn clean(mut object: Value, with_values: bool) -> Value {
    metadata(&mut object);
    if let Some(template) = object.pointer_mut("/spec/template") {
        metadata(template);
        pod_spec(template);
    }
    pod_spec(&mut object);
    if !with_values {
        tags(&mut object);
    }
    object
}

fn metadata(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    metadata.remove("managedFields");
    let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
    for (key, value) in annotations.into_iter().flatten() {
        if !KEPT.iter().any(|kept| key.starts_with(kept)) {
            *value = json!(REMOVED);
        }
    }
}

fn pod_spec(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        containers.into_iter().flatten().filter_map(Value::as_object_mut).for_each(container);
    }
    let volumes = spec.get_mut("volumes").and_then(Value::as_array_mut);
    volumes.into_iter().flatten().filter_map(Value::as_object_mut).for_each(volume);
}

fn container(container: &mut Map<String, Value>) {
    for variable in container.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(value) = variable.get_mut("value") {
            *value = json!(REMOVED);
        }
    }
    // Headers may hold a token, and a command of a probe or hook anything.
    for hook in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(hook).and_then(Value::as_object_mut) {
            probe.remove("exec");
            if let Some(headers) = probe.get_mut("httpGet").and_then(|get| get.get_mut("httpHeaders")) {
                *headers = json!(REMOVED);
            }
        }
    }
    container.remove("lifecycle");
    // Flags of Twinspan hold no secret but in URLs.
    if container.get("name").and_then(Value::as_str) != Some("twinspan") {
        for field in ["args", "command"] {
            if let Some(value) = container.get_mut(field) {
                *value = json!(REMOVED);
            }
        }
    }
}

/// Of a source, only the name of what it refers to is kept.
fn volume(volume: &mut Map<String, Value>) {
    for (field, source) in volume.iter_mut().filter(|(field, _)| *field != "name") {
        let named =
            ["secretName", "claimName", "name"].into_iter().find_map(|key| Some((key, source.get(key)?.clone())));
        *source = match named {
            Some((key, name)) if ["secret", "configMap", "persistentVolumeClaim"].contains(&field.as_str()) => {
                json!({key: name})
            }
            _ => json!(REMOVED),
        };
    }
}

/// Values of tags, which are written into records and chosen by.
fn tags(object: &mut Value) {
    for path in ["/spec/export/tags", "/spec/import/tagSelector/matchLabels"] {
        let tags = object.pointer_mut(path).and_then(Value::as_object_mut);
        tags.into_iter().flatten().for_each(|(_, value)| *value = json!(REMOVED));
    }
    let path = "/spec/import/tagSelector/matchExpressions";
    let expressions = object.pointer_mut(path).and_then(Value::as_array_mut);
    for values in expressions.into_iter().flatten().filter_map(|expression| expression.get_mut("values")) {
        *values = json!(REMOVED);
    }
}
