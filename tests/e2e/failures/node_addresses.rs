//! The stories of guard, fence and departures once more with addresses of Nodes (`spec.export.address: Node`).
//!
//! Owns the list. Refuses to know what differs, which [`crate::harness`] does.

use std::sync::Arc;

use libtest_mimic::Trial;

use super::{departures, fence, guard};
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
        guard::the_prefix_is_deleted,
        guard::below_the_limits_it_waits_for_quiet,
        guard::a_hold_lets_go_in_the_end,
        guard::a_hold_survives_a_failover,
        guard::the_registry_as_a_whole,
        fence::a_leader_that_was_frozen_writes_nothing,
        fence::a_cloned_cluster_is_told_apart,
        fence::two_clusters_on_one_etcd,
        fence::two_service_registries_for_one_registry,
        fence::two_etcds_with_one_cluster_id,
        fence::two_formats_without_a_prefix_on_one_etcd,
        departures::expired_and_refused_goes_at_once,
        departures::expired_and_accepted_is_lost_and_stays,
        departures::expired_and_silent_goes_in_the_end,
        departures::a_lost_one_that_falls_silent_goes,
        departures::a_failover_brings_nothing_back,
        departures::a_restart_neither_forgets_nor_extends,
        departures::the_last_one_that_left_may_come_back,
        departures::healed_within_10_s,
        departures::pods_are_never_kept,
        departures::gozero_leaves_by_revoking,
    ]
}
