use serde_json::json;
use twinspan_core::Timestamp;

use super::*;
use crate::api::kstatus;

/// Of every reason for which a registry is not Ready, and of one that is.
#[test]
fn a_wait_for_a_registry_ends_where_only_a_person_helps() {
    let reasons = Reason::ALL.iter().filter(|reason| reason.carried_by().contains(&CONNECTED));
    let mut found = BTreeMap::new();
    for reason in reasons.filter(|reason| **reason != Reason::Connected) {
        let [ready, connected, synced] = session(None, Some(&Rejection::new(*reason, "why")), true);
        let all: Vec<_> = [stalled(&ready), Some(ready), Some(connected), Some(synced)].into_iter().flatten().collect();
        let set = conditions::set(&[], &all, Some(1), Timestamp::UNIX_EPOCH);
        let object = json!({"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "conditions": set}});
        assert_eq!(kstatus::compute(&object), kstatus::of_ready(reason.as_str()), "{reason:?}");
        *found.entry(kstatus::compute(&object)).or_insert(0) += 1;
    }
    assert_eq!(found.len(), 2, "{found:?}");

    let [ready, _, _] = session(None, None, true);
    assert_eq!((stalled(&ready), kstatus::of_ready(ready.reason.as_str())), (None, "InProgress"), "no session yet");
}
