//! Valid objects of the kinds that Twinspan reads and writes.
//!
//! Owns their variants. Refuses to know requests.

use serde_json::{Value, json};

use super::GROUP;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub namespaced: bool,
    pub has_status: bool,
}

const fn kind(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind { group, version, kind, plural, namespaced: true, has_status: false }
}

pub const KINDS: [Kind; 7] = [
    kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    kind("coordination.k8s.io", "v1", "Lease", "leases"),
    kind("events.k8s.io", "v1", "Event", "events"),
    Kind { has_status: true, ..kind("", "v1", "Service", "services") },
    Kind { has_status: true, ..kind("", "v1", "Pod", "pods") },
    Kind { has_status: true, ..kind(GROUP, "v1alpha1", "RegisteredService", "registeredservices") },
    Kind { has_status: true, namespaced: false, ..kind(GROUP, "v1alpha1", "ServiceRegistry", "serviceregistries") },
];

impl Kind {
    fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The path of its collection.
    pub fn path(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}", self.api_version()) };
        let place = if self.namespaced { format!("/namespaces/{namespace}") } else { String::new() };
        format!("{root}{place}/{}", self.plural)
    }

    /// An object by a number of its name and of its content.
    pub fn object(&self, name: usize, variant: usize) -> Value {
        let mut object = self.content(name, variant);
        object["apiVersion"] = json!(self.api_version());
        object["kind"] = json!(self.kind);
        let app = pick(&["a", "b", "c"], variant);
        object["metadata"] = json!({"name": format!("n{name}"), "labels": {"app": app}});
        if variant.is_multiple_of(4) {
            object["metadata"]["annotations"] = json!({"note": variant.to_string()});
        }
        object
    }

    fn content(&self, name: usize, variant: usize) -> Value {
        match self.kind {
            "EndpointSlice" => {
                let endpoint = |n: usize| match n % 3 {
                    0 => json!({"addresses": [format!("10.1.{variant}.{n}")]}),
                    1 => json!({"addresses": [format!("10.2.{variant}.{n}")],
                        "conditions": {"ready": true, "serving": true, "terminating": false}, "nodeName": "node"}),
                    _ => {
                        json!({"addresses": [format!("10.3.{variant}.{n}")], "conditions": {"ready": false}, "zone": "z",
                        "targetRef": {"kind": "Pod", "name": "p", "namespace": "x"}})
                    }
                };
                let endpoints: Vec<Value> = (0..variant % 5).map(endpoint).collect();
                match variant % 4 {
                    0 => json!({"addressType": "IPv4", "endpoints": endpoints}),
                    1 => json!({"addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 80}]}),
                    _ => json!({"addressType": "IPv4", "endpoints": endpoints,
                        "ports": [{"name": "rpc", "port": 8000 + variant, "protocol": "TCP"}]}),
                }
            }
            "Lease" => json!({"spec": {"holderIdentity": format!("h{variant}"), "leaseDurationSeconds": 15,
                "acquireTime": "2026-01-01T00:00:00.000000Z", "leaseTransitions": variant,
                "renewTime": format!("2026-01-01T00:00:{variant:02}.123456Z")}}),
            "Event" => json!({"action": "Sync", "reason": "Exported", "note": "a note", "type": "Normal",
                "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "twinspan",
                "reportingInstance": "a", "regarding": {"kind": "Service", "name": "s", "namespace": "faithful-a", "apiVersion": "v1"}}),
            "Service" => {
                let mut spec = json!({"ports": [{"name": "rpc", "port": 8000 + variant}]});
                if name % 2 == 1 {
                    spec["ipFamilyPolicy"] = json!("PreferDualStack");
                }
                if name < 2 {
                    spec["clusterIP"] = json!("None");
                }
                json!({"spec": spec})
            }
            "Pod" => {
                let mut spec = json!({"containers": [{"name": "c", "image": "i:1", "ports": [{"containerPort": 80}]}]});
                if name >= 2 {
                    spec["nodeName"] = json!("node");
                }
                json!({"spec": spec})
            }
            "RegisteredService" => {
                let mut spec = json!({"registryRef": {"name": "main"}, "unknown": variant});
                if !variant.is_multiple_of(3) {
                    spec["export"] = json!({"weight": 1 + variant});
                }
                if variant.is_multiple_of(2) {
                    spec["direction"] = json!("Export");
                }
                json!({"spec": spec, "status": {"observedGeneration": 7}})
            }
            _ => json!({"spec": {"etcd": {"endpoints": [format!("https://etcd-{variant}:2379")]}, "format": "Kitex",
                "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}]}}),
        }
    }

    /// A patch of what a user may change.
    pub fn patch(&self, variant: usize) -> Value {
        match (self.kind, variant % 3) {
            (_, 0) => json!({"metadata": {"labels": {"app": pick(&["a", "b"], variant), "more": null}}}),
            ("EndpointSlice", _) => json!({"endpoints": [{"addresses": [format!("10.9.0.{variant}")]}]}),
            ("Lease", _) => json!({"spec": {"holderIdentity": format!("p{variant}")}}),
            ("Event", _) => {
                json!({"series": {"count": 2 + variant, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}})
            }
            ("Service", _) => json!({"spec": {"ports": [{"name": "rpc", "port": 9000 + variant, "targetPort": 9000,
                "protocol": "TCP"}]}}),
            ("RegisteredService", 1) => json!({"spec": {"import": {"onExpiry": "Heal"}}}),
            ("RegisteredService", _) => {
                json!({"spec": {"registryName": format!("name-{variant}"), "export": null}})
            }
            ("ServiceRegistry", _) => json!({"spec": {"lease": {"ttlSeconds": 60 + variant}}}),
            _ => json!({"metadata": {"annotations": {"note": variant.to_string()}}}),
        }
    }

    /// A patch of the status.
    pub fn status(&self, variant: usize) -> Value {
        let status = match self.kind {
            "Service" => json!({"conditions": [{"type": "Ready", "status": "True", "reason": "R",
                "message": variant.to_string(), "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
            "Pod" => json!({"phase": "Running", "podIP": format!("10.7.0.{variant}"),
                "podIPs": [{"ip": format!("10.7.0.{variant}")}],
                "conditions": [{"type": "Ready", "status": pick(&["True", "False"], variant)}]}),
            _ => json!({"observedGeneration": variant, "unknown": 1, "conditions": [{"type": "Ready",
                "status": pick(&["True", "False"], variant), "reason": "R", "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
        };
        json!({"status": status})
    }
}

fn pick<'a>(words: &[&'a str], variant: usize) -> &'a str {
    words[variant % words.len()]
}
