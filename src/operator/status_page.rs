//! The status page of the process: its address, and what it is made of.
//!
//! Owns the rule about an address that is taken. Refuses to know lines and explanations: the page has them, and the
//! command line hands in how a service is explained.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tracing::warn;
use twinspan_core::model::ServiceKey;

use super::OperatorError;
use crate::cluster::status_writer::StatusWriter;
use crate::controllers::views::Views;
use crate::page::detail::Detail;
use crate::page::door::Hosts;

/// Where the page is served unless somebody says otherwise: in the pod alone.
const PAGE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8082);

/// How one service is explained.
pub type Explain = fn(&Views, &StatusWriter, &ServiceKey, bool) -> Option<Detail>;

/// An address of the page, and its contents.
#[derive(Debug)]
pub struct StatusPage {
    pub(super) listener: TcpListener,
    pub(super) hosts: Hosts,
    pub(super) explain: Explain,
}

impl StatusPage {
    /// Listens at an address, or at [`PAGE`] where none is given. Several operators on one machine have the same, and
    /// the bridge does not depend on the convenience of a page: one that finds it taken runs without.
    ///
    /// # Errors
    /// [`OperatorError::Page`] if the given address cannot be had.
    pub async fn open(
        address: Option<SocketAddr>,
        hosts: Hosts,
        explain: Explain,
    ) -> Result<Option<Self>, OperatorError> {
        match (TcpListener::bind(address.unwrap_or(PAGE)).await, address) {
            (Ok(listener), _) => Ok(Some(Self { listener, hosts, explain })),
            (Err(source), Some(address)) => Err(OperatorError::Page { address, source }),
            (Err(error), None) => {
                warn!(
                    "the status page is not served, for {PAGE} cannot be had: {error}; set --page-addr, or turn it off with --page-addr=off"
                );
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_was_asked_for_has_to_be_free() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let opened = StatusPage::open(Some(address), Hosts::default(), |_, _, _, _| None).await;
        let error = opened.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--page-addr"), "{error}");
        drop(taken);
        let opened = StatusPage::open(Some(address), Hosts::default(), |_, _, _, _| None).await;
        assert!(opened.unwrap().is_some());
    }

    #[tokio::test]
    async fn the_usual_address_may_be_taken() {
        // Another process of this machine may have it already.
        let _taken = TcpListener::bind(PAGE).await;
        assert!(StatusPage::open(None, Hosts::default(), |_, _, _, _| None).await.unwrap().is_none());
    }
}
