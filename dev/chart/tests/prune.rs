//! Tools that prune: the objects whose deletion would withdraw records and endpoints outlive every way to leave a
//! release.
//!
//! Owns the rules by which Argo CD, Flux and Helm delete what is not wanted any more, as their documents and sources
//! state them. Refuses to run them: a rule is a function of the object as it is stored, which is what each tool reads.

use serde_yaml::Value;
use twinspan_chart::helm::{Helm, name, objects};
use twinspan_chart::{read, repository};

/// The kinds that the chart promises to keep, and the kind that a deleted CRD would take along.
const KEPT: [&str; 3] = ["CustomResourceDefinition", "ServiceRegistry", "RegisteredService"];

const TWO: &str = r#"serviceRegistries={"main":{"etcd":{"endpoints":["http://etcd:2379"]},"format":"Kitex",
    "allowed":[]},"spare":{"etcd":{"endpoints":["http://etcd:2379"]},"format":"Hertz","allowed":[]}}"#;
const ONE: &str =
    r#"serviceRegistries={"main":{"etcd":{"endpoints":["http://etcd:2379"]},"format":"Kitex","allowed":[]}}"#;

/// A tool with its rule: whether it deletes a stored object that is not wanted any more, without asking a person.
struct Tool {
    name: &'static str,
    /// The answer for an object that left the set.
    prunes: fn(&Value) -> bool,
    /// The answer for every object when the whole set is deleted.
    deletes: fn(&Value) -> bool,
}

fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"]["annotations"][key].as_str().unwrap_or_default()
}

/// Options of Argo CD are separated by commas, and blanks around them do not count: `GetAnnotationCSVs` in
/// `gitops-engine/pkg/sync/resource/annotations.go`.
fn has_option(object: &Value, key: &str, option: &str) -> bool {
    annotation(object, key).split(',').any(|word| word.trim() == option)
}

const SYNC_OPTIONS: &str = "argocd.argoproj.io/sync-options";

/// `pruneObject` in `gitops-engine/pkg/sync/sync_context.go`, and "No Prune Resources" in
/// `docs/user-guide/sync-options.md`. Helm's word is not asked (argo-cd#17819). `Prune=confirm` waits for a person.
fn argo_prunes(object: &Value) -> bool {
    !["Prune=false", "Prune=confirm"].iter().any(|option| has_option(object, SYNC_OPTIONS, option))
}

/// `shouldBeDeleted` in `controller/appcontroller.go`: the cascading deletion of an Application. CRDs are spared
/// there in any case; Twinspan does not rely on that.
fn argo_deletes(object: &Value) -> bool {
    let spared = ["Delete=false", "Delete=confirm"].iter().any(|option| has_option(object, SYNC_OPTIONS, option));
    !spared && !has_option(object, "helm.sh/resource-policy", "keep")
}

/// `prune` and `finalize` in `internal/controller/kustomization_controller.go` of kustomize-controller: these labels
/// and annotations exclude an object, with the exact word.
fn flux_deletes(object: &Value) -> bool {
    let keys = ["kustomize.toolkit.fluxcd.io/prune", "kustomize.toolkit.fluxcd.io/reconcile"];
    let metadata = &object["metadata"];
    !keys.iter().any(|key| metadata["annotations"][*key] == "disabled" || metadata["labels"][*key] == "disabled")
}

/// helm-controller upgrades and uninstalls through Helm's library: `Client.Update` in `pkg/kube/client.go`, which takes
/// the exact word, and `filterManifestsToKeep` in `pkg/action/resource_policy.go`, which is laxer.
fn helm_deletes(object: &Value) -> bool {
    annotation(object, "helm.sh/resource-policy") != "keep"
}

const ARGO: Tool = Tool { name: "Argo CD", prunes: argo_prunes, deletes: argo_deletes };
const KUSTOMIZATION: Tool = Tool { name: "Flux Kustomization", prunes: flux_deletes, deletes: flux_deletes };
const RELEASE: Tool = Tool { name: "Flux HelmRelease", prunes: helm_deletes, deletes: helm_deletes };

fn helm() -> Helm {
    Helm::find().unwrap()
}

/// The names of what the tool deletes on the way from one set to the next; `None` stands for the deletion of the set.
fn deleted(tool: &Tool, before: &[Value], after: Option<&[Value]>) -> Vec<String> {
    let rule = if after.is_some() { tool.prunes } else { tool.deletes };
    let wanted: Vec<String> = after.unwrap_or_default().iter().map(name).collect();
    before.iter().filter(|object| !wanted.contains(&name(object)) && rule(object)).map(name).collect()
}

