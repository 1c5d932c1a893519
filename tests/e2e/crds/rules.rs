//! Every rule of `x-kubernetes-validations` on the real API server: a wrong object for each rule, and the answer.
//!
//! The rules come from the CRDs: a rule without a wrong object here fails, as does a wrong object without a rule.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::{Value, json};

use super::desk::{Answer, Desk};
use super::schema::{self, Rule};
use super::{registry, service};

/// A wrong object and the rule that it breaks.
struct Case {
    place: &'static str,
    /// A part of the rule that identifies it among the rules of its place.
    rule: &'static str,
    name: &'static str,
    /// The object before the change, with its status, if the rule is about a change.
    before: Option<(Value, Value)>,
    wrong: Value,
}

fn case(place: &'static str, rule: &'static str, wrong: Value) -> Case {
    Case { place, rule, name: "case", before: None, wrong }
}

fn change(place: &'static str, rule: &'static str, before: Value, wrong: Value) -> Case {
    Case { place, rule, name: "case", before: Some((before, json!({}))), wrong }
}

pub async fn every_rule(client: &Client) -> Result<()> {
    check(client, "ServiceRegistry", registry_cases()).await?;
    check(client, "RegisteredService", service_cases()).await
}

fn registry_cases() -> Vec<Case> {
    let etcd = |endpoints: Value| registry(json!({"etcd": {"endpoints": endpoints}}));
    let cidrs = |list: &str, cidr: &str| registry(json!({"importPolicy": {list: [cidr]}}));
    let fence = |format: &str, key: &str| registry(json!({"format": format, "fence": {"keyPrefix": key}}));
    let requirement = |r: Value| {
        let selector = json!({"matchExpressions": [r]});
        registry(json!({"allowed": [{"namespaceSelector": selector, "registryNames": ["*"]}]}))
    };
    let imports = || json!({"import": {"namespace": "vms"}});
    let discovers = |selector: &str| {
        let mut export = json!({"namespaceSelector": {}});
        export[selector] = json!({"matchExpressions": [{"key": "a", "operator": "In"}]});
        registry(json!({"discovery": {"export": export}}))
    };
    let named = registry(json!({"prefix": "p", "clusterID": "c1"}));
    let with = |extra: Value| {
        let mut spec = named.clone();
        crate::harness::merge(&mut spec, extra);
        spec
    };
    let without = |field: &str| {
        let mut spec = named.clone();
        spec.as_object_mut().expect("a spec").remove(field);
        spec
    };
    let requirements = "spec.allowed[*].namespaceSelector.matchExpressions[*]";
    vec![
        case("spec.etcd", "|| self.endpoints.all(e, e.startsWith('http://'))", etcd(json!(["http://a", "https://b"]))),
        case("spec.etcd", "!has(self.tls)", registry(json!({"etcd": {"endpoints": ["http://a"], "tls": {}}}))),
        case(
            "spec",
            "self.format == 'Kitex' || self.leadingSlash",
            registry(json!({"format": "Kratos", "prefix": ""})),
        ),
        case(
            "spec",
            "self.format == 'Kitex' || self.leadingSlash",
            registry(json!({"format": "GoZero", "prefix": ""})),
        ),
        case(
            "spec",
            "!self.leadingSlash || self.format != 'Hertz'",
            registry(json!({"format": "Hertz", "leadingSlash": true})),
        ),
        case("spec", "self.prefix.matches", registry(json!({"format": "Hertz", "prefix": "other"}))),
        case("spec", "self.prefix.matches", registry(json!({"format": "GoFrame", "prefix": "/service/default"}))),
        case("spec", "keyPrefix", fence("Kitex", "kitex/registry-etcd/x")),
        case("spec", "keyPrefix", fence("Hertz", "hertz/registry-etcd/")),
        case("spec", "keyPrefix", fence("Kratos", "/microservices/")),
        case("spec", "keyPrefix", fence("GoFrame", "/service/default/default/x")),
        case("spec", "keyPrefix", registry(json!({"prefix": "p", "fence": {"keyPrefix": "p/x"}}))),
        case(
            "spec",
            "keyPrefix",
            registry(json!({"prefix": "p", "leadingSlash": true, "fence": {"keyPrefix": "/p/x"}})),
        ),
        case(
            "spec",
            "keyPrefix",
            registry(json!({"format": "GRPC", "leadingSlash": true, "fence": {"keyPrefix": "/x"}})),
        ),
        case(requirements, "self.operator in", requirement(json!({"key": "a", "operator": "In"}))),
        case(requirements, "self.operator in", requirement(json!({"key": "a", "operator": "NotIn", "values": []}))),
        case(requirements, "self.operator in", requirement(json!({"key": "a", "operator": "Exists", "values": ["b"]}))),
        case(
            "spec.discovery.export.namespaceSelector.matchExpressions[*]",
            "self.operator in",
            discovers("namespaceSelector"),
        ),
        case(
            "spec.discovery.export.serviceSelector.matchExpressions[*]",
            "self.operator in",
            discovers("serviceSelector"),
        ),
        case("spec.discovery", "has(self.export)", registry(json!({"discovery": {}}))),
        case("spec", "has(self.discovery)", registry(json!({"prefix": "", "discovery": imports()}))),
        case("spec", "has(self.discovery)", registry(json!({"format": "GoZero", "discovery": imports()}))),
        case("spec.importPolicy.allowCIDRs", "isCIDR", cidrs("allowCIDRs", "10.0.0.1/8")),
        case("spec.importPolicy.denyCIDRs", "isCIDR", cidrs("denyCIDRs", "10.0.0.1")),
        case("spec.importPolicy.podCIDRs", "isCIDR", cidrs("podCIDRs", "here")),
        change("spec.format", "self == oldSelf", registry(json!({})), registry(json!({"format": "Kratos"}))),
        change("spec.fence", "self == oldSelf", registry(json!({})), registry(json!({"fence": {"mode": "None"}}))),
        change("spec", "has(oldSelf.prefix)", registry(json!({})), registry(json!({"prefix": "p"}))),
        change("spec", "has(oldSelf.prefix)", named.clone(), without("prefix")),
        change("spec.prefix", "self == oldSelf", named.clone(), with(json!({"prefix": "q"}))),
        change("spec.leadingSlash", "self == oldSelf", named.clone(), with(json!({"leadingSlash": true}))),
        change("spec.clusterID", "self == oldSelf", named.clone(), with(json!({"clusterID": "c2"}))),
        change("spec", "has(oldSelf.clusterID)", named.clone(), without("clusterID")),
        Case {
            before: Some((registry(json!({})), json!({"clusterID": "in-force"}))),
            ..case("", "self.status.clusterID", registry(json!({"clusterID": "another"})))
        },
    ]
}

