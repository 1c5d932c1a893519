//! Pods from outside and from below: the API server's view, their processes on the machine, their logs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use twinspan_node::{Node, scene};
use twinspan_testbed::OPERATOR_NAMESPACE;

/// The items of `kubectl get -o json`.
pub async fn list(node: &Node, namespace: &str, labels: &str) -> Result<Vec<Value>> {
    let printed = node.kubectl(&["get", "pods", "-n", namespace, "-l", labels, "-o", "json"]).await?;
    let list: Value = serde_json::from_str(&printed)?;
    Ok(list["items"].as_array().context("no list")?.clone())
}

/// The names of Twinspan's pods.
pub async fn operators(node: &Node) -> Result<Vec<Value>> {
    list(node, OPERATOR_NAMESPACE, "app.kubernetes.io/name=twinspan").await
}

/// The addresses of the pods of `user`.
pub async fn users(node: &Node) -> Result<BTreeSet<SocketAddr>> {
    addresses(node, "app=user", 8888).await
}

/// The addresses of pods at a port.
pub async fn addresses(node: &Node, labels: &str, port: u16) -> Result<BTreeSet<SocketAddr>> {
    let pods = list(node, scene::SHOP, labels).await?;
    let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    let address = |pod: &Value| {
        let ip: IpAddr = pod["status"]["podIP"].as_str().context("a pod without an address")?.parse()?;
        Ok(SocketAddr::new(ip, port))
    };
    pods.iter().filter(stays).map(address).collect()
}

pub fn name(pod: &Value) -> Result<&str> {
    pod["metadata"]["name"].as_str().context("a pod without a name")
}

/// A process in a container.
#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    pub arguments: Vec<String>,
    pub environment: BTreeMap<String, String>,
    proc: PathBuf,
}

impl Process {
    /// The process of a program in a pod; its host name is the pod's name.
    pub fn find(program: &str, pod: &str) -> Result<Self> {
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let read = |file: &str| -> Vec<String> {
                let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
                bytes.split(|b| *b == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
            };
            let arguments = read("cmdline");
            let pairs = read("environ").into_iter().filter_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                Some((key.to_owned(), value.to_owned()))
            });
            let environment: BTreeMap<String, String> = pairs.collect();
            if arguments[0] == program && environment.get("HOSTNAME").is_some_and(|name| name == pod) {
                return Ok(Self { pid, arguments, environment, proc: entry.path() });
            }
        }
        anyhow::bail!("no process runs {program} in the pod {pod}")
    }

    /// A line of `/proc/PID/status`.
    pub fn status(&self, key: &str) -> Result<String> {
        let status = std::fs::read_to_string(self.proc.join("status"))?;
        let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        Ok(value.with_context(|| format!("no {key} in\n{status}"))?.trim().to_owned())
    }

    /// The options of the mount of its root.
    pub fn root_mount(&self) -> Result<String> {
        let mounts = std::fs::read_to_string(self.proc.join("mountinfo"))?;
        let mut fields = mounts.lines().map(|line| line.split(' '));
        let root = fields.find_map(|mut line| (line.nth(4) == Some("/")).then(|| line.next()).flatten());
        Ok(root.context("no root")?.to_owned())
    }
}

/// The output of a client in a pod: the answering instance, or an error, for each call.
pub async fn calls(node: &Node, pod: &str) -> Result<Vec<Result<SocketAddr, String>>> {
    let log = node.kubectl(&["logs", "-n", scene::SHOP, pod]).await?;
    let mut calls = Vec::new();
    for line in log.lines() {
        let said: Value = serde_json::from_str(line).with_context(|| format!("{pod} printed {line}"))?;
        if said["event"] == "call" {
            calls.push(match said["from"].as_str() {
                Some(from) => Ok(from.parse()?),
                None => Err(said["error"].to_string()),
            });
        }
    }
    ensure!(!calls.is_empty(), "{pod} has not called yet");
    Ok(calls)
}

/// Kept beside the logs of the parts, to find the cause of a failure.
pub async fn write_down(node: &Node) -> Result<()> {
    let mut text = String::new();
    let operator = format!("--namespace={OPERATOR_NAMESPACE}");
    for args in [
        &["get", "pods,services,endpointslices,svcreg,rsvc", "-A", "-o", "wide"][..],
        &["get", "events", "-A"],
        &["describe", "pods", "-A"],
        &["logs", &operator, "--all-containers", "--prefix", "-l", "app.kubernetes.io/name=twinspan", "--tail=200"],
    ] {
        let printed = node.kubectl(args).await.unwrap_or_else(|error| format!("{error:#}"));
        text += &format!("# kubectl {}\n{printed}\n\n", args.join(" "));
    }
    let path = node.dir().join("cluster.txt");
    std::fs::write(&path, text)?;
    Ok(())
}
