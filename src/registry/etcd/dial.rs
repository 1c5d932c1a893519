//! The way to one endpoint.
//!
//! Owns the client of a real connection. Refuses to choose the endpoint and its options, which [`super::connect`] does.

use std::fmt;

use async_trait::async_trait;
use etcd_client::{Client, ConnectOptions, Error};

/// Makes the client of one endpoint.
#[async_trait]
pub trait Dialer: Send + Sync + fmt::Debug {
    /// # Errors
    /// Those of etcd's client.
    async fn dial(&self, endpoint: &str, options: ConnectOptions) -> Result<Client, Error>;
}

/// Dials over TCP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tcp;

#[async_trait]
impl Dialer for Tcp {
    async fn dial(&self, endpoint: &str, options: ConnectOptions) -> Result<Client, Error> {
        Client::connect([endpoint], Some(options)).await
    }
}
