//! The parts of `/readyz`.
//!
//! Owns the choice of the parts that make a replica unready: the lists of the cluster. Leadership, registries and
//! silent watches do not: a standby is ready, an unreachable registry affects only its own services, whose
//! ServiceRegistry says so, and another replica would hear no more of the API server.
//! Refuses to serve pages.

use crate::cluster::view::{Kind, SILENT_AFTER};
use crate::controllers::views::Views;
use crate::leadership::Leadership;
use crate::registry::phase::Phase;
use crate::telemetry::admin::{Part, PartState};

fn plural(kind: Kind) -> String {
    match kind.as_str().strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{}s", kind.as_str()),
    }
}

/// Every part, in a fixed order.
pub fn parts(views: &Views, leadership: &Leadership) -> Vec<Part> {
    let unsynced = views.cluster().unsynced();
    let mut parts: Vec<Part> = Kind::ALL
        .into_iter()
        .map(|kind| Part {
            name: format!("list of {}", plural(kind)),
            state: match unsynced.contains(&kind) {
                false => PartState::Ready,
                true => PartState::Waits("not complete yet; where it takes long the log says why".to_owned()),
            },
        })
        .collect();
    let now = views.env.now();
    for kind in Kind::ALL {
        let age = views.cluster().unheard_for(kind, now).map(|age| age.as_secs());
        if let Some(age) = age {
            let silent = age >= SILENT_AFTER.as_secs();
            let told = if silent { "no news for" } else { "heard of" };
            let text =
                format!("{told} {age} s{}", if silent { ", and nothing is deleted because of it" } else { " ago" });
            parts.push(Part { name: format!("watch of {}", plural(kind)), state: PartState::Info(text) });
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_objects_of_a_kind_have_an_english_plural() {
        assert_eq!(plural(Kind::Pod), "Pods");
        assert_eq!(plural(Kind::ServiceRegistry), "ServiceRegistries");
    }
}
