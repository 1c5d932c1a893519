//! The API server accepts every rendered object: known fields only, every rule of ours and of Kubernetes, and the
//! restricted Pod Security Standard for pods.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams, ValidationDirective};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::process::Command;
use twinspan_chart::helm::Helm;
use twinspan_testbed::{Bed, OPERATOR_NAMESPACE, eventually, prometheus, repository};

use crate::harness::{SOON, Suite, TWINSPAN};

const EVERYTHING: [&str; 12] = [
    "--set",
    "networkPolicy.enabled=true,networkPolicy.metricsNamespaces={monitoring},metrics.serviceMonitor.enabled=true,\
     metrics.serviceMonitor.interval=30s,metrics.serviceMonitor.scrapeTimeout=10s,metrics.serviceMonitor.honorLabels=true,metrics.serviceMonitor.namespace=kube-system,metrics.podMonitor.enabled=true,metrics.prometheusRule.enabled=true,openshift.enabled=true,commonLabels.team=mesh,commonAnnotations.note=b,serviceAccount.annotations.owner=platform,dnsPolicy=None,metrics.dashboard.enabled=true,replicas=3,dryRun=true,auditInterval=1h,\
     log.format=json,discovery.enabled=true,rollouts.enabled=true,rollouts.drain.enabled=true,rollouts.drain.clusterIP=10.96.0.83,page.service.enabled=true,page.allowedHosts={status.example},networkPolicy.pageNamespaces={proxies},traces.otlpEndpoint=http://collector:4317,listen=[::],priorityClassName=system-cluster-critical,nodeSelector.disk=ssd,image.pullSecrets={one}",
    "--set-json",
    r#"tolerations=[{"key":"a","operator":"Exists"}],hostAliases=[{"ip":"192.0.2.1","hostnames":["etcd-0.internal"]}],dnsConfig={"nameservers":["192.0.2.53"],"searches":["example.com"],"options":[{"name":"ndots","value":"1"}]}"#,
    "--set-json",
    r#"extraArgs=["--page-hosts=status.example"],extraEnv=[{"name":"HTTPS_PROXY","value":"http://proxy:3128"}],extraVolumes=[{"name":"ca","configMap":{"name":"ca"}}],extraVolumeMounts=[{"name":"ca","mountPath":"/etc/ca","readOnly":true}]"#,
    "--set-json",
    r#"metrics.serviceMonitor.relabelings=[{"action":"labeldrop","regex":"pod"}],metrics.podMonitor.metricRelabelings=[{"action":"drop","sourceLabels":["__name__"],"regex":"go_.*"}]"#,
    "--set-json",
    r#"affinity.nodeAffinity={"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"disk","operator":"Exists"}]}]}}"#,
    "--set-json",
    r#"serviceRegistries={"chart-main":{"etcd":{"endpoints":["http://etcd:2379"]},"format":"Kitex","allowed":[{"namespaceSelector":{},"registryNames":["*"]}]}}"#,
];

/// Kinds of the Prometheus operator. The API server does not know their fields here; the operator's own types do.
const STAND_INS: [(&str, &str); 3] =
    [("ServiceMonitor", "servicemonitors"), ("PodMonitor", "podmonitors"), ("PrometheusRule", "prometheusrules")];

