//! The status page of the process: its address, and what it is made of.
//!
//! Owns the rule about an address that is taken, and when the page knows everything. Refuses to know lines and
//! explanations: the page has them, and the command line hands in how a service is explained.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tracing::warn;
use twinspan_core::model::ServiceKey;

use super::OperatorError;
use crate::cluster::status_writer::StatusWriter;
use crate::controllers::views::Views;
use crate::page::Board;
use crate::page::detail::Detail;
use crate::page::door::Hosts;

/// Where the page is served unless somebody says otherwise: in the pod alone.
const PAGE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8082);

/// The time between two looks whether the page knows everything.
const LOOKS: Duration = Duration::from_millis(500);

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

    /// Tells readers once everything was looked at. Until then a service that is not on the page may be in the cluster.
    pub(super) async fn first_look(views: Views, board: Board) {
        while !has_looked(&views, &board) {
            tokio::time::sleep(LOOKS).await;
        }
        board.complete();
    }
}

/// Whether the lists are complete and every RegisteredService has had its first pass. Those of another release have
/// none, and neither have those whose names cannot be read.
fn has_looked(views: &Views, board: &Board) -> bool {
    let view = views.cluster();
    let has_pass =
        |key: &ServiceKey, object| view.stays(key) && !view.is_held_elsewhere(object) && !view.is_nameless(key);
    let looked_at = view.registered_services.iter().filter(|(key, object)| has_pass(key, object));
    view.is_complete_somewhere() && board.has_all(looked_at.map(|(key, _)| key))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use twinspan_core::Timestamp;

    use super::*;
    use crate::cluster::view::Kind;
    use crate::env::Env;
    use crate::page::rows::{Service, State};

    #[test]
    fn the_page_knows_everything_after_the_first_pass_of_each() {
        let (views, board) = (Views::new(Env::real()), Board::on());
        assert!(!has_looked(&views, &board), "no list is complete");
        for kind in Kind::ALL {
            assert!(!has_looked(&views, &board), "the list of {kind:?} is not complete");
            views.cluster().set_synced(kind);
        }
        assert!(has_looked(&views, &board), "there is nothing");
        let key = ServiceKey::new("shop", "echo");
        let object =
            json!({"metadata": {"name": "echo", "namespace": "shop"}, "spec": {"registryRef": {"name": "main"}}});
        views.cluster().registered_services.insert(key.clone(), Arc::new(serde_json::from_value(object).unwrap()));
        assert!(!has_looked(&views, &board));
        let line = Service {
            registry: "main".to_owned(),
            registry_name: "echo".to_owned(),
            service: "echo".to_owned(),
            direction: "Both",
            policy: "Sync",
            discovered: false,
            state: State::Unknown,
            reason: String::new(),
            message: String::new(),
            cluster: 0,
            registry_instances: 0,
            exported: 0,
            imported: 0,
            lost: 0,
            healed: 0,
            skipped: 0,
            held: 0,
            digest: 0,
        };
        board.put(&key, line, None, None, Timestamp::UNIX_EPOCH);
        assert!(has_looked(&views, &board));
    }

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
