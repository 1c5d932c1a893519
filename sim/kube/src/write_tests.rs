//! The rules of writes, by direct access.

use serde_json::{Value, json};

use crate::{Cluster, Options, Status, read_yaml};

const CRD: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  names: {kind: Thing, plural: things}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1}
              color: {type: string, default: red}
          status:
            type: object
            properties:
              seen: {type: integer}
";

fn cluster() -> Cluster {
    Cluster::new(Options { crds: read_yaml(CRD).unwrap(), ..Options::default() })
}

fn thing(size: i64) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a", "namespace": "default"},
        "spec": {"size": size, "unknown": 1}, "status": {"seen": 9}})
}

fn refused(result: Result<Value, Status>) -> (u16, String) {
    let status = result.unwrap_err();
    (status.code, status.message)
}

#[tokio::test(start_paused = true)]
async fn a_custom_resource_has_defaults_a_generation_and_a_status_of_its_own() {
    let cluster = cluster();
    let created = cluster.create("person", thing(1)).unwrap();
    assert_eq!(created["spec"], json!({"size": 1, "color": "red"}));
    assert_eq!((&created["metadata"]["generation"], created.get("status")), (&json!(1), None));

    let patch = json!({"spec": {"size": 5}, "status": {"seen": 1, "unknown": 2}, "metadata": {"labels": {"a": "b"}}});
    let patched = cluster.patch_status("person", "things", "default", "a", patch).unwrap();
    assert_eq!((&patched["spec"]["size"], &patched["status"]), (&json!(1), &json!({"seen": 1})));
    assert_eq!((&patched["metadata"]["generation"], patched["metadata"].get("labels")), (&json!(1), None));

    let patch = json!({"spec": {"size": 5}, "status": {"seen": 7}});
    let patched = cluster.patch("person", "things", "default", "a", patch).unwrap();
    assert_eq!((&patched["spec"]["size"], &patched["status"]), (&json!(5), &json!({"seen": 1})));
    assert_eq!(patched["metadata"]["generation"], 2);

    let applied = cluster.apply("person", thing(6)).unwrap();
    assert_eq!((&applied["metadata"]["uid"], &applied["status"]), (&created["metadata"]["uid"], &json!({"seen": 1})));
    let (code, message) = refused(cluster.replace("person", thing(7)));
    assert_eq!(code, 422);
    assert!(
        message.ends_with("metadata.resourceVersion: Invalid value: 0: must be specified for an update"),
        "{message}"
    );
    let (code, message) = refused(cluster.patch("person", "things", "default", "a", json!({"spec": {"size": 0}})));
    assert_eq!(
        (code, message.contains("spec.size in body should be greater than or equal to 1")),
        (422, true),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn finalizers_put_a_deletion_off() {
    let cluster = cluster();
    let mut object = thing(1);
    object["metadata"]["finalizers"] = json!(["example.com/f"]);
    cluster.create("person", object).unwrap();
    cluster.delete("person", "things", "default", "a").unwrap();
    let waiting = cluster.get("things", "default", "a").unwrap();
    assert_eq!(
        (&waiting["metadata"]["deletionGracePeriodSeconds"], &waiting["metadata"]["generation"]),
        (&json!(0), &json!(2))
    );
    let (code, message) = refused(cluster.create("person", thing(1)));
    assert_eq!((code, message.starts_with("object is being deleted: ")), (409, true));
    let more = json!({"metadata": {"finalizers": ["example.com/f", "example.com/g"]}});
    assert_eq!(refused(cluster.patch("person", "things", "default", "a", more)).0, 422);
    cluster.patch("person", "things", "default", "a", json!({"metadata": {"finalizers": null}})).unwrap();
    assert_eq!(cluster.get("things", "default", "a"), None);
}

#[tokio::test(start_paused = true)]
async fn names_are_made_up_and_places_checked() {
    let cluster = cluster();
    let mut object = thing(1);
    object["metadata"] = json!({"generateName": "b-", "namespace": "default"});
    let [first, second] = [(); 2].map(|()| cluster.create("person", object.clone()).unwrap());
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
    assert!(first["metadata"]["name"].as_str().unwrap().starts_with("b-"));
    object["metadata"]["namespace"] = json!("nowhere");
    assert_eq!(refused(cluster.create("person", object)), (404, "namespaces \"nowhere\" not found".to_owned()));
    assert_eq!(refused(cluster.create("person", json!({"kind": "Other", "apiVersion": "v1"}))).0, 404);
    assert_eq!(refused(cluster.patch_status("person", "leases", "default", "a", json!({}))).0, 404);
}

#[tokio::test(start_paused = true)]
async fn equal_runs_give_equal_histories() {
    let run = || {
        let cluster = cluster();
        cluster.create("person", thing(1)).unwrap();
        cluster.patch("person", "things", "default", "a", json!({"spec": {"size": 2}})).unwrap();
        cluster.delete("person", "things", "default", "a").unwrap();
        format!("{:?}", cluster.changes(0))
    };
    assert_eq!(run(), run());
}

#[tokio::test(start_paused = true)]
async fn answers_tell_the_time_and_requests_their_author() {
    let cluster = cluster();
    let client = kube::Client::new(cluster.server(0), "default");
    tokio::time::sleep(std::time::Duration::from_secs(90)).await;
    let request =
        http::Request::post("/apis/example.com/v1/namespaces/default/things").header(crate::AUTHOR, "replica-a");
    let body = kube::client::Body::from(thing(1).to_string().into_bytes());
    let answer = client.send(request.body(body).unwrap()).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["date"]),
        (201, &"Thu, 01 Jan 2026 00:01:30 GMT".parse().unwrap())
    );
    let change = cluster.changes(0).pop().unwrap();
    assert_eq!((&*change.author, &*change.resource, change.at.as_secs()), ("replica-a", "things", 90));
}
