//! Take-overs of a large registry, whose session begins again meanwhile.

use super::*;
use crate::registry::phase::Phase;
use crate::registry::scope::{SMALL, Scope};

/// A registry with so many records that few names are followed one by one.
fn large() -> FakeEtcd {
    let server = FakeEtcd::new();
    for n in 0..SMALL {
        server.put(&format!("p/other-{n}/10.0.0.2:80"), "{}", LeaseId::NONE);
    }
    server
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_is_raised_while_the_scope_changes_is_no_rollback() {
    let server = large();
    let a = replica(&server, "a");
    a.handle.asked.set_scope(Scope::Everything);
    a.until("listed", |_| a.handle.connection().is_ok()).await;
    server.set_faults(Faults { slow: true, slow_commits: true, ..Faults::default() });
    a.lead();
    a.until("the fence is read", |_| server.calls("read") > 1).await;
    a.handle.asked.set_registered([RegistryName::new("echo").unwrap()].into());
    let followed = || a.handle.asked.scope() == Some(Scope::FollowedNames) && a.handle.connection().is_ok();
    a.until("the other scope", |_| followed()).await;
    assert_eq!(a.handle.view().incarnation(), Incarnation::AsItWas);
    a.holds_epoch("1/a").await;
    assert_eq!(a.handle.view().incarnation(), Incarnation::AsItWas);
    a.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_large_registry_of_which_nobody_asks_for_a_name_has_a_status() {
    let a = replica(&large(), "a");
    a.handle.asked.set_registered([].into());
    a.until("connected", |_| a.handle.connection().is_ok()).await;
    assert_eq!((a.handle.asked.scope(), a.handle.view().counts().all()), (Some(Scope::FollowedNames), 0));
    let status = a.handle.status();
    assert!(status.phase == Phase::Watching && status.revision_at_last_session > 0, "{status:?}");
    a.stop.cancel();
}
