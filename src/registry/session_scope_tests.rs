//! Sessions with a large registry, of which few or many names are asked for.

use super::*;
use crate::registry::scope::{SMALL, Scope};

/// A registry with a record of echo, and one of each of so many other names.
fn large(others: usize) -> Bench {
    let bench = bench();
    bench.server.put("p/echo/10.0.0.1:80", &value("10.0.0.1:80"), LeaseId::NONE);
    for n in 0..others {
        bench.server.put(&format!("p/other-{n}/10.0.0.2:80"), &value("10.0.0.2:80"), LeaseId::NONE);
    }
    bench
}

fn numbered(others: usize) -> Vec<String> {
    (0..others).map(|n| format!("other-{n}")).collect()
}

impl Bench {
    fn ask_for(&self, more: &[String]) {
        let all: Vec<&str> = more.iter().map(String::as_str).chain(["echo"]).collect();
        self.handle.asked.set_registered(names(&all));
    }

    fn known(&self) -> usize {
        self.handle.view().counts().foreign
    }

    async fn in_scope(&self, scope: Scope) {
        self.until("the scope", |b| b.handle.asked.scope() == Some(scope) && b.handle.connection().is_ok()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn few_names_of_a_large_registry_are_followed_one_by_one() {
    let bench = large(SMALL);
    bench.ask_for(&[]);
    bench.fresh().await;
    assert_eq!((bench.handle.asked.scope(), bench.known()), (Some(Scope::FollowedNames), 1));
    bench.server.put("p/other-1/10.0.0.3:80", &value("10.0.0.3:80"), LeaseId::NONE);
    bench.server.put("p/echo/10.0.0.4:80", &value("10.0.0.4:80"), LeaseId::NONE);
    bench.until("the change", |b| b.keys().len() == 2).await;
    assert_eq!(bench.known(), 2, "changes of other names are not told");
    bench.ask_for(&numbered(2));
    bench.until("a name more", |b| b.snapshot_of("other-1").records.len() == 2).await;
    assert_eq!((bench.known(), bench.server.calls("list")), (5, 3));
    bench.ask_for(&[]);
    bench.until("given up", |b| b.known() == 2).await;
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_session_begins_again_when_many_names_are_asked_for_and_when_they_are_few_again() {
    let bench = large(SMALL);
    bench.ask_for(&[]);
    bench.fresh().await;
    let connections = bench.server.calls("status");
    bench.ask_for(&numbered(SMALL / 2));
    bench.in_scope(Scope::Everything).await;
    assert_eq!(bench.known(), SMALL + 1);
    bench.ask_for(&[]);
    bench.in_scope(Scope::FollowedNames).await;
    bench.fresh().await;
    assert_eq!(bench.known(), 1);
    assert_eq!(bench.handle.status().phase, Phase::Watching);
    // One connection serves all of them: a session asks once who answers.
    assert_eq!(bench.server.calls("status") - connections, 2);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_record_that_goes_while_the_scope_changes_has_departed() {
    let bench = large(SMALL);
    bench.ask_for(&numbered(SMALL / 2));
    bench.fresh().await;
    assert_eq!(bench.handle.asked.scope(), Some(Scope::Everything));
    bench.server.set_faults(Faults { slow: true, ..Faults::default() });
    bench.ask_for(&[]);
    bench.until("the scope", |b| b.handle.asked.scope() == Some(Scope::FollowedNames)).await;
    assert_eq!(bench.keys(), ["p/echo/10.0.0.1:80"], "known until the list");
    bench.server.delete(&["p/echo/10.0.0.1:80"]);
    bench.fresh().await;
    assert_eq!(bench.keys(), Vec::<String>::new());
    assert_eq!(bench.evidence_of("echo"), [Evidence::DeregisteredUnseen]);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_grew_is_followed_by_names_after_an_audit() {
    let bench = large(SMALL - 2);
    bench.ask_for(&[]);
    bench.fresh().await;
    assert_eq!((bench.handle.asked.scope(), bench.known()), (Some(Scope::Everything), SMALL - 1));
    bench.server.put("p/more/10.0.0.2:80", &value("10.0.0.2:80"), LeaseId::NONE);
    let (handle, stop) = (bench.handle.clone(), bench.stop.clone());
    tokio::spawn(crate::registry::audit::run(handle, Duration::from_secs(20), Env::real(), stop));
    bench.in_scope(Scope::FollowedNames).await;
    bench.fresh().await;
    assert_eq!(bench.known(), 1);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn the_first_session_waits_for_the_names_and_a_later_process_does_not() {
    for told in [None, Some(Scope::Everything), Some(Scope::FollowedNames)] {
        let (server, (sender, _events)) = (FakeEtcd::new(), mpsc::unbounded_channel());
        for n in 0..SMALL {
            server.put(&format!("p/other-{n}/10.0.0.2:80"), &value("10.0.0.2:80"), LeaseId::NONE);
        }
        let handle = RegistryHandle::new("main", &identity(Layout::new(Format::Kitex, "p"), None), None, sender);
        told.into_iter().for_each(|scope| handle.asked.set_scope(scope));
        let stop = CancellationToken::new();
        tokio::spawn(run(handle.clone(), Arc::new(server), Env::real(), stop.clone()));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(handle.connection().is_ok(), told.is_some());
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(handle.connection().is_ok(), "it does not wait for ever");
        assert_eq!(handle.asked.scope(), told.or(Some(Scope::FollowedNames)));
        stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn an_own_record_that_comes_under_a_name_that_nobody_asks_for_any_more_is_followed() {
    let bench = large(SMALL);
    bench.ask_for(&[]);
    bench.fresh().await;
    bench.ask_for(&numbered(1));
    bench.until("followed", |b| b.snapshot_of("other-0").state == ViewState::Fresh).await;
    bench.ask_for(&[]);
    bench.until("given up", |b| b.known() == 1).await;
    // A pass had planned it before that.
    let value = r#"{"network":"tcp","address":"10.0.0.9:80","weight":10,"tags":{"twinspan.dev/owner":"c1/shop/echo"}}"#;
    bench.write(vec![RecordOp::Create { key: "p/other-0/10.0.0.9:80".into(), value: value.into() }]).await;
    bench.until("listed", |b| b.handle.view().counts().own == 1 && b.known() == 2).await;
    bench.server.delete(&["p/other-0/10.0.0.9:80"]);
    bench.until("told", |b| b.handle.view().counts().own == 0).await;
    bench.stop.cancel();
}
