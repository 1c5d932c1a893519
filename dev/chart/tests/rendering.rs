//! The chart under other values than its defaults: `helm lint --strict`, a matrix of values, and forbidden output.

use std::collections::BTreeSet;

use serde_yaml::Value;
use twinspan_chart::helm::{Helm, name};
use twinspan_chart::{chart, read};

const REGISTRY: &str =
    r#"serviceRegistries={"main":{"etcd":{"endpoints":["http://etcd:2379"]},"format":"Kitex","allowed":[]}}"#;

fn helm() -> Helm {
    Helm::find().unwrap()
}

fn names(objects: &[Value]) -> BTreeSet<String> {
    objects.iter().map(name).collect()
}

fn object<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    objects.iter().find(|object| name(object) == wanted).unwrap_or_else(|| panic!("no {wanted}"))
}

fn pod(objects: &[Value]) -> &Value {
    &object(objects, "Deployment/twinspan")["spec"]["template"]
}

/// Each row: values, texts that they add, texts that they remove.
type Row = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

const MATRIX: &[Row] = &[
    (
        &[],
        &[
            "Deployment/twinspan",
            "ServiceAccount/twinspan",
            "ClusterRole/twinspan",
            "ClusterRoleBinding/twinspan",
            "Role/twinspan",
            "RoleBinding/twinspan",
            "Service/twinspan",
            "PodDisruptionBudget/twinspan",
            "ValidatingAdmissionPolicy/twinspan-endpointslices",
            "ValidatingAdmissionPolicyBinding/twinspan-endpointslices",
            "ValidatingAdmissionPolicy/twinspan-services",
            "ValidatingAdmissionPolicyBinding/twinspan-services",
            "ClusterRole/twinspan-view",
            "ClusterRole/twinspan-edit",
            "ClusterRole/twinspan-cluster-view",
            "CustomResourceDefinition/registeredservices.twinspan.dev",
            "CustomResourceDefinition/serviceregistries.twinspan.dev",
            "Pod/twinspan-doctor",
        ],
        &[
            "NetworkPolicy/twinspan",
            "ServiceMonitor/twinspan",
            "PodMonitor/twinspan",
            "PrometheusRule/twinspan",
            "ConfigMap/twinspan-dashboard",
            "ServiceRegistry/main",
            "Service/twinspan-page",
            "ValidatingAdmissionPolicy/twinspan-registeredservices",
            "ValidatingAdmissionPolicy/twinspan-pods",
            "ClusterRole/twinspan-rollouts",
        ],
    ),
    (
        &["--set", "rollouts.enabled=true"],
        &[
            "ValidatingAdmissionPolicy/twinspan-pods",
            "ValidatingAdmissionPolicyBinding/twinspan-pods",
            "ClusterRole/twinspan-rollouts",
            "ClusterRoleBinding/twinspan-rollouts",
        ],
        &[],
    ),
    (
        &["--set", "admissionPolicy.enabled=false,rollouts.enabled=true"],
        &["ClusterRole/twinspan-rollouts"],
        &["ValidatingAdmissionPolicy/twinspan-pods"],
    ),
    (
        &["--set", "discovery.enabled=true"],
        &[
            "ValidatingAdmissionPolicy/twinspan-registeredservices",
            "ValidatingAdmissionPolicyBinding/twinspan-registeredservices",
        ],
        &[],
    ),
    (&["--set", "page.service.enabled=true"], &["Service/twinspan-page", "Service/twinspan"], &[]),
    (&["--set", "crds.install=false"], &[], &["CustomResourceDefinition/registeredservices.twinspan.dev"]),
    (&["--set", "podDisruptionBudget.enabled=false"], &[], &["PodDisruptionBudget/twinspan"]),
    (
        &["--set", "admissionPolicy.enabled=false,discovery.enabled=true"],
        &[],
        &[
            "ValidatingAdmissionPolicy/twinspan-endpointslices",
            "ValidatingAdmissionPolicy/twinspan-services",
            "ValidatingAdmissionPolicy/twinspan-registeredservices",
        ],
    ),
    (&["--set", "networkPolicy.enabled=true"], &["NetworkPolicy/twinspan"], &[]),
    (&["--set", "metrics.serviceMonitor.enabled=true"], &["ServiceMonitor/twinspan"], &[]),
    (&["--set", "metrics.podMonitor.enabled=true"], &["PodMonitor/twinspan"], &["ServiceMonitor/twinspan"]),
    (&["--set", "serviceAccount.create=false"], &["Deployment/twinspan"], &["ServiceAccount/twinspan"]),
    (
        &["--set", "rbac.create=false,rollouts.enabled=true"],
        &["Deployment/twinspan", "ServiceAccount/twinspan", "ClusterRole/twinspan-view"],
        &["ClusterRole/twinspan", "ClusterRoleBinding/twinspan", "Role/twinspan", "ClusterRole/twinspan-rollouts"],
    ),
    (&["--set", "metrics.prometheusRule.enabled=true"], &["PrometheusRule/twinspan"], &[]),
    (&["--set", "metrics.dashboard.enabled=true"], &["ConfigMap/twinspan-dashboard"], &[]),
    (&["--set-json", REGISTRY], &["ServiceRegistry/main"], &[]),
    (&["--set", "global.anything=1"], &["Deployment/twinspan"], &[]),
    (&["--kube-version", "1.31.0"], &["Deployment/twinspan"], &[]),
    (&["--skip-tests"], &["Deployment/twinspan"], &["Pod/twinspan-doctor", "ServiceAccount/twinspan-doctor"]),
];

