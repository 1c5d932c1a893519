//! A viewer: what an operator would see and do, for the command line.
//!
//! - [`own`]: views of the command's own. [`asked`]: the running operator in the same pod, asked over its socket.
//!   [`pages`]: the operator's side of that socket.
//! - [`answers`]: the questions, answered from views. [`unsynced`]: the parts that are still waited for.
//!
//! Owns the choice between the two: in the pod of an operator a second view has no room. Refuses to write.

mod answers;
mod asked;
mod own;
mod pages;
mod unsynced;

#[cfg(test)]
mod viewer_tests;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use kube::Client;
use twinspan_core::model::ServiceKey;

use super::discovery::DiscoveryPreview;
use super::preview::Preview;
use super::question::Question;
use super::record::RecordReport;
use crate::cluster::networks::NamedNetworks;
use crate::cluster::view::Kind;
use crate::env::Env;
use crate::leadership;

pub use asked::AskError;
use asked::Result;
pub use pages::pages;
pub use unsynced::Unsynced;

/// Interval at which the viewer checks whether everything is synced.
const POLL: Duration = Duration::from_millis(50);

/// The same where an operator is asked, which has other work.
const POLL_OPERATOR: Duration = Duration::from_secs(1);

pub struct Viewer {
    client: Client,
    operator_namespace: String,
    sight: Sight,
}

enum Sight {
    Own(Box<own::Own>),
    Asked(asked::Asked),
}

impl fmt::Debug for Viewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Viewer")
    }
}

impl Viewer {
    /// Asks the operator behind the socket, if one is given. Views of the command's own know the networks besides those
    /// of the cluster.
    pub fn start(client: &Client, operator_namespace: &str, networks: &NamedNetworks, socket: Option<&Path>) -> Self {
        let sight = match socket {
            Some(path) => Sight::Asked(asked::Asked::at(path)),
            None => Sight::Own(Box::new(own::Own::start(client, operator_namespace, networks))),
        };
        Self { client: client.clone(), operator_namespace: operator_namespace.to_owned(), sight }
    }

    /// Waits until every kind is listed and every RegisteredService can be previewed. Returns the parts that did not
    /// sync in time.
    ///
    /// # Errors
    /// [`AskError`] if the operator does not answer.
    pub async fn wait_for_sync(&self, within: Duration) -> Result<Vec<Unsynced>> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let unsynced = match &self.sight {
                Sight::Own(own) => answers::unsynced(own.views()),
                Sight::Asked(operator) => operator.unsynced().await?,
            };
            if unsynced.is_empty() || tokio::time::Instant::now() >= deadline {
                return Ok(unsynced);
            }
            tokio::time::sleep(if matches!(self.sight, Sight::Own(_)) { POLL } else { POLL_OPERATOR }).await;
        }
    }

    /// The part that [`Viewer::wait_for_sync`] waits for now, in words.
    pub fn awaited(&self) -> String {
        let Sight::Own(own) = &self.sight else { return "the operator in this pod".to_owned() };
        let unsynced = answers::unsynced(own.views());
        let Some(first) = unsynced.first() else { return "the last answers".to_owned() };
        let all = match first {
            Unsynced::List(_) => Kind::ALL.len(),
            Unsynced::Registry(_) | Unsynced::Names(_) => answers::services(own.views()).len().max(unsynced.len()),
        };
        format!("{first} ({} of {all})", (all + 1).saturating_sub(unsynced.len()))
    }

    /// Every RegisteredService, sorted.
    ///
    /// # Errors
    /// [`AskError`] if the operator does not answer.
    pub async fn services(&self) -> Result<Vec<ServiceKey>> {
        match &self.sight {
            Sight::Own(own) => Ok(answers::services(own.views())),
            Sight::Asked(operator) => operator.services().await,
        }
    }

    /// The findings and writes of an operator now; `None` of a RegisteredService that does not exist.
    ///
    /// # Errors
    /// [`AskError`] if the operator does not answer.
    pub async fn preview(&self, key: &ServiceKey) -> Result<Option<Preview>> {
        match &self.sight {
            Sight::Own(own) => Ok(answers::preview(own.views(), key)),
            Sight::Asked(operator) => operator.preview(key).await,
        }
    }

    /// The plan of discovery of each ServiceRegistry now.
    ///
    /// # Errors
    /// [`AskError`] if the operator does not answer.
    pub async fn discoveries(&self) -> Result<Vec<DiscoveryPreview>> {
        match &self.sight {
            Sight::Own(own) => Ok(answers::discoveries(own.views())),
            Sight::Asked(operator) => operator.discoveries().await,
        }
    }

    /// Every record that a question is about, in every registry.
    ///
    /// # Errors
    /// [`AskError`] if the operator does not answer.
    pub async fn records(&self, about: &str) -> Result<Vec<RecordReport>> {
        match &self.sight {
            Sight::Own(own) => Ok(answers::records(own.views(), &Question::new(about))),
            Sight::Asked(operator) => operator.records(about).await,
        }
    }

    /// The registries of which only the names of RegisteredServices are watched.
    ///
    /// # Errors
    /// [`AskError`] if the operator does not answer.
    pub async fn followed_by_names(&self) -> Result<Vec<String>> {
        match &self.sight {
            Sight::Own(own) => Ok(answers::followed_by_names(own.views())),
            Sight::Asked(operator) => operator.followed_by_names().await,
        }
    }

    /// The leader, from a live read; `None` where no replica leads.
    ///
    /// # Errors
    /// The error of the read.
    pub async fn leader(&self) -> kube::Result<Option<String>> {
        leadership::leader(&self.client, &self.operator_namespace, Env::real().now()).await
    }

    pub async fn end(self) {
        if let Sight::Own(own) = self.sight {
            own.end().await;
        }
    }
}
