//! The policy of pods: with the operator's token nobody moves a pod into a Service, or out of one.
//!
//! Owns one change of each field that the API server's own schema names in the status and the metadata of a pod. Each
//! is tried by an administrator first, so that a refusal is the policy's, and not that of a bad value.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use kube::Client;
use serde_json::{Map, Value, json};
use twinspan_testbed::{Bed, Pods, apply_file, eventually, next_v4, rollouts_manifest};

use super::scene::GATE;
use crate::harness::{SOON, Suite, stories};

stories![a_stolen_token_changes_one_condition_and_nothing_else];

const NAMESPACE: &str = "stolen";
const POLICY: &str = "twinspan-pods";

/// Fields that nobody changes by the status of a pod, whoever asks: the API server sets them, keeps them as they are,
/// or refuses every value that is not what the spec says.
const NOBODYS: &[&str] = &[
    "metadata.creationTimestamp",
    "metadata.deletionGracePeriodSeconds",
    "metadata.deletionTimestamp",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.name",
    "metadata.namespace",
    "metadata.ownerReferences",
    "metadata.resourceVersion",
    "metadata.selfLink",
    "metadata.uid",
    "status.extendedResourceClaimStatus",
    "status.nodeAllocatableResourceClaimStatuses",
    // Only of a pod without a Node.
    "status.nominatedNodeName",
    "status.qosClass",
    "status.resourceClaimStatuses",
    // Behind a feature gate.
    "status.volumeHealth",
];

async fn a_stolen_token_changes_one_condition_and_nothing_else(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    apply_file(&bed.client(), &rollouts_manifest()).await?;
    bed.create_namespace(NAMESPACE, &BTreeMap::new()).await?;
    let thief = bed.operator().client().await?;
    let pods = Pods::in_namespace(&bed.client(), NAMESPACE).await?;
    let labels = BTreeMap::from([("app".to_owned(), "echo".to_owned())]);
    for (name, gates) in [("gated", [GATE]), ("admins", [GATE]), ("plain", ["example.com/other"])] {
        pods.run_gated(name, &labels, next_v4().into(), &gates, json!({"a": "b"})).await?;
        admin(&bed, name, &json!({"metadata": {"finalizers": ["example.com/stays"]}})).await?;
        let ip = next_v4();
        admin(
            &bed,
            name,
            &json!({"status": {"hostIP": ip, "hostIPs": [{"ip": ip}], "startTime": "2026-01-01T00:00:00Z",
            "message": "m", "reason": "r", "containerStatuses": [container("main")]}}),
        )
        .await?;
    }
    in_force(&thief).await?;
    fields(&bed, &thief).await?;
    conditions(&bed, &thief).await?;
    // A pod that did not ask for it is none of ours.
    let opened = condition(GATE, "True");
    refused(&thief, "plain", &with(&bed, "plain", &opened).await?, "that have the readiness gate").await?;
    // Nothing but the status is permitted at all.
    let spec = patch(&thief, "gated", "", &json!({"metadata": {"labels": {"app": "another"}}})).await?;
    ensure!(spec.is_err(), "{spec:?}");
    // The right write passes, and may be repeated.
    for _ in 0..2 {
        let patched = patch(&thief, "gated", "/status", &with(&bed, "gated", &opened).await?).await?;
        let patched = patched.map_err(|why| anyhow::anyhow!("the operator itself is refused: {why}"))?;
        ensure!(patched["status"]["conditions"].to_string().contains(GATE), "{patched}");
    }
    // The condition never goes back.
    for status in ["False", "Unknown"] {
        let closed = replaced(&bed, "gated", |all| {
            all.iter_mut().for_each(|c| {
                if c["type"] == GATE {
                    c["status"] = json!(status);
                }
            });
        })
        .await?;
        refused(&thief, "gated", &closed, "to True").await?;
    }
    let without = replaced(&bed, "gated", |all| all.retain(|c| c["type"] != GATE)).await?;
    refused(&thief, "gated", &without, "to True").await
}

/// Waits until the API server enforces the policy.
async fn in_force(thief: &Client) -> Result<()> {
    eventually("the policy is in force", SOON, || async {
        let answer = patch(thief, "gated", "/status", &json!({"status": {"message": "x"}})).await?;
        ensure!(answer.as_ref().is_err_and(|why| why.contains(POLICY)), "{answer:?}");
        Ok(())
    })
    .await
}

