//! Values that open something: verbs on RegisteredServices for discovery, the page to other pods, and the answers to
//! pods that end.

use std::collections::BTreeSet;

use serde_yaml::Value;
use twinspan_chart::helm::{Helm, name};

fn rendered(values: &str) -> Vec<Value> {
    Helm::find().unwrap().objects(&["--set", values]).unwrap()
}

fn object<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    objects.iter().find(|object| name(object) == wanted).unwrap_or_else(|| panic!("no {wanted}"))
}

fn pod(objects: &[Value]) -> &Value {
    &object(objects, "Deployment/twinspan")["spec"]["template"]
}

fn all(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The verbs of the operator on RegisteredServices themselves.
fn verbs_on_registered_services(values: &str) -> BTreeSet<String> {
    let objects = rendered(values);
    let all = objects.iter().filter(|object| {
        let kind = object["kind"].as_str();
        matches!(kind, Some("ClusterRole" | "Role")) && object["metadata"]["name"] == "twinspan"
    });
    let rules = all.flat_map(|role| role["rules"].as_sequence().unwrap().clone());
    let has = |rule: &Value| {
        let resources = rule["resources"].as_sequence().unwrap();
        resources.iter().any(|resource| resource == "registeredservices" || resource == "*")
    };
    let verbs = rules.filter(has).flat_map(|rule| rule["verbs"].as_sequence().unwrap().clone());
    verbs.map(|verb| verb.as_str().unwrap().to_owned()).collect()
}

#[test]
fn only_with_discovery_may_the_operator_make_registered_services() {
    assert_eq!(verbs_on_registered_services("discovery.enabled=false"), all(&["list", "watch"]));
    let with = verbs_on_registered_services("discovery.enabled=true");
    assert_eq!(with, all(&["list", "watch", "create", "update", "delete"]));
}

/// The value of an environment variable of the operator.
fn variable(objects: &[Value], name: &str) -> Option<String> {
    let env = pod(objects)["spec"]["containers"][0]["env"].as_sequence().unwrap();
    let found = env.iter().find(|variable| variable["name"] == name)?;
    Some(found["value"].as_str().unwrap().to_owned())
}

#[test]
fn ranges_of_services_reach_the_operator_and_the_doctor() {
    assert_eq!(variable(&rendered("dryRun=false"), "TWINSPAN_SERVICE_CIDRS"), None);
    let objects = rendered("serviceCIDRs={10.96.0.0/16,fd96::/108}");
    let (operator, doctor) = (pod(&objects), object(&objects, "Pod/twinspan-doctor"));
    for container in [&operator["spec"]["containers"][0], &doctor["spec"]["containers"][0]] {
        let variables = container["env"].as_sequence().unwrap();
        let ranges = variables.iter().find(|variable| variable["name"] == "TWINSPAN_SERVICE_CIDRS").unwrap();
        assert_eq!(ranges["value"], "10.96.0.0/16,fd96::/108");
    }
}

#[test]
fn only_with_rollouts_is_the_operator_told_to_open_gates() {
    assert_eq!(variable(&rendered("rollouts.enabled=false"), "TWINSPAN_ROLLOUTS"), None);
    let with = rendered("rollouts.enabled=true");
    assert_eq!(variable(&with, "TWINSPAN_ROLLOUTS").as_deref(), Some("true"));
    let rules = object(&with, "ClusterRole/twinspan-rollouts")["rules"].as_sequence().unwrap();
    let rule = serde_yaml::to_string(rules).unwrap();
    assert_eq!(rule, "- apiGroups:\n  - ''\n  resources:\n  - pods/status\n  verbs:\n  - patch\n");
}

/// The ports of every Service and of the container, by name.
fn ports(objects: &[Value]) -> BTreeSet<String> {
    let services = objects.iter().filter(|object| object["kind"] == "Service");
    let of_services = services.flat_map(|service| {
        let ports = service["spec"]["ports"].as_sequence().unwrap();
        ports.iter().map(|port| format!("{} {}", name(service), port["port"].as_i64().unwrap())).collect::<Vec<_>>()
    });
    let of_container = pod(objects)["spec"]["containers"][0]["ports"].as_sequence().unwrap().iter();
    let of_container = of_container.map(|port| format!("container {}", port["containerPort"].as_i64().unwrap()));
    of_services.chain(of_container).collect()
}

#[test]
fn the_page_is_in_the_pod_alone_unless_it_has_a_service_of_its_own() {
    let alone = all(&["Service/twinspan 8080", "container 8080"]);
    for (values, address) in [
        ("page.port=8082", None),
        ("page.port=9000", Some("127.0.0.1:9000")),
        ("page.enabled=false", Some("off")),
        ("page.allowedHosts={a.example,b.example}", None),
    ] {
        let objects = rendered(values);
        assert_eq!((variable(&objects, "TWINSPAN_PAGE_ADDR").as_deref(), ports(&objects)), (address, alone.clone()));
    }
    let hosts = variable(&rendered("page.allowedHosts={a.example,b.example}"), "TWINSPAN_PAGE_HOSTS");
    assert_eq!(hosts.as_deref(), Some("a.example,b.example"));

    let objects = rendered("page.service.enabled=true,page.port=9000");
    assert_eq!(variable(&objects, "TWINSPAN_PAGE_ADDR").as_deref(), Some("0.0.0.0:9000"));
    let with = ["Service/twinspan 8080", "Service/twinspan-page 9000", "container 8080", "container 9000"];
    assert_eq!(ports(&objects), all(&with));
    let service = &object(&objects, "Service/twinspan-page")["spec"];
    assert_eq!((&service["type"], &service["ports"][0]["targetPort"]), (&"ClusterIP".into(), &"page".into()));
    let objects = rendered("page.service.enabled=true,listen=[::]");
    assert_eq!(variable(&objects, "TWINSPAN_PAGE_ADDR").as_deref(), Some("[::]:8082"));
}

/// Other pods reach the page only where it has a Service.
#[test]
fn the_network_policy_lets_in_the_page_only_with_its_service() {
    let ingress = |values: &str| {
        let values = format!("networkPolicy.enabled=true,networkPolicy.pageNamespaces={{proxies}},{values}");
        let objects = rendered(&values);
        object(&objects, "NetworkPolicy/twinspan")["spec"]["ingress"].as_sequence().unwrap().clone()
    };
    assert_eq!(ingress("page.port=9000").len(), 1);
    let with = ingress("page.port=9000,page.service.enabled=true");
    assert_eq!((with.len(), &with[1]["ports"][0]["port"]), (2, &Value::from(9000)));
    let from = &with[1]["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"];
    assert_eq!(from, "proxies");
}

#[test]
fn pods_that_end_are_answered_only_where_it_is_asked_for() {
    let objects = rendered("rollouts.drain.port=9000");
    assert_eq!(
        (variable(&objects, "TWINSPAN_DRAIN_ADDR"), ports(&objects)),
        (None, all(&["Service/twinspan 8080", "container 8080"]))
    );

    let objects = rendered("rollouts.drain.enabled=true");
    assert_eq!(variable(&objects, "TWINSPAN_DRAIN_ADDR").as_deref(), Some("0.0.0.0:8083"));
    let with = ["Service/twinspan 8080", "Service/twinspan-drain 8083", "container 8080", "container 8083"];
    assert_eq!(ports(&objects), all(&with));
    let service = &object(&objects, "Service/twinspan-drain")["spec"];
    assert_eq!((&service["type"], &service["ports"][0]["targetPort"]), (&"ClusterIP".into(), &"drain".into()));
    assert!(service["clusterIP"].is_null());
    // Every replica answers, those that stand by too.
    let replicas = &object(&objects, "Deployment/twinspan")["spec"]["selector"]["matchLabels"];
    assert_eq!(&service["selector"], replicas);

    let objects = rendered(
        "rollouts.drain.enabled=true,rollouts.drain.clusterIP=10.96.0.83,rollouts.drain.port=9000,listen=[::]",
    );
    assert_eq!(variable(&objects, "TWINSPAN_DRAIN_ADDR").as_deref(), Some("[::]:9000"));
    assert_eq!(object(&objects, "Service/twinspan-drain")["spec"]["clusterIP"], "10.96.0.83");
}

/// Kubelets call from their nodes, which no selector names.
#[test]
fn the_network_policy_lets_in_kubelets_only_with_the_drain() {
    let ingress = |values: &str| {
        let objects = rendered(&format!("networkPolicy.enabled=true,{values}"));
        object(&objects, "NetworkPolicy/twinspan")["spec"]["ingress"].as_sequence().unwrap().clone()
    };
    assert_eq!(ingress("rollouts.drain.port=9000").len(), 1);
    let with = ingress("rollouts.drain.port=9000,rollouts.drain.enabled=true");
    assert_eq!((with.len(), &with[1]["ports"][0]["port"]), (2, &Value::from(9000)));
    assert!(with[1]["from"].is_null());
}

#[test]
fn the_drain_has_a_port_of_its_own() {
    for (port, says) in [(8080, "health and metrics"), (8082, "the page")] {
        let values = format!("rollouts.drain.enabled=true,rollouts.drain.port={port}");
        let chart = twinspan_chart::chart().display().to_string();
        let error = Helm::find().unwrap().refusal(&["template", "twinspan", &chart, "--set", &values]).unwrap();
        assert!(error.contains("rollouts.drain.port") && error.contains(says), "{error}");
    }
}
