//! Every key of `values.schema.json` has an effect: another value than its default renders other objects.

use serde_json::{Value, json};
use twinspan_chart::helm::Helm;
use twinspan_chart::{chart, read};

/// Turns on everything that is off by default, so that the keys below it can have an effect.
const ON: [&str; 10] = [
    "namespaced.enabled",
    "networkPolicy.enabled",
    "metrics.serviceMonitor.enabled",
    "metrics.podMonitor.enabled",
    "metrics.prometheusRule.enabled",
    "metrics.dashboard.enabled",
    "discovery.enabled",
    "rollouts.enabled",
    "page.service.enabled",
    "rollouts.drain.enabled",
];
/// The values that namespaced mode cannot do without.
const NAMESPACED: &str = concat!(
    r#"servedRegistries=["main"],namespaced.namespaces=["shop"],namespaced.clusterID="team","#,
    r#"namespaced.podCIDRs=["10.244.0.0/16"],serviceCIDRs=["10.96.0.0/12"],namespaced.nodeCIDRs=["192.168.0.0/24"]"#
);
/// The key at the top that only Helm reads.
const WITHOUT: &str = "enabled";

/// A value that is not the default and that templates accept.
fn another(path: &str, schema: &Value) -> Value {
    let default = &schema["default"];
    match path {
        "namespaced.namespaces" => json!(["shop", "pay"]),
        _ if path.ends_with("CIDRs") => json!(["172.16.0.0/12"]),
        "image.digest" => json!(format!("sha256:{}", "0".repeat(64))),
        "traces.otlpEndpoint" => json!("http://collector:4317"),
        _ if path.ends_with("nterval") && path.starts_with("metrics.") => json!("45s"),
        _ if path.ends_with("scrapeTimeout") => json!("45s"),
        _ if path.ends_with("elabelings") => json!([{"action": "drop"}]),
        "extraEnv" => json!([{"name": "A", "value": "b"}]),
        "extraVolumes" => json!([{"name": "a", "emptyDir": {}}]),
        "extraVolumeMounts" => json!([{"name": "a", "mountPath": "/a"}]),
        "auditInterval" => json!("1h"),
        "serviceCIDRs" => json!(["10.96.0.0/16"]),
        "tolerations" => json!([{"key": "a", "operator": "Exists"}]),
        "serviceRegistries" => {
            json!({"main": {"etcd": {"endpoints": ["http://etcd:2379"]}, "format": "Kitex", "allowed": []}})
        }
        "hostAliases" => json!([{"ip": "192.0.2.1", "hostnames": ["etcd"]}]),
        "dnsConfig.options" => json!([{"name": "ndots", "value": "1"}]),
        "page.port" => json!(9000),
        "rollouts.drain.clusterIP" => json!("10.96.0.83"),
        "networkPolicy.dnsPorts" => json!([54]),
        "metrics.prometheusRule.runbookBaseURL" => json!("https://runbooks.example/twinspan"),
        _ if path.starts_with("resources.") => json!("7"),
        _ if ON.contains(&path) => json!(false),
        _ => match schema["type"].as_str() {
            Some("boolean") => json!(!default.as_bool().unwrap()),
            Some("integer") => json!(default.as_i64().unwrap() + 1),
            Some("array") => match schema["items"]["enum"].as_array() {
                Some(all) => json!([all[0]]),
                None => json!(["another"]),
            },
            Some("object") => json!({"another": "one"}),
            Some("string") => match schema["enum"].as_array() {
                Some(all) => all.iter().find(|one| *one != default).unwrap().clone(),
                None => json!("another"),
            },
            other => panic!("{path}: nothing is known of {other:?}"),
        },
    }
}

fn walk(schema: &Value, path: &str, rows: &mut Vec<(String, Value)>) {
    let properties = schema["properties"].as_object().filter(|all| !all.is_empty());
    let Some(properties) = properties else {
        rows.push((path.to_owned(), another(path, schema)));
        return;
    };
    for (key, inner) in properties.iter().filter(|(key, _)| !path.is_empty() || *key != WITHOUT) {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        walk(inner, &below, rows);
    }
}

#[test]
fn every_key_has_an_effect() {
    let schema: Value = serde_json::from_str(&read(&chart().join("values.schema.json")).unwrap()).unwrap();
    let mut rows = Vec::new();
    walk(&schema, "", &mut rows);
    assert!(rows.len() > 30, "{rows:?}");
    let helm = Helm::find().unwrap();
    let on: Vec<String> = ON.iter().map(|path| format!("--set-json={path}=true")).collect();
    let on: Vec<&str> = on.iter().map(String::as_str).collect();
    let on = [&on[..], &["--set-json", NAMESPACED]].concat();
    let before = helm.template(&on).unwrap();
    for (path, value) in rows {
        let mut other = format!("--set-json={path}={value}");
        if path == "page.enabled" {
            // No page is served at a Service.
            other.push_str(",page.service.enabled=false");
        }
        let after = helm.template(&[&on[..], &[other.as_str()]].concat()).unwrap();
        assert!(after != before, "{path} has no effect");
    }
}
