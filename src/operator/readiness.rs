//! The parts of `/readyz`.
//!
//! Owns the choice of the parts that make a replica unready: the lists of the cluster. Leadership and registries do
//! not: a standby is ready, and an unreachable registry affects only its own services, whose ServiceRegistry says so.
//! Refuses to serve pages.

use crate::cluster::view::Kind;
use crate::controllers::views::Views;
use crate::leadership::Leadership;
use crate::registry::handle::Phase;
use crate::telemetry::admin::{Part, PartState};

/// Every part, in a fixed order.
pub fn parts(views: &Views, leadership: &Leadership) -> Vec<Part> {
    let unsynced = views.cluster().unsynced();
    let mut parts: Vec<Part> = Kind::ALL
        .into_iter()
        .map(|kind| Part {
            name: format!("list of {}s", kind.as_str()),
            state: match unsynced.contains(&kind) {
                false => PartState::Ready,
                true => PartState::Waits("not complete yet; where it takes long the log says why".to_owned()),
            },
        })
        .collect();
    let leads = match (leadership.is_dry_run(), leadership.is_leader()) {
        (true, _) => "a dry run, which writes nothing",
        (false, true) => "this replica writes",
        (false, false) => "this replica stands by",
    };
    parts.push(Part { name: "leadership".to_owned(), state: PartState::Info(leads.to_owned()) });
    for handle in views.registries.all() {
        let state = match handle.status().phase {
            Phase::Connecting => "connecting".to_owned(),
            Phase::Listing => "waiting for a complete list".to_owned(),
            Phase::Watching => "watching".to_owned(),
            Phase::Failed(error) => error.to_string(),
        };
        parts.push(Part { name: format!("registry {}", handle.name), state: PartState::Info(state) });
    }
    parts
}