fn service_cases() -> Vec<Case> {
    let ports = |create: &str, ports: Value| service(json!({"service": {"create": create, "ports": ports}}));
    let requirement = |r: Value| service(json!({"import": {"tagSelector": {"matchExpressions": [r]}}}));
    let requirements = "spec.import.tagSelector.matchExpressions[*]";
    let nearly_too_long = "a-service-whose-name-is-too-long-with-an-end-of-nine-more";
    let too_long = "a-service-whose-name-is-too-long-with-an-end-of-four-more-at-it";
    let long = "an-object-whose-name-is-longer-than-the-sixty-three-characters-of-a-service";
    vec![
        Case { name: "a.b", ..case("", "has(self.spec.service.name) ||", service(json!({}))) },
        Case { name: long, ..case("", "has(self.spec.service.name) ||", service(json!({}))) },
        case("", "serviceName != (", service(json!({"import": {"into": "Apart", "serviceName": "case"}}))),
        case("", "? 54 : 59", service(json!({"service": {"name": nearly_too_long}, "import": {"into": "Apart"}}))),
        case("", "? 54 : 59", service(json!({"service": {"name": too_long}, "import": {"into": "Together"}}))),
        case("", "serviceName != (", service(json!({"import": {"into": "Together", "serviceName": "case"}}))),
        case("", "!= 'Beside' || !has", service(json!({"import": {"serviceName": "other"}}))),
        case("", "otherClusters == 'All'", service(json!({"import": {"clusters": {}}}))),
        case(
            "spec.import.clusters",
            "self.minLocal == 1",
            service(json!({"import": {"otherClusters": "All", "clusters": {"minLocal": 2}}})),
        ),
        case("spec.service", "self.create == 'Never'", ports("Never", json!([{"name": "rpc", "number": 80}]))),
        case("spec.service", "self.create == 'Never'", service(json!({"service": {"create": "Headless"}}))),
        case("spec.service", "self.create == 'Never'", ports("Headless", json!([]))),
        case("spec.service", "self.create == 'Never'", ports("ClusterIP", json!([{"name": "rpc"}]))),
        case("spec.export", "self.tags.all", service(json!({"export": {"tags": {"twinspan.dev/owner": "me"}}}))),
        case("spec.export", "self.address", service(json!({"export": {"nodes": 2}}))),
        case("spec.export", "self.address", service(json!({"export": {"nodeAddressType": "ExternalIP"}}))),
        case(
            "spec.export.tagsFromPodLabels[*]",
            "self.tag",
            service(json!({"export": {"tagsFromPodLabels": [{"label": "a", "tag": "twinspan.dev/x"}]}})),
        ),
        case("spec.export", "self.zoneTag.startsWith", service(json!({"export": {"zoneTag": "twinspan.dev/zone"}}))),
        case("spec.export", "self.zoneTag in", service(json!({"export": {"zoneTag": "az", "tags": {"az": "a"}}}))),
        case(
            "spec.export",
            "self.zoneTag in",
            service(json!({"export": {"zoneTag": "az", "tagsFromPodLabels": [{"label": "a", "tag": "az"}]}})),
        ),
        case(requirements, "self.operator in", requirement(json!({"key": "a", "operator": "NotIn"}))),
        case(
            requirements,
            "self.operator in",
            requirement(json!({"key": "a", "operator": "DoesNotExist", "values": ["b"]})),
        ),
    ]
}

