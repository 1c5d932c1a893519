//! The pod that leads, and the port of its status page.
//!
//! Owns the rule by which a pod tells its port: the argument, then the variable, then the usual one. Refuses to
//! connect.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::time::timeout;

use super::{ANSWERED, ForwardError};
use crate::causes::of_kube;
use crate::env::Env;
use crate::leadership::leader;

const ARGUMENT: &str = "--page-addr";
const VARIABLE: &str = "TWINSPAN_PAGE_ADDR";
/// Where the page is unless a pod says otherwise.
const USUAL: u16 = 8082;

/// A pod, and the port of the page in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub pod: String,
    pub port: u16,
}

/// The setting of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Setting {
    Off,
    Port(u16),
}

impl Target {
    /// The leader's pod in a namespace; `port` is that of the page, where it is known already.
    ///
    /// # Errors
    /// [`ForwardError`] if nobody leads, the pod serves no page, or something could not be read.
    pub async fn find(client: &Client, namespace: &str, port: Option<u16>) -> Result<Self, ForwardError> {
        let failed = |text: String| ForwardError::Lease { namespace: namespace.to_owned(), text };
        let holder = timeout(ANSWERED, leader(client, namespace, Env::real().now())).await;
        let holder = holder.map_err(|_| failed("the API server does not answer".to_owned()))?;
        let holder = holder.map_err(|error| failed(of_kube(&error)))?;
        let holder = holder.ok_or_else(|| ForwardError::NobodyLeads(namespace.to_owned()))?;
        // A replica is named by its pod and a random number.
        let pod = holder.rsplit_once('_').map_or(holder.as_str(), |(pod, _)| pod).to_owned();
        let port = match port {
            Some(port) => port,
            None => port_of(client, namespace, &pod).await?,
        };
        Ok(Self { pod, port })
    }
}

/// The port of the page in a pod. A look that fails is an error: with the usual port instead, connections to a page
/// elsewhere would end.
async fn port_of(client: &Client, namespace: &str, pod: &str) -> Result<u16, ForwardError> {
    let (pod, namespace) = (pod.to_owned(), namespace.to_owned());
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    match timeout(ANSWERED, pods.get_opt(&pod)).await {
        Ok(Ok(None)) => Err(ForwardError::NoPod { pod, namespace }),
        Ok(Ok(Some(object))) => match setting(&object) {
            Setting::Off => Err(ForwardError::Off(pod)),
            Setting::Port(port) => Ok(port),
        },
        // The right to forward a port does not include that to read pods.
        Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => Ok(USUAL),
        Ok(Err(error)) => Err(ForwardError::Pod { pod, namespace, text: of_kube(&error) }),
        Err(_) => Err(ForwardError::Pod { pod, namespace, text: "the API server does not answer".to_owned() }),
    }
}

/// The setting that the containers of a pod have.
fn setting(pod: &Pod) -> Setting {
    let containers = || pod.spec.iter().flat_map(|spec| &spec.containers);
    let arguments = containers().flat_map(|container| {
        let all: Vec<&str> = container.command.iter().chain(&container.args).flatten().map(String::as_str).collect();
        let joined = all.clone().into_iter().filter_map(|arg| arg.strip_prefix(ARGUMENT)?.strip_prefix('='));
        let apart = all.windows(2).filter(|pair| pair[0] == ARGUMENT).map(|pair| pair[1]);
        joined.chain(apart).map(str::to_owned).collect::<Vec<_>>()
    });
    let variables = containers().flat_map(|container| container.env.iter().flatten());
    let variable = variables.filter(|variable| variable.name == VARIABLE).find_map(|variable| variable.value.clone());
    let Some(text) = arguments.last().or(variable) else { return Setting::Port(USUAL) };
    if text == "off" {
        return Setting::Off;
    }
    let port = text.parse::<SocketAddr>().map(|address| address.port()).ok();
    let port = port.or_else(|| text.strip_prefix(':')?.parse().ok());
    Setting::Port(port.unwrap_or(USUAL))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::fake_api::FakeApi;

    #[tokio::test]
    async fn only_a_right_that_is_missing_leads_to_the_usual_port() {
        let api = FakeApi::default();
        let client = api.client();
        let container = json!({"name": "twinspan", "args": ["run", "--page-addr=:9002"]});
        let pod = json!({"metadata": {"name": "twinspan-0"}, "spec": {"containers": [container]}});
        api.put("/api/v1/namespaces/twinspan-system/pods/twinspan-0", pod);
        let port = port_of(&client, "twinspan-system", "twinspan-0").await;
        assert!(matches!(port, Ok(9002)), "{port:?}");
        let port = port_of(&client, "twinspan-system", "twinspan-1").await;
        assert!(matches!(port, Err(ForwardError::NoPod { .. })), "{port:?}");
        api.refuse("/pods/", 403);
        let port = port_of(&client, "twinspan-system", "twinspan-0").await;
        assert!(matches!(port, Ok(USUAL)), "{port:?}");
        api.refuse("/pods/", 500);
        let port = port_of(&client, "twinspan-system", "twinspan-0").await;
        assert!(matches!(port, Err(ForwardError::Pod { .. })), "{port:?}");
    }

    #[test]
    fn the_port_is_that_of_the_argument_then_of_the_variable() {
        let of = |args: serde_json::Value, env: serde_json::Value| {
            let container = json!({"name": "twinspan", "args": args, "env": env});
            setting(&serde_json::from_value(json!({"spec": {"containers": [container]}})).unwrap())
        };
        let variable = json!([{"name": VARIABLE, "value": "0.0.0.0:9001"}]);
        assert_eq!(of(json!(["run"]), json!([])), Setting::Port(8082));
        assert_eq!(of(json!(["run"]), variable.clone()), Setting::Port(9001));
        assert_eq!(of(json!(["run", "--page-addr=127.0.0.1:9000"]), variable.clone()), Setting::Port(9000));
        assert_eq!(of(json!(["run", "--page-addr", ":9002"]), json!([])), Setting::Port(9002));
        assert_eq!(of(json!(["run", "--page-addr=[::]:9003"]), json!([])), Setting::Port(9003));
        assert_eq!(of(json!(["run", "--page-addr=off"]), variable), Setting::Off);
    }
}
