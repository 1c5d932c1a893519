use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::ServiceKey;

use super::*;
use crate::registry::handle::{Identity, RegistryEvent};
use crate::registry::memory::{Faults, MemoryServer};
use crate::registry::session;
use crate::world::World;

/// A session on a registry in memory.
struct Bench {
    server: MemoryServer,
    handle: Arc<RegistryHandle>,
    events: mpsc::UnboundedReceiver<RegistryEvent>,
    stop: CancellationToken,
}

async fn bench() -> Bench {
    let server = MemoryServer::new();
    let (sender, events) = mpsc::unbounded_channel();
    let (uid, cluster_id, layout) = ("u".into(), "c1".into(), Layout::new(Format::Kitex, "p"));
    let identity = Identity { uid, cluster_id, layout, ttl_seconds: 60, fence_prefix: None };
    let (handle, stop) = (RegistryHandle::new("main", &identity, None, sender), CancellationToken::new());
    tokio::spawn(session::run(handle.clone(), Arc::new(server.clone()), World::real(), stop.clone()));
    while handle.connection().is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Bench { server, handle, events, stop }
}

fn value(address: &str, tags: &str) -> Vec<u8> {
    format!(r#"{{"network":"tcp","address":"{address}","weight":10,"tags":{{{tags}}}}}"#).into()
}

fn create(address: &str) -> RecordOp {
    let value = value(address, r#""twinspan.dev/owner":"c1/shop/echo""#);
    RecordOp::Create { key: format!("p/echo/{address}").into(), value }
}

impl Bench {
    async fn write(&self, ops: Vec<RecordOp>) -> Report {
        write(&self.handle, ops, || Ok(())).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_answers_tell_concerns_whoever_the_watch_would_have_told() {
    let mut bench = bench().await;
    bench.server.set_faults(Faults { silent: true, ..Faults::default() });
    let theirs = value("10.0.0.1:80", "");
    bench.server.put("p/echo/10.0.0.1:80", &String::from_utf8_lossy(&theirs), LeaseId::NONE);
    let report = bench.write(vec![create("10.0.0.1:80")]).await;
    assert_eq!((report.lost, report.wrote.is_empty()), (1, true));
    assert!(report.found.names.contains(&b"echo"[..]), "{:?}", report.found);
    let report = bench.write(vec![create("10.0.0.2:80")]).await;
    assert_eq!((report.created, report.found.is_empty()), (1, true));
    assert_eq!(report.wrote.owners, [ServiceKey::new("shop", "echo")].into());
    assert!(report.wrote.names.contains(&b"echo"[..]), "{:?}", report.wrote);
    // When the watch shows both, it is no news.
    bench.server.set_faults(Faults::default());
    tokio::time::sleep(Duration::from_secs(1)).await;
    while let Ok(event) = bench.events.try_recv() {
        assert!(!matches!(&event, RegistryEvent::Touched { .. }), "{event:?}");
    }
    bench.stop.cancel();
}