/// Every field of the schema, changed and removed.
async fn fields(bed: &Bed, thief: &Client) -> Result<()> {
    let request = Request::get("/openapi/v3/api/v1").body(Vec::new())?;
    let document: Value = bed.client().request(request).await?;
    let schemas = document["components"]["schemas"].as_object().context("no schemas")?;
    let mut nobodys = Vec::new();
    let mut tried = 0;
    for (part, schema) in
        [("status", "io.k8s.api.core.v1.PodStatus"), ("metadata", "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")]
    {
        let properties = schemas[schema]["properties"].as_object().context("no properties")?;
        ensure!(properties.len() > 10, "{properties:?}");
        for (field, schema) in properties {
            let path = format!("{part}.{field}");
            let mut changed = false;
            for value in [Some(value(&path, schema, schemas)?), None] {
                let change = change(part, field, value);
                if admin_changes(bed, &change).await? {
                    changed = true;
                    tried += 1;
                    refused(thief, "gated", &change, POLICY).await.with_context(|| path.clone())?;
                } else {
                    // Whatever the API server makes of it, nothing changes.
                    let before = read(bed, "gated").await?;
                    let answer = patch(thief, "gated", "/status", &change).await?;
                    ensure!(essence(&read(bed, "gated").await?) == essence(&before), "{path}: {answer:?}");
                }
            }
            if !changed {
                nobodys.push(path);
            }
        }
    }
    nobodys.sort();
    ensure!(nobodys == NOBODYS, "no good value for one of these, or one is in the list by mistake: {nobodys:?}");
    ensure!(tried > 20, "{tried} changes");
    Ok(())
}

async fn conditions(bed: &Bed, thief: &Client) -> Result<()> {
    let only = "no condition of a pod but";
    for kind in ["Ready", "ContainersReady", "example.com/other", "PodScheduled"] {
        let status = if kind == "ContainersReady" { "False" } else { "True" };
        let both = replaced(bed, "gated", |all| {
            all.retain(|c| c["type"] != kind);
            all.extend([condition(kind, status), condition(GATE, "True")]);
        });
        refused(thief, "gated", &both.await?, only).await.context(kind)?;
    }
    let fewer = replaced(bed, "gated", |all| *all = vec![condition(GATE, "True")]).await?;
    refused(thief, "gated", &fewer, only).await?;
    refused(thief, "gated", &json!({"status": {"conditions": null}}), POLICY).await?;
    let touched = replaced(bed, "gated", |all| {
        all[0]["message"] = json!("another");
        all.push(condition(GATE, "True"));
    });
    refused(thief, "gated", &touched.await?, only).await?;
    for status in ["False", "Unknown"] {
        refused(thief, "gated", &with(bed, "gated", &condition(GATE, status)).await?, "to True").await?;
    }
    // Beside the right write nothing else passes.
    let mut beside = with(bed, "gated", &condition(GATE, "True")).await?;
    beside["metadata"] = json!({"labels": {"app": "another"}});
    refused(thief, "gated", &beside, "metadata").await
}

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "Stolen", "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

fn container(name: &str) -> Value {
    json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "r"}}})
}

/// A merge patch with the conditions that a pod has, and one more.
async fn with(bed: &Bed, pod: &str, more: &Value) -> Result<Value> {
    let kind = more["type"].clone();
    replaced(bed, pod, |all| {
        all.retain(|condition| condition["type"] != kind);
        all.push(more.clone());
    })
    .await
}

/// A merge patch with other conditions.
async fn replaced(bed: &Bed, pod: &str, change: impl FnOnce(&mut Vec<Value>)) -> Result<Value> {
    let mut conditions = read(bed, pod).await?["status"]["conditions"].as_array().cloned().unwrap_or_default();
    change(&mut conditions);
    Ok(json!({"status": {"conditions": conditions}}))
}

fn change(part: &str, field: &str, value: Option<Value>) -> Value {
    let mut fields = Map::new();
    // The one address and the first of several are the same.
    if let (Some(single), Some(value)) = (field.strip_suffix('s').filter(|_| field.ends_with("IPs")), &value) {
        fields.insert(single.to_owned(), value[0]["ip"].clone());
    }
    if let Some(value) = value.as_ref().filter(|_| field == "hostIP") {
        fields.insert("hostIPs".to_owned(), json!([{"ip": value}]));
    }
    fields.insert(field.to_owned(), value.unwrap_or(Value::Null));
    json!({part: fields})
}

