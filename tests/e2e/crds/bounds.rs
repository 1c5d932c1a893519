//! Every bound of the schemas on the real API server: in an object with every field set, one value at a time is made
//! wrong, and the answer names its place.
//!
//! Bounds and places come from the CRDs. A field that the complete object does not set fails, as does a keyword without
//! a known wrong value, so that none is forgotten.

use anyhow::{Context, Result, bail, ensure};
use kube::Client;
use serde_json::{Value, json};

use super::desk::Desk;
use super::schema;

/// One wrong value.
struct Wrong {
    /// The keyword of the schema that the value violates.
    keyword: String,
    /// The place that the answer names.
    field: String,
    /// A piece of the answer.
    says: String,
    value: Value,
}

pub async fn every_bound(client: &Client) -> Result<()> {
    for (kind, whole, at_least) in
        [("ServiceRegistry", whole_registry(), 120), ("RegisteredService", whole_service(), 120)]
    {
        let desk = Desk::new(client.clone(), kind);
        let created = desk.create(&whole).await?.map_err(|refusal| anyhow::anyhow!("{kind}: {refusal:?}"))?;
        let mut there = whole.clone();
        there["metadata"] = created["metadata"].clone();
        let accepted = desk.would_replace(&there, "/status").await?;
        ensure!(accepted.is_ok(), "{kind}: the whole object is refused: {accepted:?}");
        let mut tried = 0;
        walk(&desk, &there, &schema::of(kind)?, &Place::default(), &mut tried).await?;
        ensure!(tried >= at_least, "{kind}: only {tried} bounds");
        desk.delete("whole").await?;
    }
    Ok(())
}

/// The place of a value: as the API server names it, and as a JSON pointer.
#[derive(Clone, Debug, Default)]
struct Place {
    field: String,
    pointer: String,
}

impl Place {
    fn key(&self, key: &str) -> Self {
        let dot = if self.field.is_empty() { "" } else { "." };
        Self { field: format!("{}{dot}{key}", self.field), pointer: format!("{}/{key}", self.pointer) }
    }

    fn first(&self) -> Self {
        Self { field: format!("{}[0]", self.field), pointer: format!("{}/0", self.pointer) }
    }
}

async fn walk(desk: &Desk, whole: &Value, schema: &Value, place: &Place, tried: &mut usize) -> Result<()> {
    let value = whole.pointer(&place.pointer);
    let value = value.with_context(|| format!("the whole object has no {}: set it", place.field))?;
    for wrong in wrongs(schema, value, place)? {
        refused(desk, whole, place, wrong).await?;
        *tried += 1;
    }
    if schema["type"] == "object" && !place.field.is_empty() && schema.get("properties").is_some() {
        unknown_field(desk, whole, place).await?;
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        Box::pin(walk(desk, whole, inner, &place.key(name), tried)).await?;
    }
    if let Some(inner) = schema.get("items") {
        Box::pin(walk(desk, whole, inner, &place.first(), tried)).await?;
    }
    if let Some(inner) = schema.get("additionalProperties") {
        let key = value.as_object().and_then(|pairs| pairs.keys().next());
        let key = key.with_context(|| format!("the whole object has no pair in {}: set one", place.field))?;
        Box::pin(walk(desk, whole, inner, &place.key(key), tried)).await?;
    }
    Ok(())
}

