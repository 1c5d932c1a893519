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
        let mut missing = None;
        while !has_looked(&views, &board, &mut missing) {
            tokio::time::sleep(LOOKS).await;
        }
        board.complete();
    }
}

/// Whether the lists are complete and every RegisteredService has had its first pass. Those of another release have
/// none, and neither have those whose names cannot be read. `missing` is the service that the last look missed: while
/// it is missing, a look asks for no other.
fn has_looked(views: &Views, board: &Board, missing: &mut Option<ServiceKey>) -> bool {
    let view = views.cluster();
    let has_pass = |key: &ServiceKey| {
        let object = view.registered_services.get(key);
        object.is_some_and(|object| view.stays(key) && !view.is_held_elsewhere(object) && !view.is_nameless(key))
    };
    if !view.is_complete_somewhere() || missing.as_ref().is_some_and(|key| has_pass(key) && !board.has(key)) {
        return false;
    }
    *missing = view.registered_services.keys().find(|key| has_pass(key) && !board.has(key)).cloned();
    missing.is_none()
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
        let (views, board, mut missing) = (Views::new(Env::real()), Board::on(), None);
        assert!(!has_looked(&views, &board, &mut missing), "no list is complete");
        for kind in Kind::ALL {
            assert!(!has_looked(&views, &board, &mut missing), "the list of {kind:?} is not complete");
            views.cluster().set_synced(kind);
        }
        assert!(has_looked(&views, &board, &mut missing), "there is nothing");
        let [new, first, second, third] = ["0", "a", "b", "c"].map(|name| ServiceKey::new("shop", name));
        let create = |key: &ServiceKey| {
            let object =
                json!({"metadata": {"name": key.name, "namespace": "shop"}, "spec": {"registryRef": {"name": "main"}}});
            views.cluster().registered_services.insert(key.clone(), Arc::new(serde_json::from_value(object).unwrap()));
        };
        [&first, &second, &third].into_iter().for_each(create);
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
        let pass_over = |key: &ServiceKey| board.put(key, line.clone(), None, None, Timestamp::UNIX_EPOCH);
        assert!(!has_looked(&views, &board, &mut missing));
        pass_over(&first);
        assert!(!has_looked(&views, &board, &mut missing) && missing.as_ref() == Some(&second));
        pass_over(&third);
        assert!(!has_looked(&views, &board, &mut missing) && missing.as_ref() == Some(&second));
        create(&new);
        assert!(!has_looked(&views, &board, &mut missing) && missing.as_ref() == Some(&second), "it asks for no other");
        // A RegisteredService that was deleted meanwhile is not waited for.
        views.cluster().registered_services.remove(&second);
        assert!(!has_looked(&views, &board, &mut missing) && missing.as_ref() == Some(&new));
        pass_over(&new);
        assert!(has_looked(&views, &board, &mut missing) && missing.is_none());
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
