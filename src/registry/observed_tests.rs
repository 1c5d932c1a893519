use std::sync::Mutex;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use twinspan_core::codec::{Format, Layout};

use super::*;
use crate::env::Env;
use crate::registry::handle::{Identity, RegistryHandle};
use crate::registry::testing::{FakeEtcd, Faults};
use crate::registry::{keepalive, session};

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Sight>>>);

impl Seen {
    fn observe(&self) -> Observe {
        let seen = self.0.clone();
        Arc::new(move |registry, sight| {
            assert_eq!(registry, "main");
            seen.lock().unwrap().push(sight);
        })
    }

    fn take(&self) -> Vec<Sight> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// The errors of the calls of one operation.
fn errors_of(seen: &[Sight], wanted: &str) -> Vec<Option<&'static str>> {
    let of = |sight: &Sight| match sight {
        Sight::Called { op, error, .. } if *op == wanted => Some(*error),
        _ => None,
    };
    seen.iter().filter_map(of).collect()
}

#[tokio::test(start_paused = true)]
async fn each_call_tells_its_time_and_its_error() {
    let (server, seen) = (FakeEtcd::new(), Seen::default());
    server.put("p/echo/10.0.0.1:80", "{}", LeaseId::NONE);
    let connector = Observed::new(Arc::new(server.clone()), "main", seen.observe());
    let registry = connector.connect().await.unwrap();
    server.set_faults(Faults { slow: true, ..Faults::default() });
    let list = registry.list("p/").await.unwrap();
    let mut pages = registry.pages("p/", list.revision);
    while pages.next_page().await.unwrap().is_some() {}
    let range = WatchRange { watch_id: 1, key_prefix: "p/".to_owned(), from: list.revision + 1, cluster_id: 0 };
    let mut watch = registry.watch(&range).await.unwrap();
    server.put("p/echo/10.0.0.2:80", "{}", LeaseId::NONE);
    watch.next().await.unwrap();
    let first = seen.take();
    for op in ["connect", "list", "page", "watch"] {
        assert_eq!(errors_of(&first, op), [None], "{op}: {first:?}");
    }
    let long = first.iter().any(|sight| matches!(sight, Sight::Called { op: "list", took, .. } if took.as_secs() >= 1));
    assert!(long, "{first:?}");
    assert_eq!(first.last(), Some(&Sight::Heard));

    // A minute in which the watch tells nothing is no call.
    assert!(tokio::time::timeout(Duration::from_secs(60), watch.next()).await.is_err());
    assert_eq!(seen.take(), []);
    server.set_faults(Faults { away: true, ..Faults::default() });
    registry.count("p/").await.unwrap_err();
    assert_eq!(errors_of(&seen.take(), "count"), [Some("Unreachable")]);
}

#[tokio::test(start_paused = true)]
async fn sessions_tell_of_keepalives_and_of_their_end() {
    let (server, seen, stop) = (FakeEtcd::new(), Seen::default(), CancellationToken::new());
    let (uid, cluster_id, layout) = ("u".into(), "c1".into(), Layout::new(Format::Kitex, "p"));
    let identity = Identity { uid, cluster_id, layout, ttl_seconds: 60, fence_prefix: None };
    let handle = RegistryHandle::new("main", &identity, None, mpsc::unbounded_channel().0);
    let connector = Arc::new(Observed::new(Arc::new(server.clone()), "main", seen.observe()));
    tokio::spawn(session::run(handle.clone(), connector, Env::real(), stop.clone()));
    tokio::spawn(keepalive::run(handle.clone(), stop.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(handle.leases.living(), 0);
    let connection = handle.connection().unwrap();
    let room = handle.leases.room(connection.as_ref(), |_| 0, 1).await.unwrap();
    assert_eq!(handle.leases.living(), 1);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let kept = |seen: &[Sight], result| seen.iter().filter(|sight| **sight == Sight::KeptAlive(result)).count();
    let quiet = seen.take();
    assert!(kept(&quiet, "kept") >= 1 && kept(&quiet, "failed") == 0, "{quiet:?}");
    assert!(!quiet.iter().any(|sight| matches!(sight, Sight::SessionEnded(_))), "{quiet:?}");

    server.stall_keepalives(room.lease, true);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let stalled = seen.take();
    assert!(kept(&stalled, "failed") >= 1, "{stalled:?}");
    server.set_faults(Faults { away: true, ..Faults::default() });
    tokio::time::sleep(Duration::from_secs(60)).await;
    let away = seen.take();
    assert!(away.contains(&Sight::SessionEnded("Unreachable")), "{away:?}");
    assert_eq!(handle.leases.living(), 0, "nothing has kept it alive for its TTL");
    stop.cancel();
}