#[test]
fn a_matrix_of_values() {
    let helm = helm();
    for (values, present, absent) in MATRIX.iter().copied() {
        let names = names(&helm.objects(values).unwrap());
        for wanted in present {
            assert!(names.contains(*wanted), "{values:?}: no {wanted} in {names:?}");
        }
        for unwanted in absent {
            assert!(!names.contains(*unwanted), "{values:?}: {unwanted}");
        }
    }
}

#[test]
fn lint_has_nothing_to_say() {
    let chart = chart().display().to_string();
    for values in [
        &[][..],
        &["--set-json", REGISTRY],
        &[
            "--set",
            "networkPolicy.enabled=true,metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true",
        ],
    ] {
        helm().succeed(&[&["lint", "--strict", chart.as_str()][..], values].concat()).unwrap();
    }
}

#[test]
fn too_old_a_cluster_is_refused() {
    let chart = chart().display().to_string();
    let message = helm().refusal(&["template", "twinspan", &chart, "--kube-version", "1.30.9"]).unwrap();
    assert!(message.contains("kubeVersion: >=1.31.0-0"), "{message}");
}

/// Every container meets the restricted Pod Security Standard, and one rule more.
#[test]
fn pods_have_no_privileges() {
    let objects = helm().objects(&[]).unwrap();
    let doctor = object(&objects, "Pod/twinspan-doctor");
    for pod in [pod(&objects), doctor] {
        let spec = &pod["spec"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        assert_eq!(spec["securityContext"]["runAsUser"], 65532);
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let containers = spec["containers"].as_sequence().unwrap();
        assert_eq!(containers.len(), 1);
        let context = &containers[0]["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"]["drop"][0], "ALL");
        assert!(containers[0]["resources"]["limits"]["memory"].is_string());
    }
    let platform = helm().objects(&["--set", "runAsUser=null"]).unwrap();
    let context = &pod(&platform)["spec"]["securityContext"];
    assert!(context["runAsUser"].is_null() && context["runAsNonRoot"] == true, "{context:?}");
}

/// A proxy in the pod would answer the probes of lost instances, so no value allows one.
#[test]
fn no_service_mesh_comes_in() {
    let values = ["--set", "podLabels.team=a,podAnnotations.note=b"];
    let objects = helm().objects(&values).unwrap();
    for pod in [pod(&objects), object(&objects, "Pod/twinspan-doctor")] {
        let (labels, annotations) = (&pod["metadata"]["labels"], &pod["metadata"]["annotations"]);
        assert_eq!(labels["sidecar.istio.io/inject"], "false");
        assert_eq!(labels["istio.io/dataplane-mode"], "none");
        assert_eq!(labels["kuma.io/sidecar-injection"], "disabled");
        assert_eq!(annotations["linkerd.io/inject"], "disabled");
        assert_eq!(annotations["consul.hashicorp.com/connect-inject"], "false");
    }
    let meta = &pod(&objects)["metadata"];
    assert_eq!((&meta["labels"]["team"], &meta["annotations"]["note"]), (&"a".into(), &"b".into()));
}

