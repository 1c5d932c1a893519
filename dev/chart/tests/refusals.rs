//! A wrong value for every key of `values.schema.json`, made from the schema so that none is forgotten: the refusal
//! names the key and the allowed values. Every object of the values refuses unknown keys.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value, json};
use twinspan_chart::helm::Helm;
use twinspan_chart::{chart, read};

/// One wrong value: its place, and the expected text of the refusal.
struct Case {
    values: Value,
    says: Vec<String>,
}

/// A step from the top of the values to a key.
#[derive(Clone)]
enum Step {
    Key(String),
    Item,
}

const NAME: &str = "main";
const UNKNOWN: &str = "nobodyKnowsThis";

/// The values with `value` at the end of the path, and every required key on the way.
fn at(schema: &Value, path: &[Step], value: Value) -> Value {
    let Some((step, rest)) = path.split_first() else { return value };
    match step {
        Step::Item => Value::Array(vec![at(&schema["items"], rest, value)]),
        Step::Key(key) => {
            let mut object = sound_object(schema);
            object.insert(key.clone(), at(below(schema, key), rest, value));
            Value::Object(object)
        }
    }
}

fn below<'a>(schema: &'a Value, key: &str) -> &'a Value {
    schema["properties"].get(key).unwrap_or(&schema["additionalProperties"])
}

/// The required keys of an object.
fn sound_object(schema: &Value) -> Map<String, Value> {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    required.map(|key| (key.to_owned(), sound(below(schema, key)))).collect()
}

/// A value that the schema accepts.
fn sound(schema: &Value) -> Value {
    // Of several types the first.
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match (kind, schema["enum"].as_array()) {
        (_, Some(all)) => all[0].clone(),
        (Some("object"), _) => Value::Object(sound_object(schema)),
        (Some("array"), _) => json!([sound(&schema["items"])]),
        (Some("string"), _) => {
            let pattern = schema["pattern"].as_str().unwrap_or_default();
            json!(if pattern.contains("https") { "http://etcd:2379" } else { "x" })
        }
        other => panic!("no sound value is known for {other:?}"),
    }
}

/// The form in which Helm shows a path.
fn pointer(path: &[Step]) -> String {
    let step = |step: &Step| match step {
        Step::Key(key) => format!("/{key}"),
        Step::Item => "/0".to_owned(),
    };
    format!("at '{}'", path.iter().map(step).collect::<String>())
}

/// Every wrong value of the schema below `path`.
fn walk(root: &Value, schema: &Value, path: &[Step], cases: &mut Vec<Case>) {
    let mut wrong = |value: Value, says: &[&str]| {
        let mut says: Vec<String> = says.iter().map(|text| (*text).to_owned()).collect();
        says.push(pointer(path));
        cases.push(Case { values: at(root, path, value), says });
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        other => panic!("{}: no type but {other}", pointer(path)),
    };
    // At the top Helm reads only an object.
    if !path.is_empty() {
        let other = if types.contains(&"boolean") { json!("yes") } else { json!(true) };
        wrong(other, &["want", types[0]]);
    }
    if let Some(all) = schema["enum"].as_array() {
        let names: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
        wrong(json!("somethingElse"), &names);
    }
    if let Some(least) = schema["minimum"].as_i64() {
        wrong(json!(least - 1), &["minimum", &least.to_string()]);
    }
    if let Some(most) = schema["maximum"].as_i64() {
        wrong(json!(most + 1), &["maximum", &most.to_string()]);
    }
    if schema["minLength"].as_u64().is_some() {
        wrong(json!(""), &["minLength"]);
    }
    if let Some(most) = schema["maxLength"].as_u64() {
        wrong(json!("x".repeat(usize::try_from(most).unwrap() + 1)), &["maxLength"]);
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        wrong(json!("% %"), &["does not match pattern", &pattern.replace('\\', "\\\\")]);
    }
    if let Some(least) = schema["minItems"].as_u64() {
        assert_eq!(least, 1);
        wrong(json!([]), &["minItems"]);
    }
    if let Some(most) = schema["maxItems"].as_u64() {
        let item = sound(&schema["items"]);
        wrong(Value::Array(vec![item; usize::try_from(most).unwrap() + 1]), &["maxItems"]);
    }
    if schema["maxProperties"].as_u64().is_some() {
        let many = (0..=schema["maxProperties"].as_u64().unwrap()).map(|n| (n.to_string(), json!("x"))).collect();
        wrong(Value::Object(many), &["maxProperties"]);
    }
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let mut object = sound_object(schema);
        object.remove(required);
        wrong(Value::Object(object), &["missing propert", required]);
    }
    let open = schema["additionalProperties"].is_null();
    if schema["additionalProperties"] == false {
        let mut object = sound_object(schema);
        object.insert(UNKNOWN.to_owned(), json!(1));
        wrong(Value::Object(object), &["additional properties", UNKNOWN]);
    }
    let step = |step: Step| [path, &[step]].concat();
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        assert!(inner["description"].as_str().is_some_and(|text| text.len() > 10), "{key}: no description");
        walk(root, inner, &step(Step::Key(key.clone())), cases);
    }
    if schema["additionalProperties"].is_object() {
        walk(root, &schema["additionalProperties"], &step(Step::Key(NAME.to_owned())), cases);
    }
    match &schema["items"] {
        Value::Null => assert!(!types.contains(&"array"), "{}: no items", pointer(path)),
        items => walk(root, items, &step(Step::Item), cases),
    }
    let global = matches!(path, [Step::Key(key)] if key == "global");
    assert!(!types.contains(&"object") || !open || global, "{}: open to every key", pointer(path));
}

