//! The chart as a part of another chart and of a company's rules: its condition, the values that all charts share, and
//! the labels, variables and volumes that are added to its objects.

use std::fs;
use std::path::{Path, PathBuf};

use serde_yaml::Value;
use twinspan_chart::chart;
use twinspan_chart::helm::{Helm, name, objects};

const EVERYTHING: &str = "networkPolicy.enabled=true,metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true,\
    metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true,discovery.enabled=true,rollouts.enabled=true,\
    rollouts.drain.enabled=true,page.service.enabled=true,commonLabels.cost-centre=k17,commonAnnotations.owner=mesh";

fn object<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    objects.iter().find(|object| name(object) == wanted).unwrap_or_else(|| panic!("no {wanted}"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// A chart with this one as its dependency.
struct Umbrella(PathBuf);

impl Umbrella {
    fn new(values: &str) -> Self {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("twinspan-umbrella-{}-{number}", std::process::id()));
        copy(&chart(), &dir.join("charts/twinspan"));
        let own: Value = serde_yaml::from_str(&fs::read_to_string(chart().join("Chart.yaml")).unwrap()).unwrap();
        let version = own["version"].as_str().unwrap();
        let meta = format!(
            "apiVersion: v2\nname: platform\nversion: 1.0.0\ndependencies:\n\
             - {{name: twinspan, version: {version}, repository: \"\", condition: twinspan.enabled}}\n"
        );
        fs::write(dir.join("Chart.yaml"), meta).unwrap();
        fs::write(dir.join("values.yaml"), values).unwrap();
        Self(dir)
    }

    fn objects(&self) -> Vec<Value> {
        let dir = self.0.display().to_string();
        objects(&Helm::find().unwrap().succeed(&["template", "platform", &dir, "--namespace", "mesh"]).unwrap())
            .unwrap()
    }
}

impl Drop for Umbrella {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn an_umbrella_chart_decides_and_shares_its_values() {
    let off = Umbrella::new("twinspan: {enabled: false}\n");
    assert!(off.objects().is_empty());
    let on = Umbrella::new(
        "global:\n  imageRegistry: mirror.example:5000\n  imagePullSecrets: [one, {name: two}]\n  storageClass: fast\n\
         twinspan:\n  enabled: true\n  image: {repository: team/twinspan, pullSecrets: [own]}\n",
    );
    let objects = on.objects();
    let deployment = object(&objects, "Deployment/twinspan");
    assert_eq!(deployment["metadata"]["namespace"], "mesh");
    for spec in [&deployment["spec"]["template"]["spec"], &object(&objects, "Pod/twinspan-doctor")["spec"]] {
        let image = spec["containers"][0]["image"].as_str().unwrap();
        assert!(image.starts_with("mirror.example:5000/team/twinspan:"), "{image}");
        let secrets = spec["imagePullSecrets"].as_sequence().unwrap();
        let secrets: Vec<&str> = secrets.iter().filter_map(|secret| secret["name"].as_str()).collect();
        assert_eq!(secrets, ["own", "one", "two"]);
    }
}

#[test]
fn every_object_has_the_common_labels_and_annotations() {
    let objects = Helm::find().unwrap().objects(&["--set", EVERYTHING, "--set-json", REGISTRY]).unwrap();
    assert!(objects.len() > 30, "{}", objects.len());
    let pods = objects.iter().filter_map(|object| object["spec"].get("template")).filter(|it| it.is_mapping());
    for (object, name) in objects.iter().map(|it| (it, name(it))).chain(pods.map(|pod| (pod, "a pod".to_owned()))) {
        let meta = &object["metadata"];
        assert_eq!(meta["labels"]["cost-centre"], "k17", "{name}");
        assert_eq!(meta["annotations"]["owner"], "mesh", "{name}");
    }
    // They select nothing: a selector cannot be changed later.
    let selector = &object(&objects, "Deployment/twinspan")["spec"]["selector"]["matchLabels"];
    assert!(selector["cost-centre"].is_null(), "{selector:?}");
}

const REGISTRY: &str =
    r#"serviceRegistries={"main":{"etcd":{"endpoints":["http://etcd:2379"]},"format":"Kitex","allowed":[]}}"#;

#[test]
fn variables_volumes_and_arguments_are_added() {
    let values = [
        "--set-json",
        r#"extraArgs=["--page-hosts=a"],extraEnv=[{"name":"HTTPS_PROXY","value":"http://proxy:3128"}]"#,
        "--set-json",
        r#"extraVolumes=[{"name":"ca","configMap":{"name":"ca"}}],extraVolumeMounts=[{"name":"ca","mountPath":"/etc/ca"}]"#,
    ];
    let objects = Helm::find().unwrap().objects(&values).unwrap();
    let spec = &object(&objects, "Deployment/twinspan")["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    assert_eq!(container["args"].as_sequence().unwrap().last().unwrap(), "--page-hosts=a");
    let env = container["env"].as_sequence().unwrap();
    assert!(env.iter().any(|it| it["name"] == "HTTPS_PROXY" && it["value"] == "http://proxy:3128"), "{env:?}");
    assert_eq!(container["volumeMounts"][0]["mountPath"], "/etc/ca");
    assert_eq!(spec["volumes"][0]["configMap"]["name"], "ca");
}

#[test]
fn another_service_account_is_named_everywhere() {
    let values = ["--set", "serviceAccount.create=false,serviceAccount.name=mesh-writer,rollouts.enabled=true"];
    let text = Helm::find().unwrap().template(&values).unwrap();
    let all = objects(&text).unwrap();
    assert_eq!(object(&all, "Deployment/twinspan")["spec"]["template"]["spec"]["serviceAccountName"], "mesh-writer");
    for binding in ["ClusterRoleBinding/twinspan", "RoleBinding/twinspan", "ClusterRoleBinding/twinspan-rollouts"] {
        assert_eq!(object(&all, binding)["subjects"][0]["name"], "mesh-writer", "{binding}");
    }
    let policies = all.iter().filter(|it| it["kind"] == "ValidatingAdmissionPolicy");
    for policy in policies {
        let condition = policy["spec"]["matchConditions"][0]["expression"].as_str().unwrap();
        assert!(condition.ends_with(":mesh-writer'"), "{condition}");
    }
    let doctor = object(&all, "Pod/twinspan-doctor")["spec"]["containers"][0]["args"].as_sequence().unwrap();
    assert!(doctor.contains(&"--service-account=mesh-writer".into()), "{doctor:?}");
}

#[test]
fn open_shift_permits_slices_only_where_it_is_named() {
    let rules = |values: &str| {
        let all = Helm::find().unwrap().objects(&["--set", values]).unwrap();
        serde_yaml::to_string(&object(&all, "ClusterRole/twinspan")["rules"]).unwrap()
    };
    assert!(!rules("openshift.enabled=false").contains("endpointslices/restricted"));
    assert!(rules("openshift.enabled=true").contains("endpointslices/restricted"));
}

#[test]
fn monitors_have_what_prometheus_may_be_told() {
    let values = [
        "--set",
        "metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.namespace=monitoring,metrics.serviceMonitor.interval=30s,\
         metrics.serviceMonitor.scrapeTimeout=10s,metrics.serviceMonitor.honorLabels=true,metrics.serviceMonitor.annotations.a=b",
        "--set-json",
        r#"metrics.serviceMonitor.relabelings=[{"action":"labeldrop","regex":"pod"}],metrics.podMonitor={"enabled":true,"metricRelabelings":[{"action":"drop"}]}"#,
    ];
    let all = Helm::find().unwrap().objects(&values).unwrap();
    let monitor = object(&all, "ServiceMonitor/twinspan");
    assert_eq!(monitor["metadata"]["namespace"], "monitoring");
    assert_eq!(monitor["metadata"]["annotations"]["a"], "b");
    assert_eq!(monitor["spec"]["namespaceSelector"]["matchNames"][0], "twinspan-system");
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!((&endpoint["interval"], &endpoint["scrapeTimeout"]), (&"30s".into(), &"10s".into()));
    assert_eq!((&endpoint["honorLabels"], &endpoint["relabelings"][0]["regex"]), (&true.into(), &"pod".into()));
    let monitor = object(&all, "PodMonitor/twinspan");
    assert_eq!(monitor["metadata"]["namespace"], "twinspan-system");
    assert!(monitor["spec"]["namespaceSelector"].is_null());
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!((&endpoint["port"], &endpoint["metricRelabelings"][0]["action"]), (&"admin".into(), &"drop".into()));
    let selected = &monitor["spec"]["selector"]["matchLabels"];
    assert_eq!(selected, &object(&all, "Deployment/twinspan")["spec"]["selector"]["matchLabels"]);
}
