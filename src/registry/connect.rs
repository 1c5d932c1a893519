//! The maker of connectors: a session has one of its own, with the settings of its ServiceRegistry.
//!
//! Owns the way from settings to a connector. Refuses to connect.

use std::fmt;
use std::sync::Arc;

use super::Connector;
use super::etcd::{EtcdConnector, Settings};

type Make = dyn Fn(&Settings) -> Arc<dyn Connector> + Send + Sync;

/// Makes the connector of a session; clones make the same.
#[derive(Clone)]
pub struct Connect(Arc<Make>);

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
        Self(Arc::new(make))
    }

    pub fn connector(&self, settings: &Settings) -> Arc<dyn Connector> {
        (self.0)(settings)
    }
}