/// A wrong value for each keyword of the schema by which it refuses values.
fn wrongs(schema: &Value, value: &Value, place: &Place) -> Result<Vec<Wrong>> {
    let mut found = Vec::new();
    for keyword in schema::keywords(schema) {
        let bound = &schema[keyword];
        let n = bound.as_i64().unwrap_or_default();
        let size = |n: i64| usize::try_from(n).unwrap_or_default();
        let items = |n: i64| Value::Array(vec![value[0].clone(); size(n)]);
        let mut add = |field: &str, says: String, value: Value| {
            found.push(Wrong { keyword: keyword.to_owned(), field: field.to_owned(), says, value });
        };
        let here = place.field.as_str();
        match keyword {
            // The API server could not even read the object.
            "type" if here.is_empty() => {}
            "type" => {
                let other = if bound == "string" { json!(7) } else { json!("text") };
                // The message names a string with a format by that format.
                let named = if bound == "string" { schema.get("format").unwrap_or(bound) } else { bound };
                add(here, format!("must be of type {}", named.as_str().unwrap_or_default()), other);
            }
            "enum" => add(here, "supported values: ".to_owned(), json!("Surprise")),
            // None of our patterns accepts a space.
            "pattern" => add(here, "should match".to_owned(), json!(" ")),
            "format" => add(here, "must be of type date-time".to_owned(), json!("yesterday")),
            "minLength" => add(here, format!("at least {n} chars"), json!("x".repeat(size(n - 1)))),
            "maxLength" => add(here, format!("may not be more than {n} "), json!("x".repeat(size(n + 1)))),
            "minimum" => add(here, format!("greater than or equal to {n}"), json!(n - 1)),
            "maximum" => add(here, format!("less than or equal to {n}"), json!(n + 1)),
            "minItems" => add(here, format!("at least {n} items"), items(n - 1)),
            "maxItems" => add(here, format!("at most {n} items"), items(n + 1)),
            "maxProperties" => {
                let pairs = (0..=n).map(|n| (format!("k{n}"), json!("v"))).collect();
                add(here, format!("at most {n} items"), Value::Object(pairs));
            }
            "required" => {
                for name in bound.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    let mut lacking = value.clone();
                    lacking.as_object_mut().context("an object")?.remove(name);
                    add(&place.key(name).field, "Required value".to_owned(), lacking);
                }
            }
            "x-kubernetes-list-type" if bound == "atomic" => {}
            "x-kubernetes-list-type" => add(&format!("{here}[1]"), "Duplicate value".to_owned(), items(2)),
            other => bail!("{here}: no wrong value is known for {other}: add one"),
        }
    }
    Ok(found)
}

async fn refused(desk: &Desk, whole: &Value, place: &Place, wrong: Wrong) -> Result<()> {
    let mut object = whole.clone();
    *object.pointer_mut(&place.pointer).context("the place")? = wrong.value;
    let about = format!("{} of {:?}", wrong.keyword, place.field);
    match send(desk, object, place).await? {
        Ok(_) => bail!("{about}: a wrong value is accepted"),
        Err(refusal) => {
            let named = refusal.causes.iter().any(|(at, says)| *at == wrong.field && says.contains(&wrong.says));
            ensure!(named, "{about}: want {:?} at {:?}, got {refusal:?}", wrong.says, wrong.field);
            ensure!(refusal.message.contains(&wrong.field), "{about}: kubectl would not print it: {refusal:?}");
            Ok(())
        }
    }
}

/// Unknown fields are refused, as kubectl asks by default.
async fn unknown_field(desk: &Desk, whole: &Value, place: &Place) -> Result<()> {
    let mut object = whole.clone();
    object.pointer_mut(&place.pointer).context("the place")?["surprise"] = json!(1);
    let field = place.key("surprise").field;
    match send(desk, object, place).await? {
        Ok(_) => bail!("{field} is accepted"),
        Err(refusal) => {
            let expected = format!("unknown field \"{field}\"");
            ensure!(refusal.message.contains(&expected), "want {expected}, got {refusal:?}");
            Ok(())
        }
    }
}

/// The status is checked when it is written.
async fn send(desk: &Desk, mut object: Value, place: &Place) -> Result<super::desk::Answer> {
    if place.field.starts_with("status") {
        return desk.would_replace(&object, "/status").await;
    }
    object["metadata"] = json!({"name": "case"});
    desk.would_create(&object).await
}

fn conditions() -> Value {
    json!([{"type": "Ready", "status": "True", "reason": "Synced", "message": "m", "observedGeneration": 1,
        "lastTransitionTime": "2024-01-01T00:00:00Z"}])
}

