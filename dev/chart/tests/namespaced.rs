//! The chart in namespaced mode: Roles in the named namespaces, one small ClusterRole, and names that two releases do
//! not share.

use std::collections::BTreeSet;

use serde_yaml::Value;
use twinspan_chart::chart;
use twinspan_chart::helm::{Helm, name, objects};

const KEYS: [(&str, &str); 6] = [
    ("servedRegistries", r#"["main"]"#),
    ("namespaced.namespaces", r#"["shop","pay"]"#),
    ("namespaced.clusterID", r#""team-a""#),
    ("namespaced.podCIDRs", r#"["10.244.0.0/16","fd44::/64"]"#),
    ("serviceCIDRs", r#"["10.96.0.0/12","fd96::/108"]"#),
    ("namespaced.nodeCIDRs", r#"["192.168.0.0/24","fd77::/64"]"#),
];

fn flags(without: Option<&str>, more: &[&str]) -> Vec<String> {
    let keys = KEYS.iter().filter(|(key, _)| Some(*key) != without);
    let set = keys.map(|(key, value)| format!("--set-json={key}={value}"));
    let on = ["--set=namespaced.enabled=true".to_owned()];
    on.into_iter().chain(set).chain(more.iter().map(|flag| format!("--set={flag}"))).collect()
}

fn rendered(namespace: &str, more: &[&str]) -> Vec<Value> {
    let (dir, flags) = (chart().display().to_string(), flags(None, more));
    let words = ["template", "twinspan", dir.as_str(), "--namespace", namespace];
    let words: Vec<&str> = words.into_iter().chain(flags.iter().map(String::as_str)).collect();
    objects(&Helm::find().unwrap().succeed(&words).unwrap()).unwrap()
}

/// `verb resource` or `verb resource name` of every rule.
fn grants(role: &Value) -> BTreeSet<String> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_sequence().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let mut all = BTreeSet::new();
    for rule in role["rules"].as_sequence().unwrap() {
        let names = match texts(&rule["resourceNames"]) {
            names if names.is_empty() => vec![String::new()],
            names => names.into_iter().map(|name| format!(" {name}")).collect(),
        };
        for resource in texts(&rule["resources"]) {
            for verb in texts(&rule["verbs"]) {
                all.extend(names.iter().map(|name| format!("{verb} {resource}{name}")));
            }
        }
    }
    all
}

#[test]
fn the_cluster_role_is_small_and_the_rest_is_in_the_named_namespaces() {
    let all = rendered("team-a", &["rollouts.enabled=true", "discovery.enabled=true"]);
    let of_the_operator = |object: &&Value| object["metadata"]["labels"]["app.kubernetes.io/name"] == "twinspan";
    let cluster: Vec<&Value> = all
        .iter()
        .filter(|object| object["kind"] == "ClusterRole")
        .filter(of_the_operator)
        .filter(|role| {
            !["twinspan-view", "twinspan-edit", "twinspan-cluster-view"]
                .map(Value::from)
                .contains(&role["metadata"]["name"])
        })
        .collect();
    let [role] = cluster.as_slice() else { panic!("{cluster:?}") };
    assert_eq!(role["metadata"]["name"], "twinspan-team-a");
    let wanted = [
        "list namespaces pay",
        "list namespaces shop",
        "list serviceregistries",
        "patch serviceregistries/status main",
        "watch namespaces pay",
        "watch namespaces shop",
        "watch serviceregistries",
    ];
    assert_eq!(grants(role), wanted.map(str::to_owned).into());
    for namespace in ["shop", "pay"] {
        let here = |object: &&Value| object["kind"] == "Role" && object["metadata"]["namespace"] == namespace;
        let roles: Vec<&Value> = all.iter().filter(here).collect();
        let [role, doctor] = roles.as_slice() else { panic!("{roles:?}") };
        assert_eq!(grants(doctor), ["list registeredservices".to_owned()].into());
        let grants = grants(role);
        for wanted in
            ["list pods", "list services", "watch endpointslices", "create registeredservices", "patch pods/status"]
        {
            assert!(grants.contains(wanted), "{grants:?}");
        }
        assert!(!grants.iter().any(|grant| grant.contains("secrets")), "{grants:?}");
    }
}

#[test]
fn two_releases_share_no_object_without_a_namespace() {
    let names = |namespace: &str| -> BTreeSet<String> {
        let all = rendered(namespace, &["crds.install=false", "rollouts.enabled=true", "discovery.enabled=true"]);
        all.iter().filter(|object| object["metadata"]["namespace"].is_null()).map(name).collect()
    };
    let (one, two) = (names("team-a"), names("team-b"));
    assert!(one.len() > 5, "{one:?}");
    assert_eq!(one.intersection(&two).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn every_value_that_it_needs_is_asked_for() {
    for (key, _) in KEYS {
        let (dir, flags) = (chart().display().to_string(), flags(Some(key), &[]));
        let words: Vec<&str> =
            ["template", "twinspan", dir.as_str()].into_iter().chain(flags.iter().map(String::as_str)).collect();
        let error = Helm::find().unwrap().succeed(&words).unwrap_err();
        assert!(format!("{error:#}").contains(&format!("{key}: namespaced mode needs")), "{key}: {error:#}");
    }
}

#[test]
fn each_family_of_pods_has_nodes_and_services() {
    for (key, value, family) in
        [("serviceCIDRs", r#"["10.96.0.0/12"]"#, "IPv6"), ("namespaced.nodeCIDRs", r#"["fd77::/64"]"#, "IPv4")]
    {
        let (dir, mut flags) = (chart().display().to_string(), flags(Some(key), &[]));
        flags.push(format!("--set-json={key}={value}"));
        let words: Vec<&str> =
            ["template", "twinspan", dir.as_str()].into_iter().chain(flags.iter().map(String::as_str)).collect();
        let error = format!("{:#}", Helm::find().unwrap().succeed(&words).unwrap_err());
        assert!(error.contains(&format!("{key}: namespaced.podCIDRs has an {family} network")), "{key}: {error}");
    }
}

#[test]
fn the_operator_is_told() {
    let all = rendered("team-a", &[]);
    let deployment = all.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_sequence().unwrap();
    let value = |name: &str| env.iter().find(|one| one["name"] == name).map(|one| one["value"].as_str().unwrap());
    assert_eq!(value("TWINSPAN_WATCH_NAMESPACES"), Some("shop,pay"));
    assert_eq!(value("TWINSPAN_REGISTRIES"), Some("main"));
    assert_eq!(value("TWINSPAN_CLUSTER_ID"), Some("team-a"));
    assert_eq!(value("TWINSPAN_POD_CIDRS"), Some("10.244.0.0/16,fd44::/64"));
    assert_eq!(value("TWINSPAN_SERVICE_CIDRS"), Some("10.96.0.0/12,fd96::/108"));
    assert_eq!(value("TWINSPAN_NODE_CIDRS"), Some("192.168.0.0/24,fd77::/64"));
}
