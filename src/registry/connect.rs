//! The maker of connectors: a session has one of its own, with the settings of its ServiceRegistry.
//!
//! Owns the way from settings to a connector. Refuses to connect.

use std::fmt;
use std::sync::Arc;

use super::Connector;
use super::etcd::{EtcdConnector, Settings};
use super::observed::{Observe, Observed};

type Make = dyn Fn(&Settings) -> Arc<dyn Connector> + Send + Sync;

/// Makes the connector of a session; clones make the same.
#[derive(Clone)]
pub struct Connect {
    make: Arc<Make>,
    observe: Option<Observe>,
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connect")
    }
}

impl Connect {
    /// Connects to etcd over TCP.
    pub fn to_etcd() -> Self {
        Self::by(|settings| Arc::new(EtcdConnector::new(settings.clone())))
    }

    /// Connects in another way.
    pub fn by(make: impl Fn(&Settings) -> Arc<dyn Connector> + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), observe: None }
    }

    /// The same, with somebody who is told of every call.
    #[must_use]
    pub fn observed(self, observe: Observe) -> Self {
        Self { observe: Some(observe), ..self }
    }

    /// The connector of a ServiceRegistry's session.
    pub fn connector(&self, registry: &str, settings: &Settings) -> Arc<dyn Connector> {
        let connector = (self.make)(settings);
        match &self.observe {
            Some(observe) => Arc::new(Observed::new(connector, registry, observe.clone())),
            None => connector,
        }
    }
}
