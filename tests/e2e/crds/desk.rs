//! Requests with objects as JSON to the real API server, as kubectl sends them.
//!
//! Owns the places that an answer names. Refuses to use the Rust types, because they could not even hold some of the
//! wrong values.

use anyhow::{Context, Result};
use kube::Client;
use serde_json::{Value, json};

/// One rejection, field by field.
#[derive(Debug)]
pub struct Rejection {
    /// The message that kubectl prints.
    pub message: String,
    /// Field and message of each cause.
    pub causes: Vec<(String, String)>,
}

/// The result of a request.
pub type Answer = Result<Value, Rejection>;

pub struct Desk {
    client: Client,
    kind: &'static str,
}

impl Desk {
    pub fn new(client: Client, kind: &'static str) -> Self {
        Self { client, kind }
    }

    pub fn object(&self, name: &str, spec: &Value) -> Value {
        json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": self.kind, "metadata": {"name": name}, "spec": spec})
    }

    fn path(&self) -> &'static str {
        match self.kind {
            "ServiceRegistry" => "/apis/twinspan.dev/v1alpha1/serviceregistries",
            _ => "/apis/twinspan.dev/v1alpha1/namespaces/default/registeredservices",
        }
    }

    /// The answer to creating the object. Unknown fields are refused, as kubectl asks by default.
    pub async fn would_create(&self, object: &Value) -> Result<Answer> {
        self.send("POST", &format!("{}?dryRun=All&fieldValidation=Strict", self.path()), object).await
    }

    pub async fn create(&self, object: &Value) -> Result<Answer> {
        self.send("POST", &format!("{}?fieldValidation=Strict", self.path()), object).await
    }

    /// Replaces the status of an existing object.
    pub async fn put_status(&self, object: &Value) -> Result<Answer> {
        self.send("PUT", &format!("{}/{}/status", self.path(), name(object)), object).await
    }

    /// The answer to replacing the object or its status.
    pub async fn would_replace(&self, object: &Value, subresource: &str) -> Result<Answer> {
        let path = format!("{}/{}{subresource}?dryRun=All&fieldValidation=Strict", self.path(), name(object));
        self.send("PUT", &path, object).await
    }

    pub async fn delete(&self, name: &str) -> Result<()> {
        let answer = self.send("DELETE", &format!("{}/{name}", self.path()), &json!({})).await?;
        answer.map(|_| ()).map_err(|refusal| anyhow::anyhow!("cannot delete {name}: {refusal:?}"))
    }

    async fn send(&self, method: &str, path: &str, object: &Value) -> Result<Answer> {
        let request = http::Request::builder().method(method).uri(path).header("Content-Type", "application/json");
        match self.client.request::<Value>(request.body(serde_json::to_vec(object)?)?).await {
            Ok(answer) => Ok(Ok(answer)),
            Err(kube::Error::Api(status)) => {
                let causes = status.details.iter().flat_map(|details| &details.causes);
                Ok(Err(Rejection {
                    message: status.message.clone(),
                    causes: causes.map(|cause| (cause.field.clone(), cause.message.clone())).collect(),
                }))
            }
            Err(other) => Err(other).with_context(|| format!("{method} {path}")),
        }
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