/// Whether an administrator can make the change; the pod of an administrator is put back.
async fn admin_changes(bed: &Bed, change: &Value) -> Result<bool> {
    let before = read(bed, "admins").await?;
    if patch(&bed.client(), "admins", "/status", change).await?.is_err() {
        return Ok(false);
    }
    let after = read(bed, "admins").await?;
    let changed = essence(&after) != essence(&before);
    if changed {
        let mut back = Map::new();
        for part in ["metadata", "status"] {
            let fields = change[part].as_object().into_iter().flatten();
            let fields: Map<_, _> = fields.map(|(field, _)| (field.clone(), before[part][field].clone())).collect();
            back.insert(part.to_owned(), Value::Object(fields));
        }
        admin(bed, "admins", &Value::Object(back)).await?;
    }
    Ok(changed)
}

/// A pod without what each write changes.
fn essence(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for field in ["managedFields", "resourceVersion"] {
        pod["metadata"].as_object_mut().map(|metadata| metadata.remove(field));
    }
    pod
}

/// A value that the schema admits, and another one than the pod has.
fn value(path: &str, schema: &Value, schemas: &Map<String, Value>) -> Result<Value> {
    Ok(match path {
        "status.phase" => json!("Succeeded"),
        "status.qosClass" => json!("Guaranteed"),
        "status.hostIP" | "status.podIP" => json!(next_v4()),
        "status.hostIPs" | "status.podIPs" => json!([{"ip": next_v4()}]),
        "status.containerStatuses" => {
            let mut status = container("main");
            status["ready"] = json!(true);
            json!([status])
        }
        "status.initContainerStatuses" => json!([container("init")]),
        "status.ephemeralContainerStatuses" => json!([container("debug")]),
        "status.conditions" => json!([condition("Ready", "True")]),
        "metadata.finalizers" => json!(["example.com/another"]),
        "metadata.labels" | "metadata.annotations" => json!({"app": "another"}),
        "metadata.ownerReferences" => {
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "1"}])
        }
        _ => any(schema, schemas, 0)?,
    })
}

fn any(schema: &Value, schemas: &Map<String, Value>, depth: usize) -> Result<Value> {
    ensure!(depth < 10, "the schema has no end: {schema}");
    let named = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    if let Some(name) = named.and_then(|name| name.rsplit('/').next()) {
        return any(schemas.get(name).with_context(|| name.to_owned())?, schemas, depth + 1);
    }
    if let Some(first) = schema["enum"].as_array().and_then(|all| all.first()) {
        return Ok(first.clone());
    }
    Ok(match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("string"), Some("date-time")) => json!("2025-01-01T00:00:00Z"),
        (Some("string"), _) => json!("another"),
        (Some("integer" | "number"), _) => json!(7),
        (Some("boolean"), _) => json!(true),
        (Some("array"), _) => json!([any(&schema["items"], schemas, depth + 1)?]),
        (Some("object"), _) if schema["additionalProperties"].is_object() => {
            json!({"cpu": any(&schema["additionalProperties"], schemas, depth + 1)?})
        }
        (Some("object"), _) => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let mut fields = Map::new();
            for field in required {
                fields.insert(field.to_owned(), any(&schema["properties"][field], schemas, depth + 1)?);
            }
            Value::Object(fields)
        }
        // A quantity is a string or a number.
        _ if schema["oneOf"].is_array() => json!("1"),
        other => bail!("nothing is known of {other:?}: {schema}"),
    })
}

async fn read(bed: &Bed, pod: &str) -> Result<Value> {
    let request = Request::get(format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}")).body(Vec::new())?;
    Ok(bed.client().request(request).await?)
}

async fn admin(bed: &Bed, pod: &str, change: &Value) -> Result<()> {
    patch(&bed.client(), pod, "/status", change).await?.map_err(|why| anyhow::anyhow!("{change}: {why}"))?;
    Ok(())
}

/// The pod, or the words of the refusal.
async fn patch(client: &Client, pod: &str, subresource: &str, change: &Value) -> Result<Result<Value, String>> {
    let request = Request::patch(format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}{subresource}"))
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .body(serde_json::to_vec(change)?)?;
    match client.request(request).await {
        Ok(pod) => Ok(Ok(pod)),
        Err(kube::Error::Api(status)) => Ok(Err(status.message)),
        Err(error) => Err(error.into()),
    }
}

/// The policy refuses a change, in these words, and the pod is as it was.
async fn refused(thief: &Client, pod: &str, change: &Value, words: &str) -> Result<()> {
    match patch(thief, pod, "/status", change).await? {
        Ok(_) => bail!("{change} is accepted"),
        Err(why) => {
            ensure!(why.contains(POLICY) && why.contains(words), "{change}: {why}");
            Ok(())
        }
    }
}