/// The additions to the built-in roles, and that they can be turned off. None of them is for the operator.
#[test]
fn roles_for_people_are_aggregated() {
    let prefix = "rbac.authorization.k8s.io/aggregate-to-";
    let targets = |values: &[&str], role: &str| -> Vec<String> {
        let objects = helm().objects(values).unwrap();
        let labels =
            object(&objects, &format!("ClusterRole/{role}"))["metadata"]["labels"].as_mapping().unwrap().clone();
        labels.keys().filter_map(|key| Some(key.as_str()?.strip_prefix(prefix)?.to_owned())).collect()
    };
    for (role, wanted) in [
        ("twinspan-view", &["view", "edit", "admin"][..]),
        ("twinspan-edit", &["edit", "admin"]),
        ("twinspan-cluster-view", &["cluster-reader"]),
        ("twinspan", &[]),
    ] {
        assert_eq!(targets(&[], role), wanted, "{role}");
        assert!(targets(&["--set", "userRoles.aggregate=false"], role).is_empty(), "{role}");
    }
}

#[test]
fn values_reach_the_pod() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let objects = helm()
        .objects(&[
            "--set",
            &format!("image.repository=registry.example:5000/team/twinspan,image.tag=1.2.3,image.digest={digest}"),
            "--set",
            "image.pullSecrets={one,two},replicas=3,dryRun=true,auditInterval=1h,listen=[::],log.format=json,log.filter=debug,traces.otlpEndpoint=http://collector:4317",
            "--set",
            "priorityClassName=high,nodeSelector.disk=ssd,topologySpread.topologyKeys={rack},topologySpread.whenUnsatisfiable=DoNotSchedule",
            "--set-json",
            r#"tolerations=[{"key":"only","operator":"Exists","effect":"NoSchedule"}]"#,
        ])
        .unwrap();
    assert_eq!(object(&objects, "Deployment/twinspan")["spec"]["replicas"], 3);
    let spec = &pod(&objects)["spec"];
    let container = &spec["containers"][0];
    assert_eq!(container["image"], format!("registry.example:5000/team/twinspan:1.2.3@{digest}"));
    let args: Vec<&str> = container["args"].as_sequence().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(
        args,
        [
            "run",
            "--leader-elect=true",
            "--admin-addr=[::]:8080",
            "--log-format=json",
            "--otlp-endpoint=http://collector:4317",
            "--audit-interval=1h",
            "--dry-run"
        ]
    );
    let env = container["env"].as_sequence().unwrap();
    assert!(env.iter().any(|variable| variable["name"] == "RUST_LOG" && variable["value"] == "debug"), "{env:?}");
    assert_eq!(spec["imagePullSecrets"][1]["name"], "two");
    assert_eq!(spec["priorityClassName"], "high");
    assert_eq!(spec["nodeSelector"]["disk"], "ssd");
    assert_eq!(spec["tolerations"][0]["key"], "only");
    assert_eq!(spec["topologySpreadConstraints"][0]["topologyKey"], "rack");
    assert_eq!(spec["topologySpreadConstraints"][0]["whenUnsatisfiable"], "DoNotSchedule");
}