pub async fn every_object_is_taken_by_the_api_server(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    stand_ins(bed).await?;
    let helm = Helm::find()?;
    let mut kinds = BTreeSet::new();
    for values in [&[][..], &EVERYTHING, &["--set", "runAsUser=null", "--set-json", "topologySpread.topologyKeys=[]"]] {
        for object in helm.objects(values)? {
            let object: DynamicObject = serde_json::from_value(serde_json::to_value(object)?)?;
            let kind = object.types.clone().context("an object without a kind")?.kind;
            accepted(&bed.client(), &object)
                .await
                .with_context(|| format!("{values:?}: {kind} {}", object.name_any()))?;
            if kind == "Deployment" {
                let pod = pod(&object)?;
                accepted(&bed.client(), &pod).await.with_context(|| format!("{values:?}: the Deployment's pod"))?;
                arguments_are_known(&pod).await.with_context(|| format!("{values:?}: its arguments"))?;
            }
            if STAND_INS.iter().any(|(known, _)| *known == kind) {
                prometheus::decodes(&kind, &serde_json::to_value(&object)?)
                    .await
                    .with_context(|| format!("{values:?}"))?;
            }
            kinds.insert(kind);
        }
    }
    ensure!(kinds.len() == 18, "{kinds:?}");

    // The check would have found an unknown field.
    for (kind, _) in STAND_INS {
        let refused = prometheus::decodes(kind, &json!({"kind": kind, "spec": {"endpoint": []}})).await;
        let refused = refused.err().context("an unknown field was taken")?;
        ensure!(format!("{refused:#}").contains("unknown field \"endpoint\""), "{refused:#}");
    }
    let mut wrong = pod(&deployment(&helm)?)?;
    wrong.data["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
    let refused = accepted(&bed.client(), &wrong).await.err().context("a pod with privileges was taken")?;
    ensure!(format!("{refused:#}").contains("violates PodSecurity \"restricted"), "{refused:#}");
    let mut wrong = deployment(&helm)?;
    wrong.data["spec"]["replica"] = json!(1);
    let refused = accepted(&bed.client(), &wrong).await.err().context("an unknown field was taken")?;
    ensure!(format!("{refused:#}").contains("replica"), "{refused:#}");
    Ok(())
}

/// The base for kustomize has the objects of the CRDs and of `deploy/twinspan.yaml`, and no others.
pub async fn the_kustomization_is_the_plain_manifests(_: Arc<Suite>) -> Result<()> {
    let kubectl = twinspan_testbed::namespace::binary("controlplane")?;
    let output = Command::new(kubectl).arg("kubectl").arg("kustomize").arg(repository()).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = |text: &str| -> Result<BTreeSet<String>> {
        Ok(twinspan_chart::helm::objects(text)?.iter().map(twinspan_chart::helm::name).collect())
    };
    let mut plain = BTreeSet::new();
    for file in ["crds/registeredservices.yaml", "crds/serviceregistries.yaml", "deploy/twinspan.yaml"] {
        plain.extend(names(&std::fs::read_to_string(repository().join(file))?)?);
    }
    let built = names(&String::from_utf8(output.stdout)?)?;
    ensure!(built == plain && built.len() > 10, "{built:?}, want {plain:?}");
    Ok(())
}

fn deployment(helm: &Helm) -> Result<DynamicObject> {
    let object =
        helm.objects(&[])?.into_iter().find(|object| object["kind"] == "Deployment").context("no Deployment")?;
    Ok(serde_json::from_value(serde_json::to_value(object)?)?)
}

/// The pod that a Deployment's controller would create.
fn pod(deployment: &DynamicObject) -> Result<DynamicObject> {
    let template = &deployment.data["spec"]["template"];
    let mut pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
    pod["metadata"]["name"] = json!("twinspan-0");
    pod["metadata"]["namespace"] = json!(OPERATOR_NAMESPACE);
    Ok(serde_json::from_value(pod)?)
}

/// The program accepts the arguments, and gets as far as looking for a cluster.
async fn arguments_are_known(pod: &DynamicObject) -> Result<()> {
    let args: Vec<String> = serde_json::from_value(pod.data["spec"]["containers"][0]["args"].clone())?;
    let output = Command::new(TWINSPAN).args(&args).arg("--kubeconfig=/nowhere").output().await?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && text.contains("no kubeconfig at /nowhere"), "{args:?}: {text}");
    Ok(())
}

/// Server-side dry run; `Ok` if the API server would store the object.
async fn accepted(client: &Client, object: &DynamicObject) -> Result<()> {
    let types = object.types.clone().context("an object without a kind")?;
    let (resource, capabilities) = kube::discovery::pinned_kind(client, &GroupVersionKind::try_from(&types)?).await?;
    let namespaced = capabilities.scope == kube::discovery::Scope::Namespaced;
    ensure!(namespaced == object.namespace().is_some(), "its namespace is said where it has one");
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut params = PatchParams::apply("dry-run").force();
    params.dry_run = true;
    params.field_validation = Some(ValidationDirective::Strict);
    api.patch(&object.name_any(), &params, &Patch::Apply(object)).await?;
    Ok(())
}

async fn stand_ins(bed: &Bed) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(bed.client());
    for (kind, plural) in STAND_INS {
        let anything: Value = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let crd: CustomResourceDefinition = serde_json::from_value(json!({
            "metadata": {
                "name": format!("{plural}.monitoring.coreos.com"),
                // The name of the group needs an approval of Kubernetes.
                "annotations": {"api-approved.kubernetes.io": "https://github.com/prometheus-operator/prometheus-operator"},
            },
            "spec": {
                "group": "monitoring.coreos.com", "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": anything}}],
            },
        }))?;
        crds.create(&PostParams::default(), &crd).await?;
        let group = GroupVersionKind::gvk("monitoring.coreos.com", "v1", kind);
        eventually("the stand-in is served", SOON, || async {
            kube::discovery::pinned_kind(&bed.client(), &group).await?;
            Ok(())
        })
        .await?;
    }
    Ok(())
}
