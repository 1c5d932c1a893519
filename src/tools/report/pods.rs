//! Logs and metrics of the operator's replicas.
//!
//! Owns the bounds of a log. Refuses to read any other pod.

use kube::Client;
use serde_json::Value;

use super::Bundle;
use super::objects::text;

/// Lines and bytes of one log.
const LINES: usize = 5000;
const BYTES: usize = 4 * 1024 * 1024;
/// Replicas that are looked at.
const REPLICAS: usize = 10;

/// Adds the logs of every container, those of its former run as well, and the metrics of every replica.
pub async fn add(client: &Client, namespace: &str, pods: &[Value], bundle: &mut Bundle) {
    for pod in pods.iter().take(REPLICAS) {
        let Some(name) = pod["metadata"]["name"].as_str() else { continue };
        let at = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
            let called = container["name"].as_str().unwrap_or_default();
            let uri = format!("{at}/log?container={called}&timestamps=true&tailLines={LINES}&limitBytes={BYTES}");
            file(bundle, format!("logs/{name}-{called}.log"), text(client, &uri).await);
            if has_restarted(pod, called) {
                let former = format!("{uri}&previous=true");
                file(bundle, format!("logs/{name}-{called}.previous.log"), text(client, &former).await);
            }
        }
        let uri = format!("{at}:{}/proxy/metrics", admin_port(pod));
        file(bundle, format!("metrics/{name}.txt"), text(client, &uri).await);
    }
}

fn file(bundle: &mut Bundle, name: String, answer: Result<String, String>) {
    match answer {
        Ok(text) => drop(bundle.files.insert(name, text)),
        Err(why) => bundle.problems.push(format!("{name}: {why}")),
    }
}

fn has_restarted(pod: &Value, container: &str) -> bool {
    let all = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    all.filter(|status| status["name"] == container).any(|status| status["restartCount"].as_i64() > Some(0))
}

/// The port called admin, of any container.
fn admin_port(pod: &Value) -> i64 {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ports.find(|port| port["name"] == "admin").and_then(|port| port["containerPort"].as_i64()).unwrap_or(8080)
}