/// If the policy dropped probes, every instance would look silent, so it allows TCP to every address.
#[test]
fn the_network_policy_lets_probes_out() {
    let values = ["--set", "networkPolicy.enabled=true,networkPolicy.metricsNamespaces={monitoring}"];
    let objects = helm().objects(&values).unwrap();
    let spec = &object(&objects, "NetworkPolicy/twinspan")["spec"];
    let tcp = &spec["egress"][0];
    assert!(tcp["to"].is_null() && tcp["ports"][0]["port"].is_null() && tcp["ports"][0]["protocol"] == "TCP");
    let dns: Vec<_> = spec["egress"][1]["ports"].as_sequence().unwrap().iter().map(|port| &port["port"]).collect();
    assert_eq!(dns, [&Value::from(53), &Value::from(5353)]);
    // The operator can reach whatever `helm test` can reach.
    let selected = &spec["podSelector"];
    for pod in [pod(&objects), object(&objects, "Pod/twinspan-doctor")] {
        let labels = &pod["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/instance"], selected["matchLabels"]["app.kubernetes.io/instance"]);
        let names = selected["matchExpressions"][0]["values"].as_sequence().unwrap();
        assert!(names.contains(&labels["app.kubernetes.io/name"]), "{names:?} {labels:?}");
    }
    let from = &spec["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"];
    assert_eq!(from["kubernetes.io/metadata.name"], "monitoring");
}

/// The installed CRDs equal the files, and neither uninstalling nor removing a value deletes objects with data.
#[test]
fn crds_and_registries_are_kept() {
    let objects = helm().objects(&["--set-json", REGISTRY]).unwrap();
    for kept in [
        "CustomResourceDefinition/registeredservices.twinspan.dev",
        "CustomResourceDefinition/serviceregistries.twinspan.dev",
        "ServiceRegistry/main",
    ] {
        let object = object(&objects, kept);
        assert_eq!(object["metadata"]["annotations"]["helm.sh/resource-policy"], "keep", "{kept}");
    }
    for file in ["registeredservices", "serviceregistries"] {
        let stored: Value =
            serde_yaml::from_str(&read(&chart().join(format!("files/crds/{file}.yaml"))).unwrap()).unwrap();
        let rendered = object(&objects, &format!("CustomResourceDefinition/{file}.twinspan.dev"));
        assert_eq!(rendered["spec"], stored["spec"], "{file}");
    }
}

