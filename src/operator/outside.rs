//! The outside of the process: the clients of the API server, the connectors of registries, the prober, the addresses
//! of the admin pages, of the status page and for pods that end, and the socket of the pod.
//!
//! Owns how a real process gets them. Refuses to use any of them. A simulation hands in its own.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use kube::{Client, Config};
use tokio::net::TcpListener;

use super::OperatorError;
use super::inside::Inside;
use super::status_page::StatusPage;
use crate::causes::of_kube;
use crate::cluster;
use crate::env::Env;
use crate::probe::{Prober, TcpProber};
use crate::registry::Connect;
use crate::telemetry::metrics::Metrics;

/// The ways out of the process.
pub struct Outside {
    /// The client of the Lease, with connections of its own.
    pub lease: Client,
    /// The client of everything else.
    pub rest: Client,
    /// The address of the API server, for the log.
    pub server: String,
    /// The metrics of the clients and of everything else.
    pub metrics: Arc<Metrics>,
    pub connect: Connect,
    pub prober: Arc<dyn Prober>,
    /// Where the admin pages are served; nowhere in a simulation.
    pub admin: Option<TcpListener>,
    /// The socket for commands in the same pod, if there is one.
    pub inside: Option<Inside>,
    /// The status page, if it is served.
    pub page: Option<StatusPage>,
    /// Where pods that end ask, if they may.
    pub drain: Option<TcpListener>,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Outside {
    /// The real outside.
    ///
    /// # Errors
    /// [`OperatorError::Client`] if the configuration cannot be used, [`OperatorError::Admin`] if the address cannot.
    pub async fn open(config: Config, admin: SocketAddr, env: &Env) -> Result<Self, OperatorError> {
        let (server, metrics) = (config.cluster_url.to_string(), Arc::default());
        let refused = |error: kube::Error| OperatorError::Client(of_kube(&error));
        let lease = cluster::client::lease_client(config.clone(), env, &metrics).map_err(refused)?;
        let rest = cluster::client::client(config, env, &metrics).map_err(refused)?;
        let failed = |source| OperatorError::Admin { address: admin, source };
        let listener = TcpListener::bind(admin).await.map_err(failed)?;
        Ok(Self {
            lease,
            rest,
            server,
            metrics,
            connect: Connect::to_etcd(),
            prober: Arc::new(TcpProber),
            admin: Some(listener),
            inside: None,
            page: None,
            drain: None,
        })
    }
}
