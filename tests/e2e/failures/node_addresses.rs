//! The stories of guard and fence that export pods, once more with addresses of Nodes (`spec.export.address: Node`).
//!
//! Owns the choice of the stories. Departures are those of servers outside, which no export has a part in.

use std::sync::Arc;

use libtest_mimic::Trial;

use super::{fence, guard};
use crate::harness::{Suite, outside, story_name};

pub fn stories(suite: &Arc<Suite>) -> Vec<Trial> {
    macro_rules! trials {
        ($($story:path),+ $(,)?) => {
            vec![$(suite.story(&story_name(module_path!(), stringify!($story)), outside($story))),+]
        };
    }
    trials![
        guard::exports_that_vanish_while_nobody_runs,
        guard::exports_that_only_a_list_lacks,
        guard::the_registry_comes_back_empty,
        fence::a_leader_that_was_frozen_writes_nothing,
        fence::a_cloned_cluster_is_told_apart,
        fence::two_clusters_on_one_etcd,
        fence::two_service_registries_for_one_registry,
        fence::two_etcds_with_one_cluster_id,
        fence::two_formats_without_a_prefix_on_one_etcd,
    ]
}