fn selector() -> Value {
    json!({"matchLabels": {"team": "a"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]})
}

fn whole_registry() -> Value {
    json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": "whole"},
        "spec": {
            "etcd": {
                "endpoints": ["https://etcd:2379"],
                "tls": {"caSecretRef": {"name": "ca", "key": "ca.crt"}, "clientCertSecretRef": {"name": "c"}, "serverName": "etcd"},
                "auth": {"secretRef": {"name": "user"}},
            },
            "format": "Kitex", "prefix": "p", "leadingSlash": false, "clusterID": "c1", "lease": {"ttlSeconds": 300},
            "fence": {"mode": "Epoch", "keyPrefix": "twinspan/"},
            "allowed": [{"namespaceSelector": selector(), "registryNames": ["*"]}],
            "importPolicy": {"allowCIDRs": ["10.0.0.0/8"], "denyCIDRs": ["10.1.0.0/16"], "podCIDRs": ["10.2.0.0/16"]},
            "discovery": {
                "policy": "Sync",
                "export": {"namespaceSelector": selector(), "serviceSelector": selector(), "nameTemplate": "{name}-x"},
                "import": {"namespace": "vms", "include": ["*"], "exclude": ["x"], "nameTemplate": "{name}-x", "maxServices": 500},
            },
        },
        "status": {
            "observedGeneration": 1, "conditions": conditions(), "holder": "twinspan-system", "clusterID": "c1", "prefix": "p",
            "etcd": {
                "clusterID": "ab", "version": "3.6.0", "revisionAtLastSession": 1, "incarnation": "i", "epoch": 1,
                "highestEpoch": 2,
            },
            "hold": hold(), "returnedAs": "RolledBack", "epochInUse": "1/b", "leaseTTLs": [300], "clusters": ["c2"],
            "lastVerified": "2026-01-01T00:00:00Z",
            "records": {"own": 1, "foreign": 1, "undecodable": 1, "scope": "FollowedNames"},
            "discovery": {"exports": 1, "imports": 1, "pending": 1, "refused": 1,
                "refusals": [{"object": "Service shop/echo", "reason": "NameTaken", "message": "m"}]},
        },
    })
}

fn hold() -> Value {
    json!({"since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:05:00Z", "hash": "abc"})
}

fn whole_service() -> Value {
    json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "metadata": {"name": "whole"},
        "spec": {
            "registryRef": {"name": "main"}, "registryName": "echo",
            "service": {"name": "echo", "create": "ClusterIP", "ports": [{"name": "rpc", "number": 80, "scheme": "grpc"}]},
            "direction": "Both", "policy": "Sync", "suspend": false,
            "export": {"weight": 10, "tags": {"lane": "blue"}, "tagsFromPodLabels": [{"label": "a", "tag": "t"}],
                "share": 10, "zoneTag": "zone", "ipFamilyPolicy": "Primary", "address": "Node", "nodeAddressType": "ExternalIP", "nodes": 3},
            "import": {"tagSelector": selector(), "otherClusters": "All", "zoneTag": "zone", "onExpiry": "Probe",
                "clusters": {"names": ["c2"], "preference": "LocalFirst", "minLocal": 1}, "keepLostSeconds": 60, "into": "Apart", "serviceName": "imports"},
            "deletionGuard": {"minInstances": 10, "maxDeletePercent": 50, "holdSeconds": 300},
        },
        "status": {
            "observedGeneration": 1, "conditions": conditions(), "hold": hold(),
            "instances": {"cluster": 1, "registry": 1, "exported": 1, "imported": 1, "pending": 1, "lost": 1, "healed": 1, "skipped": 1, "held": 1},
            "differences": [{"instance": "10.0.0.1:80", "side": "Registry", "reason": "Conflict", "message": "no", "since": "2026-01-01T00:00:00Z"}],
        },
    })
}