fn refused(helm: &Helm, case: &Case) -> Result<(), String> {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("twinspan-values-{}-{number}.json", std::process::id()));
    std::fs::write(&file, case.values.to_string()).unwrap();
    let chart = chart().display().to_string();
    let args = ["template", "twinspan", &chart, "--values", &file.display().to_string()];
    let message = helm.refusal(&args).map_err(|error| format!("{error:#}: {}", case.values))?;
    std::fs::remove_file(&file).unwrap();
    // The message says 86,400; the schema says 86400.
    let message = message.replace(',', "");
    match case.says.iter().find(|wanted| !message.contains(&wanted.replace(',', ""))) {
        None => Ok(()),
        Some(wanted) => Err(format!("{} is refused without {wanted:?}:\n{message}", case.values)),
    }
}

/// Runs all of them, on as many threads as there are cores.
fn all_refused(cases: &[Case]) {
    let helm = Helm::find().unwrap();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = refused(&helm, case) {
                        failed.lock().unwrap().push(why);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

fn schema() -> Value {
    serde_json::from_str(&read(&chart().join("values.schema.json")).unwrap()).unwrap()
}

#[test]
fn a_wrong_value_for_every_key_of_the_schema() {
    let schema = schema();
    let mut cases = Vec::new();
    walk(&schema, &schema, &[], &mut cases);
    assert!(cases.len() > 150, "only {} cases were made", cases.len());
    all_refused(&cases);
}

#[test]
fn values_that_only_templates_can_judge() {
    let wrong = [
        (json!({"image": {"repository": "example.com/twinspan:1"}}), "image.repository: give registry and name only"),
        (json!({"image": {"repository": "twinspan@sha256:0"}}), "image.repository: give registry and name only"),
        (json!({"image": {"tag": "a b"}}), "image.tag: letters"),
        (json!({"image": {"digest": "sha256:abc"}}), "image.digest: 'sha256:' and 64"),
        (json!({"resources": {"requests": {"cpu": "much"}}}), "resources.requests.cpu: a quantity such as"),
        (json!({"resources": {"requests": {"memory": "1 GB"}}}), "resources.requests.memory: a quantity such as"),
        (json!({"resources": {"limits": {"cpu": "-1"}}}), "resources.limits.cpu: a quantity such as"),
        (json!({"resources": {"limits": {"memory": "1Gb"}}}), "resources.limits.memory: a quantity such as"),
        (json!({"traces": {"otlpEndpoint": "collector:4317"}}), "traces.otlpEndpoint: it has to begin with http://"),
        (json!({"metrics": {"serviceMonitor": {"interval": "30"}}}), "metrics.serviceMonitor.interval: a duration"),
        (
            json!({"metrics": {"prometheusRule": {"runbookBaseURL": "docs/operations.md"}}}),
            "metrics.prometheusRule.runbookBaseURL: a URL that begins with https://",
        ),
        (
            json!({"metrics": {"prometheusRule": {"alertLabels": {"severity": "page"}}}}),
            "metrics.prometheusRule.alertLabels: severity is the chart's own",
        ),
        (json!({"metrics": {"podMonitor": {"scrapeTimeout": "ten"}}}), "metrics.podMonitor.scrapeTimeout: a duration"),
        (
            json!({"commonLabels": {"app.kubernetes.io/name": "x"}}),
            "commonLabels: app.kubernetes.io/name is the chart's own",
        ),
        (
            json!({"commonAnnotations": {"helm.sh/resource-policy": "x"}}),
            "commonAnnotations: helm.sh/resource-policy is the chart's own",
        ),
        (json!({"extraEnv": [{"name": "RUST_LOG", "value": "x"}]}), "extraEnv: RUST_LOG is the chart's own"),
        (json!({"page": {"port": 8080}}), "page.port: 8080 is the port of health and metrics"),
        (
            json!({"page": {"enabled": false, "service": {"enabled": true}}}),
            "page.service.enabled: page.enabled is false",
        ),
        (json!({"dnsPolicy": "None"}), "dnsPolicy: None asks nobody; give dnsConfig.nameservers"),
        (
            json!({"podLabels": {"sidecar.istio.io/inject": "true"}}),
            "podLabels: sidecar.istio.io/inject is the chart's own",
        ),
        (json!({"podLabels": {"app.kubernetes.io/name": "x"}}), "podLabels: app.kubernetes.io/name is the chart's own"),
        (
            json!({"podAnnotations": {"linkerd.io/inject": "enabled"}}),
            "podAnnotations: linkerd.io/inject is the chart's own",
        ),
        (
            json!({"serviceRegistries": {"Main": {"format": "Kitex", "etcd": {"endpoints": ["http://etcd:2379"]}, "allowed": []}}}),
            "serviceRegistries: \"Main\" is no name",
        ),
    ];
    let cases: Vec<Case> =
        wrong.into_iter().map(|(values, says)| Case { values, says: vec![says.to_owned()] }).collect();
    all_refused(&cases);
}
