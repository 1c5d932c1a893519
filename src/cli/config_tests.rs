//! Tests of the choice of the cluster.

use kube::config::Kubeconfig;

use super::*;

fn file(text: &str) -> Kubeconfig {
    Kubeconfig::from_yaml(text).unwrap()
}

const FILE: &str = "
current-context: here
contexts:
- {name: here, context: {cluster: one, user: alice, namespace: shop}}
- {name: there, context: {cluster: two, user: nobody}}
clusters:
- {name: one, cluster: {server: 'https://10.77.0.1:6443', proxy-url: 'http://bastion:3128', tls-server-name: kubernetes}}
- {name: two, cluster: {server: 'https://10.77.0.2:6443', insecure-skip-tls-verify: true}}
- {name: odd, cluster: {server: 'not a url'}}
users:
- {name: alice, user: {token: a}}
- {name: bob, user: {token: b}}
";

fn of(change: impl FnOnce(&mut Access)) -> Result<Config, ConfigError> {
    let mut access = Access::default();
    change(&mut access);
    of_file(file(FILE), &access)
}

#[test]
fn context_cluster_and_user_are_chosen_as_by_kubectl() {
    let here = of(|_| {}).unwrap();
    assert_eq!(here.cluster_url, "https://10.77.0.1:6443");
    assert_eq!((here.default_namespace.as_str(), here.tls_server_name.as_deref()), ("shop", Some("kubernetes")));
    assert_eq!(here.proxy_url.unwrap(), "http://bastion:3128/");
    let there = of(|access| access.context = Some("there".to_owned())).unwrap();
    assert_eq!((there.cluster_url.to_string().as_str(), there.accept_invalid_certs), ("https://10.77.0.2:6443/", true));
    assert_eq!(there.default_namespace, "default");
    let token = |config: Config| serde_json::to_value(config.auth_info).unwrap()["token"].clone();
    assert_eq!(token(there), serde_json::Value::Null, "a context may name a user that is not there");
    let both = of(|access| (access.cluster, access.user) = (Some("two".to_owned()), Some("bob".to_owned()))).unwrap();
    assert_eq!(both.cluster_url, "https://10.77.0.2:6443");
    assert_eq!(token(both), "b");
}

#[test]
fn what_is_not_in_the_kubeconfig_is_named() {
    let text = |result: Result<Config, ConfigError>| result.unwrap_err().to_string();
    for (kind, found) in [
        ("context", of(|access| access.context = Some("x".to_owned()))),
        ("cluster", of(|access| access.cluster = Some("x".to_owned()))),
        ("user", of(|access| access.user = Some("x".to_owned()))),
    ] {
        assert!(text(found).starts_with(&format!("the kubeconfig has no {kind} \"x\"")), "{kind}");
    }
    assert!(text(of(|access| access.cluster = Some("odd".to_owned()))).contains("cluster \"odd\" in the kubeconfig"));
    let without = of_file(file("{}"), &Access::default());
    assert!(matches!(without, Err(ConfigError::NoContext)), "{without:?}");
}

#[test]
fn a_group_needs_somebody_in_it() {
    let access = Access { impersonate_groups: vec!["g".to_owned()], ..Access::default() };
    assert!(matches!(config(&access), Err(ConfigError::NobodyInGroup)));
}

#[test]
fn a_missing_kubeconfig_is_one_plain_sentence() {
    let named = Access { kubeconfig: Some("/nope".into()), ..Access::default() };
    let text = config(&named).unwrap_err().to_string();
    assert_eq!(text, "no kubeconfig at /nope (--kubeconfig, TWINSPAN_KUBECONFIG)");
    let nowhere = ConfigError::Nowhere { paths: "/nope".to_owned(), names: NAMED }.to_string();
    assert_eq!(nowhere, "no kubeconfig at /nope (KUBECONFIG, --kubeconfig); not in a cluster either");
}