async fn check(client: &Client, kind: &'static str, cases: Vec<Case>) -> Result<()> {
    let rules = schema::rules(kind)?;
    for rule in &rules {
        helps(rule)?;
    }
    let desk = Desk::new(client.clone(), kind);
    let mut broken = BTreeSet::new();
    for case in cases {
        let meant: Vec<&Rule> = rules.iter().filter(|r| r.place == case.place && r.rule.contains(case.rule)).collect();
        let [rule] = meant[..] else {
            anyhow::bail!("{kind}: {:?} at {:?} names {} rules, want one", case.rule, case.place, meant.len());
        };
        let answer = ask(&desk, &case).await?;
        refused_for(rule, answer).with_context(|| format!("{kind} {}", case.wrong))?;
        broken.insert((rule.place.clone(), rule.rule.clone()));
    }
    for rule in &rules {
        let covered = broken.contains(&(rule.place.clone(), rule.rule.clone()));
        ensure!(covered, "{kind}: no wrong object for the rule {:?} at {:?}: add one", rule.rule, rule.place);
    }
    Ok(())
}

/// A message names the field to change, and then says more than that.
fn helps(rule: &Rule) -> Result<()> {
    let Rule { place, rule, message, field } = rule;
    let name = field.rsplit('.').next().unwrap_or_default().trim_end_matches("[*]");
    ensure!(message.contains(name), "the message of {rule:?} at {place:?} does not name {name}: {message:?}");
    let advice = message.split_once(": ").map(|(_, advice)| advice).unwrap_or_default();
    ensure!(advice.len() > 10, "the message of {rule:?} at {place:?} does not say what to do: {message:?}");
    Ok(())
}

async fn ask(desk: &Desk, case: &Case) -> Result<Answer> {
    let mut wrong = desk.object(case.name, &case.wrong);
    let Some((spec, status)) = &case.before else { return desk.would_create(&wrong).await };
    let refused = |answer: Answer| answer.map_err(|refusal| anyhow::anyhow!("what was before: {refusal:?}"));
    let mut there = refused(desk.create(&desk.object(case.name, spec)).await?)?;
    there["status"] = status.clone();
    let there = refused(desk.put_status(&there).await?)?;
    wrong["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
    let answer = desk.would_replace(&wrong, "").await?;
    desk.delete(case.name).await?;
    Ok(answer)
}

fn refused_for(rule: &Rule, answer: Answer) -> Result<()> {
    let Err(refusal) = answer else { anyhow::bail!("it is accepted") };
    let [(field, message)] = &refusal.causes[..] else { anyhow::bail!("not exactly one cause: {refusal:?}") };
    ensure!(message.ends_with(&rule.message), "want {:?}, got {refusal:?}", rule.message);
    let expected = rule.field.replace("[*]", "[0]");
    ensure!(*field == expected, "the answer names {field:?}, want {expected:?}: {refusal:?}");
    ensure!(refusal.message.contains(&rule.message), "kubectl would not print it: {refusal:?}");
    Ok(())
}
