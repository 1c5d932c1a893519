//! The writes of a turn, handed to the writer of the cluster.
//!
//! Owns what an error means for the next turn. Refuses to choose what is written.

use std::sync::Arc;

use futures::{StreamExt, stream};
use tracing::warn;
use twinspan_core::plan::discovery::history::{Failure, History, Kind, Op};

use super::controller::Controller;
use super::objects::{made, put_right};
use super::observe::Sight;
use crate::api::RegisteredService;
use crate::cluster::ClusterError;
use crate::cluster::events::{About, Note, Reason};

/// Writes under way at once: others want turns too, and a second has 50 of them at most.
const AT_ONCE: usize = 8;

/// The results of the writes of a turn.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub wrote: usize,
    pub created: usize,
    pub updated: usize,
    pub deleted: usize,
}

impl Controller {
    pub(super) async fn apply(&self, sight: &Sight, ops: &[Op], history: &mut History) -> Applied {
        let sent: Vec<_> = ops.iter().map(|op| self.send(sight, op)).collect();
        let mut answers = stream::iter(sent).buffered(AT_ONCE);
        let (mut applied, mut failures, mut first) = (Applied::default(), 0, None);
        for op in ops {
            let Some(answer) = answers.next().await else { break };
            let now = self.views.env.now();
            match answer {
                Ok(()) => {
                    applied.wrote += 1;
                    match op {
                        Op::Create(_) => applied.created += 1,
                        Op::Update(_) => applied.updated += 1,
                        Op::Delete(_) => applied.deleted += 1,
                    }
                    history.note(op, None, now);
                }
                Err(ClusterError::NotLeader) => return applied,
                // The view shows what is there by then.
                Err(ClusterError::Conflict { .. }) => history.note(op, None, now),
                Err(error) => {
                    failures += 1;
                    let failure = failure(&error);
                    first.get_or_insert_with(|| failure.message.clone());
                    history.note(op, Some(failure), now);
                }
            }
        }
        if let Some(message) = first {
            warn!(registry = sight.name, failures, "discovery: the API server refuses or does not answer: {message}");
        }
        applied
    }

    async fn send(&self, sight: &Sight, op: &Op) -> Result<(), ClusterError> {
        let cluster = &self.writers.cluster;
        match op {
            Op::Create(wanted) => {
                cluster.create_registered(&made(wanted, &sight.name, sight.uid())).await?;
                // An end of the new object is another one.
                self.views.guards.undecide(&sight.name, &wanted.key);
                Ok(())
            }
            Op::Update(update) => {
                let Some(object) = sight.object(&update.wanted.key) else { return Ok(()) };
                cluster.replace_registered(&put_right(object, &update.wanted, &sight.name, sight.uid())).await?;
                if update.restores {
                    self.tell_restored(object, &sight.name);
                }
                Ok(())
            }
            Op::Delete(delete) => {
                // The records that it leaves behind need no second decision.
                self.views.guards.decided(&sight.name, &delete.key, &self.views.env);
                let answer = cluster.delete_registered(&delete.key, &delete.uid, &delete.version).await;
                if answer.as_ref().is_err_and(|error| !may_be_done(error)) {
                    self.views.guards.undecide(&sight.name, &delete.key);
                }
                answer
            }
        }
    }

    fn tell_restored(&self, object: &Arc<RegisteredService>, registry: &str) {
        let note = format!(
            "an edit was undone, because discovery of ServiceRegistry {registry} makes this object; remove its label \
             twinspan.dev/discovered-by to take it over"
        );
        self.writers.events.publish(
            About::RegisteredService(object.clone()),
            Reason::DiscoveryRestored,
            Note::Text(note),
        );
    }
}

fn failure(error: &ClusterError) -> Failure {
    let kind = match error {
        ClusterError::Forbidden { .. } => Kind::Forbidden,
        _ if error.is_refusal() => Kind::Refused,
        _ => Kind::Unanswered,
    };
    Failure { kind, message: error.to_string() }
}

/// Whether a write may have been carried out although it failed.
fn may_be_done(error: &ClusterError) -> bool {
    matches!(error, ClusterError::Timeout { .. } | ClusterError::Unreachable { .. })
}
