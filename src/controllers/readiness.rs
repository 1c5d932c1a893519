//! What `/readyz` says of each part: the lists of the cluster that everything rests on, then leadership and registries, which make
//! nobody unready. A standby is ready, and a registry that is away concerns its own services alone: its ServiceRegistry says so.

use super::context::Context;
use crate::cluster::view::Kind;
use crate::registry::handle::Phase;
use crate::telemetry::admin::{Part, PartState};

/// Every part, in a fixed order.
pub fn parts(context: &Context) -> Vec<Part> {
    let waiting = context.cluster().waiting_for();
    let mut parts: Vec<Part> = Kind::ALL
        .into_iter()
        .map(|kind| Part {
            name: format!("list of {}s", kind.as_str()),
            state: match waiting.contains(&kind) {
                false => PartState::Ready,
                true => PartState::Waits("not complete yet; where it takes long the log says why".to_owned()),
            },
        })
        .collect();
    let leads = if context.claim.holds() { "this replica writes" } else { "this replica stands by" };
    parts.push(Part { name: "leadership".to_owned(), state: PartState::Stands(leads.to_owned()) });
    for handle in context.registries.all() {
        let state = match handle.status().phase {
            Phase::Connecting => "connecting".to_owned(),
            Phase::Listing => "waiting for a complete list".to_owned(),
            Phase::Watching => "watching".to_owned(),
            Phase::Failed(error) => error.to_string(),
        };
        parts.push(Part { name: format!("registry {}", handle.name), state: PartState::Stands(state) });
    }
    parts
}
