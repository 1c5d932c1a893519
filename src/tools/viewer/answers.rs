//! The questions of the commands, answered from views.
//!
//! Owns each answer. Refuses to know whose views they are.

use std::collections::BTreeMap;

use twinspan_core::model::ServiceKey;

use super::unsynced::Unsynced;
use crate::controllers::views::Views;
use crate::registry::scope::Scope;
use crate::tools::discovery::{self, DiscoveryPreview};
use crate::tools::preview::{self, Preview};
use crate::tools::question::Question;
use crate::tools::record::RecordReport;

/// The lists that are not complete, or else the RegisteredServices whose registry is not listed yet.
pub fn unsynced(views: &Views) -> Vec<Unsynced> {
    let kinds = views.cluster().unsynced();
    if !kinds.is_empty() {
        return kinds.into_iter().map(|kind| Unsynced::List(kind.as_str().to_owned())).collect();
    }
    let pending = |key: &ServiceKey| preview(views, key).is_none_or(|preview| preview.pending);
    let names = discoveries(views).into_iter().filter(|discovery| discovery.pending);
    let names = names.map(|discovery| Unsynced::Names(discovery.registry));
    services(views).into_iter().filter(pending).map(Unsynced::Registry).chain(names).collect()
}

/// The plan of discovery, of every ServiceRegistry that has it.
pub fn discoveries(views: &Views) -> Vec<DiscoveryPreview> {
    discovery::previews(views)
}

/// Every RegisteredService, sorted.
pub fn services(views: &Views) -> Vec<ServiceKey> {
    let mut all: Vec<ServiceKey> = views.cluster().index.all().cloned().collect();
    all.sort();
    all
}

pub fn preview(views: &Views, key: &ServiceKey) -> Option<Preview> {
    preview::preview(views, key)
}

/// In the order of registries, then keys.
pub fn records(views: &Views, question: &Question) -> Vec<RecordReport> {
    let mut found = BTreeMap::new();
    for handle in views.registries.all() {
        for record in handle.view().all().filter(|record| question.is_about_record(record)) {
            let seen = RecordReport::new(&handle, record);
            found.insert((handle.name.clone(), record.key.clone()), seen);
        }
    }
    found.into_values().collect()
}

pub fn followed_by_names(views: &Views) -> Vec<String> {
    let all = views.registries.all().into_iter();
    all.filter(|handle| handle.asked.scope() == Some(Scope::FollowedNames)).map(|handle| handle.name.clone()).collect()
}
