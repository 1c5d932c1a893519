//! A way to the status page of the leader: a local port whose connections go to its pod, as `kubectl port-forward`
//! makes one.
//!
//! - [`target`]: the leader's pod, and the port of the page there.
//!
//! Owns the local port and its connections. When another replica leads, connections to the former one end, and a
//! browser that connects again comes to the new one. Refuses to know the page.

mod target;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::causes::of_kube;
use crate::env::Env;

pub use target::Target;

/// Interval of the looks at who leads.
const LOOK: Duration = Duration::from_secs(2);
/// Connections at once; a browser has six.
const CONNECTIONS: usize = 64;
/// Time for one request to the API server, or for the first answer of the page.
const ANSWERED: Duration = Duration::from_secs(15);

/// The reason why there is no way to the page.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error(
        "no leader in namespace {0}; start the operator, or say with --operator-namespace where it is; see twinspan doctor"
    )]
    NobodyLeads(String),
    #[error("cannot read Lease twinspan in namespace {namespace}: {text}; to open the page you need get on that Lease")]
    Lease { namespace: String, text: String },
    #[error("the leader {pod} is no pod of namespace {namespace}; if it runs elsewhere, open its page there")]
    NoPod { pod: String, namespace: String },
    #[error("cannot read pod {pod} in namespace {namespace}: {text}; try again, or give the port with --page-port")]
    Pod { pod: String, namespace: String, text: String },
    #[error(
        "cannot forward a port to pod {pod}: {text}; to open the page you need create and get on pods/portforward in namespace {namespace}"
    )]
    Refused { pod: String, namespace: String, text: String },
    #[error("the leader's pod {0} serves no status page: it runs with --page-addr=off")]
    Off(String),
    #[error(
        "no status page answers at port {port} of pod {pod} ({text}); see its --page-addr and its log, or give the port with --page-port"
    )]
    Silent { pod: String, port: u16, text: String },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// A local port, and the pod to which it leads now.
pub struct Forward {
    client: Client,
    namespace: String,
    /// The port of the page, where it is not to be read from the pod.
    port: Option<u16>,
    listener: TcpListener,
    address: SocketAddr,
    target: watch::Sender<Target>,
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Forward {
    /// Listens on a free local port, once the page of the leader has answered.
    ///
    /// # Errors
    /// [`ForwardError`], which says what is missing.
    pub async fn open(client: &Client, namespace: &str, port: Option<u16>) -> Result<Self, ForwardError> {
        let target = Target::find(client, namespace, port).await?;
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let failed = |source| ForwardError::Listen { address: wanted, source };
        let listener = TcpListener::bind(wanted).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let target = watch::Sender::new(target);
        let forward = Self { client: client.clone(), namespace: namespace.to_owned(), port, listener, address, target };
        forward.try_page().await?;
        Ok(forward)
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The pod to which new connections go.
    pub fn pod(&self) -> String {
        self.target.borrow().pod.clone()
    }

    /// Forwards until it is dropped. `tell` learns of a new leader, and of what fails meanwhile.
    pub async fn run(self, tell: impl Fn(&str)) {
        let mut connections = JoinSet::new();
        let mut look = interval(LOOK);
        let mut failed = None;
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS => {
                    // An error here is one of the machine, such as no file left, and passes.
                    let Ok((stream, _)) = accepted else { tokio::time::sleep(LOOK).await; continue };
                    Env::real().spawn_in(&mut connections, self.connection(stream));
                }
                Some(ended) = connections.join_next() => {
                    if let Ok(Err(error)) = ended {
                        once(&mut failed, &error, &tell);
                    }
                }
                _ = look.tick() => match Target::find(&self.client, &self.namespace, self.port).await {
                    Ok(target) => {
                        failed = None;
                        let changed = self.target.send_if_modified(|now| {
                            let changed = *now != target;
                            *now = target;
                            changed
                        });
                        if changed {
                            tell(&format!("{} leads now, and new connections go there", self.pod()));
                        }
                    }
                    Err(error) => once(&mut failed, &error, &tell),
                },
            }
        }
    }

    /// One connection, until it ends or another pod leads.
    fn connection(&self, mut local: TcpStream) -> impl Future<Output = Result<(), ForwardError>> + Send + use<> {
        let (client, namespace) = (self.client.clone(), self.namespace.clone());
        let mut target = self.target.subscribe();
        async move {
            let to = target.borrow_and_update().clone();
            let mut remote = connect(&client, &namespace, &to).await?;
            tokio::select! {
                // Either end may go at any time.
                _ = copy_bidirectional(&mut local, &mut remote) => {}
                _ = target.changed() => {}
            }
            Ok(())
        }
    }

    /// Asks the page for its head: a port that nobody listens on accepts connections all the same.
    async fn try_page(&self) -> Result<(), ForwardError> {
        let target = self.target.borrow().clone();
        let mut remote = connect(&self.client, &self.namespace, &target).await?;
        let asked = async {
            remote.write_all(b"HEAD / HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
            let mut answer = Vec::new();
            (&mut remote).take(4096).read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let silent = |text: String| ForwardError::Silent { pod: target.pod.clone(), port: target.port, text };
        let answer = timeout(ANSWERED, asked).await.map_err(|_| silent("it takes too long".to_owned()))?;
        let answer = answer.map_err(|error| silent(error.to_string()))?;
        let status = String::from_utf8_lossy(&answer);
        match status.split(' ').nth(1) {
            Some("200") if status.starts_with("HTTP/1.") => Ok(()),
            Some(code) if status.starts_with("HTTP/1.") => Err(silent(format!("it answers with {code}"))),
            _ => Err(silent("the connection ends at once".to_owned())),
        }
    }
}

/// Says an error that was not said last.
fn once(last: &mut Option<String>, error: &ForwardError, tell: &impl Fn(&str)) {
    let text = error.to_string();
    if last.as_ref() != Some(&text) {
        tell(&text);
        *last = Some(text);
    }
}

/// A connection to the page of a pod.
async fn connect(
    client: &Client,
    namespace: &str,
    target: &Target,
) -> Result<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + use<>, ForwardError> {
    let refused =
        |text: String| ForwardError::Refused { pod: target.pod.clone(), namespace: namespace.to_owned(), text };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let asked = timeout(ANSWERED, pods.portforward(&target.pod, &[target.port])).await;
    let forwarded = asked.map_err(|_| refused("the API server does not answer".to_owned()))?;
    let mut forwarder = match forwarded {
        Ok(forwarder) => forwarder,
        Err(kube::Error::Api(status)) if status.code == 404 => {
            return Err(ForwardError::NoPod { pod: target.pod.clone(), namespace: namespace.to_owned() });
        }
        Err(error) => return Err(refused(of_kube(&error))),
    };
    forwarder.take_stream(target.port).ok_or_else(|| refused("no stream was opened".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fake_api::FakeApi;

    #[tokio::test]
    async fn a_leader_that_is_no_pod_is_told_from_a_right_that_is_missing() {
        let api = FakeApi::default();
        let (client, target) = (api.client(), Target { pod: "twinspan-0".to_owned(), port: 8082 });
        api.refuse("/portforward", 404);
        let error = connect(&client, "twinspan-system", &target).await.err();
        assert!(matches!(error, Some(ForwardError::NoPod { .. })), "{error:?}");
        api.refuse("/portforward", 403);
        let error = connect(&client, "twinspan-system", &target).await.err();
        assert!(matches!(error, Some(ForwardError::Refused { .. })), "{error:?}");
    }
}