/// Alerts and the dashboard contain templates of their own, which Helm must not expand.
#[test]
fn alerts_and_dashboard_are_the_files() {
    let values = ["--set", "metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true"];
    let objects = helm().objects(&values).unwrap();
    let alerts: Value = serde_yaml::from_str(&read(&chart().join("files/alerts.yaml")).unwrap()).unwrap();
    assert_eq!(object(&objects, "PrometheusRule/twinspan")["spec"], alerts);
    // Another release's leader is none of this one.
    let beside = [&values[..], &["--namespace=team-a", "--set", "servedRegistries={main}"]].concat();
    let beside = helm().objects(&beside).unwrap();
    let rules = &object(&beside, "PrometheusRule/twinspan")["spec"]["groups"][0]["rules"];
    assert_eq!(rules[0]["expr"], r#"absent(twinspan_leader{namespace="team-a"} == 1)"#);
    let shown = object(&objects, "ConfigMap/twinspan-dashboard");
    assert_eq!(shown["metadata"]["labels"]["grafana_dashboard"], "1");
    let text = shown["data"]["twinspan.json"].as_str().unwrap();
    let stored = read(&chart().join("files/dashboard.json")).unwrap();
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(parse(text), parse(&stored));
}

/// Alerts link to a runbook for browsers, can be routed by additional labels, and can be left out.
#[test]
fn alerts_can_be_adapted() {
    let values = [
        "--set",
        "metrics.prometheusRule.enabled=true,metrics.prometheusRule.alertLabels.team=mesh",
        "--set",
        "metrics.prometheusRule.disabled={TwinspanSlow},metrics.prometheusRule.runbookBaseURL=https://git.example/operations.md",
    ];
    let objects = helm().objects(&values).unwrap();
    let rules =
        object(&objects, "PrometheusRule/twinspan")["spec"]["groups"][0]["rules"].as_sequence().unwrap().clone();
    let alerts: Vec<&Value> = rules.iter().filter(|rule| !rule["alert"].is_null()).collect();
    for alert in &alerts {
        let name = alert["alert"].as_str().unwrap();
        assert_eq!(alert["labels"]["team"], "mesh", "{name}");
        assert!(alert["labels"]["severity"].is_string(), "{name}");
        let page = format!("https://git.example/operations.md#{}", name.to_lowercase());
        assert_eq!(alert["annotations"]["runbook_url"], page.as_str());
    }
    let stored: Value = serde_yaml::from_str(&read(&chart().join("files/alerts.yaml")).unwrap()).unwrap();
    let all = stored["groups"][0]["rules"].as_sequence().unwrap();
    let all: BTreeSet<&str> = all.iter().filter_map(|rule| rule["alert"].as_str()).collect();
    let left: BTreeSet<&str> = alerts.iter().filter_map(|alert| alert["alert"].as_str()).collect();
    assert_eq!(all.difference(&left).collect::<Vec<_>>(), [&"TwinspanSlow"]);

    // The message for a mistyped name lists the valid ones.
    let schema: serde_json::Value = serde_json::from_str(&read(&chart().join("values.schema.json")).unwrap()).unwrap();
    let names =
        &schema["properties"]["metrics"]["properties"]["prometheusRule"]["properties"]["disabled"]["items"]["enum"];
    assert_eq!(names.as_array().unwrap().iter().filter_map(|name| name.as_str()).collect::<BTreeSet<_>>(), all);
}

/// Scheduling and DNS settings apply to the operator and to its test pod.
#[test]
fn pods_run_and_find_names_as_told() {
    let objects = helm()
        .objects(&[
            "--set-json",
            r#"affinity={"podAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[]}}"#,
            "--set-json",
            r#"hostAliases=[{"ip":"192.0.2.1","hostnames":["etcd-0.internal"]}],dnsPolicy="None""#,
            "--set-json",
            r#"dnsConfig={"nameservers":["192.0.2.53"],"options":[{"name":"ndots","value":"1"}]}"#,
            "--set",
            "serviceAccount.annotations.owner=platform",
        ])
        .unwrap();
    for pod in [pod(&objects), object(&objects, "Pod/twinspan-doctor")] {
        let spec = &pod["spec"];
        assert!(spec["affinity"]["podAffinity"].is_mapping(), "{spec:?}");
        assert_eq!(spec["hostAliases"][0]["hostnames"][0], "etcd-0.internal");
        assert_eq!((&spec["dnsPolicy"], &spec["dnsConfig"]["nameservers"][0]), (&"None".into(), &"192.0.2.53".into()));
        assert_eq!(spec["dnsConfig"]["options"][0]["value"], "1");
        assert!(spec["dnsConfig"]["searches"].is_null(), "{spec:?}");
    }
    let account = object(&objects, "ServiceAccount/twinspan");
    assert_eq!(account["metadata"]["annotations"]["owner"], "platform");
}

/// Values that YAML could read as another type keep theirs.
#[test]
fn odd_spellings_stay_what_they_are() {
    let objects = helm()
        .objects(&[
            "--set-json",
            r#"resources={"requests":{"cpu":0.5,"memory":536870912}}"#,
            "--set-json",
            r#"networkPolicy={"enabled":true,"metricsNamespaces":["123"]}"#,
            "--set-json",
            r#"terminationGracePeriodSeconds=3600000,runAsUser=1000650000,podLabels={"a":"true"},image={"pullSecrets":["1e3"]}"#,
            "--set-json",
            r#"serviceRegistries={"10":{"etcd":{"endpoints":["http://etcd:2379"]},"format":"Kitex","allowed":[],"lease":{"ttlSeconds":86400}}}"#,
        ])
        .unwrap();
    let spec = &pod(&objects)["spec"];
    let requests = &spec["containers"][0]["resources"]["requests"];
    assert_eq!((&requests["cpu"], &requests["memory"]), (&0.5.into(), &536_870_912.into()));
    assert_eq!(spec["terminationGracePeriodSeconds"], 3_600_000);
    assert_eq!(spec["securityContext"]["runAsUser"], 1_000_650_000);
    assert_eq!(spec["imagePullSecrets"][0]["name"], "1e3");
    assert_eq!(pod(&objects)["metadata"]["labels"]["a"], "true");
    let from = &object(&objects, "NetworkPolicy/twinspan")["spec"]["ingress"][0]["from"][0];
    assert_eq!(from["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], "123");
    assert_eq!(object(&objects, "ServiceRegistry/10")["spec"]["lease"]["ttlSeconds"], 86_400);
}