fn keeps(tool: &Tool, way: &str, before: &[Value], after: Option<&[Value]>) -> Vec<String> {
    let deleted = deleted(tool, before, after);
    let lost: Vec<&String> = deleted.iter().filter(|name| KEPT.iter().any(|kind| name.starts_with(kind))).collect();
    assert!(lost.is_empty(), "{}: {way} deletes {lost:?}", tool.name);
    deleted
}

/// The chart through Argo CD, through a HelmRelease, and as files that `helm template` wrote into a repository.
#[test]
fn no_tool_deletes_what_the_chart_keeps() {
    let full = helm().objects(&["--set-json", TWO]).unwrap();
    let kept = full.iter().filter(|object| KEPT.iter().any(|kind| object["kind"] == *kind)).count();
    assert_eq!(kept, 4, "two CRDs and two registries are rendered");
    let steps = [
        ("crds.install false", helm().objects(&["--set-json", TWO, "--set", "crds.install=false"]).unwrap()),
        ("a registry that leaves the values", helm().objects(&["--set-json", ONE]).unwrap()),
        ("no registry in the values", helm().objects(&[]).unwrap()),
    ];
    for tool in [&ARGO, &KUSTOMIZATION, &RELEASE] {
        for (way, after) in &steps {
            keeps(tool, way, &full, Some(after));
        }
        // Pruning everything is how a set that became empty by mistake looks.
        keeps(tool, "an empty set", &full, Some(&[]));
        let gone = keeps(tool, "the removal of the release", &full, None);
        assert!(gone.contains(&"Deployment/twinspan".to_owned()), "{}: the operator itself goes", tool.name);
    }
}

/// The plain manifests, as a directory of Argo CD or a Kustomization of Flux. Helm has no part in them.
#[test]
fn no_tool_deletes_what_the_manifests_keep() {
    let mut all = Vec::new();
    for file in ["crds/registeredservices.yaml", "crds/serviceregistries.yaml", "deploy/twinspan.yaml"] {
        all.extend(objects(&read(&repository().join(file)).unwrap()).unwrap());
    }
    let without_crds: Vec<Value> =
        all.iter().filter(|object| object["kind"] != "CustomResourceDefinition").cloned().collect();
    assert_eq!(all.len() - without_crds.len(), 2);
    for tool in [&ARGO, &KUSTOMIZATION] {
        keeps(tool, "crds/ that leaves the set", &all, Some(&without_crds));
        keeps(tool, "an empty set", &all, Some(&[]));
        let gone = keeps(tool, "the removal of the set", &all, None);
        assert!(gone.contains(&"Deployment/twinspan".to_owned()), "{}: the operator itself goes", tool.name);
        assert!(!gone.contains(&"Namespace/twinspan-system".to_owned()), "{}: Secrets go with it", tool.name);
    }
}

/// The objects that the page about GitOps shows with annotations against a deletion.
#[test]
fn no_tool_deletes_what_the_page_protects() {
    let page = read(&repository().join("docs/gitops.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let shown: Vec<Value> = blocks
        .flat_map(|block| objects(block).unwrap())
        .filter(|object| KEPT.iter().any(|kind| object["kind"] == *kind))
        .filter(|object| !object["metadata"]["annotations"].is_null())
        .collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    for tool in [&ARGO, &KUSTOMIZATION, &RELEASE] {
        keeps(tool, "an empty set", &shown, Some(&[]));
        keeps(tool, "the removal of the set", &shown, None);
    }
}

/// The rules would find what is not kept.
#[test]
fn the_rules_tell_kept_from_deleted() {
    let object = |annotations: &str| -> Value {
        serde_yaml::from_str(&format!(
            "{{kind: ServiceRegistry, metadata: {{name: main, annotations: {annotations}}}}}"
        ))
        .unwrap()
    };
    for (annotations, argo, argo_app, flux, helm) in [
        ("{}", true, true, true, true),
        ("{helm.sh/resource-policy: keep}", true, false, true, false),
        ("{argocd.argoproj.io/sync-options: 'Prune=false'}", false, true, true, true),
        ("{argocd.argoproj.io/sync-options: 'Replace=true, Delete=false , Prune=confirm'}", false, false, true, true),
        ("{argocd.argoproj.io/sync-options: 'PruneLast=true'}", true, true, true, true),
        ("{kustomize.toolkit.fluxcd.io/prune: disabled}", true, true, false, true),
        ("{kustomize.toolkit.fluxcd.io/prune: enabled}", true, true, true, true),
    ] {
        let object = object(annotations);
        let found = (argo_prunes(&object), argo_deletes(&object), flux_deletes(&object), helm_deletes(&object));
        assert_eq!(found, (argo, argo_app, flux, helm), "{annotations}");
    }
}
