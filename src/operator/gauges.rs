//! The gauges that grow or fall by themselves: ages of watches, leases, and the passes that are due.
//!
//! Owns how often they are measured. Refuses to judge a value.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::etcd_calls::EtcdCalls;
use crate::cluster::view::Kind;
use crate::controllers::queue::Backlog;
use crate::controllers::views::Views;
use crate::telemetry::metrics::{Metrics, OfKind};

/// Interval of the measurement; shorter than Prometheus usually asks.
const INTERVAL: Duration = Duration::from_secs(5);

/// Everything that is measured, and where it is shown.
pub struct Gauges {
    pub views: Views,
    pub backlog: Backlog,
    pub calls: EtcdCalls,
    pub metrics: Arc<Metrics>,
}

impl Gauges {
    /// Measures until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            self.measure();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(INTERVAL) => {}
            }
        }
    }

    fn measure(&self) {
        let Self { views, backlog, calls, metrics } = self;
        let now = views.env.now();
        for kind in Kind::ALL {
            let age = views.cluster().unheard_for(kind, now);
            if let Some(age) = age {
                metrics.watch_age.get_or_create(&OfKind { kind: kind.as_str() }).set(age.as_secs_f64());
            }
        }
        let sessions = views.registries.all();
        calls.forget_all_but(&sessions.iter().map(|handle| handle.name.as_str()).collect());
        for handle in sessions {
            calls.set_leases(&handle.name, handle.leases.living());
        }
        calls.measure_ages();
        let (depth, since) = backlog.get();
        metrics.queue.set(i64::try_from(depth).unwrap_or(i64::MAX));
        metrics.queue_age.set(since.map_or(0.0, |since| (Instant::now() - since).as_secs_f64()));
    }
}

#[cfg(test)]
mod tests {
    use twinspan_core::model::ServiceKey;

    use super::*;
    use crate::controllers::queue;
    use crate::env::Env;
    use crate::registry::observed::Sight;

    #[tokio::test(start_paused = true)]
    async fn ages_and_depths_grow_while_nothing_happens() {
        let (views, metrics) = (Views::new(Env::real()), Arc::new(Metrics::default()));
        let (enqueuer, queue) = queue::new(Env::real());
        let calls = EtcdCalls::new(metrics.clone());
        let (backlog, stop) = (queue.backlog(), CancellationToken::new());
        // No pass ends, and each keeps its place for a second.
        tokio::spawn(queue.run(|_, _| std::future::pending(), stop.clone()));
        views.cluster().heard(Kind::Pod, views.env.now());
        (calls.observe())("gone", Sight::Heard);
        let gauges = Gauges { views, backlog, calls, metrics };
        for number in 0..300 {
            enqueuer.enqueue(&ServiceKey::new("shop", format!("s{number}")));
        }
        sleep(Duration::from_millis(750)).await;
        gauges.measure();
        let shown = gauges.metrics.print().unwrap();
        assert!(!shown.contains("\"gone\""), "no session has that name: {shown}");
        for line in ["twinspan_queue_depth 44\n", "twinspan_queue_age_seconds 0.75"] {
            assert!(shown.contains(line), "{line} is not in\n{shown}");
        }
        sleep(Duration::from_secs(20)).await;
        gauges.measure();
        let shown = gauges.metrics.print().unwrap();
        for line in [
            "twinspan_watch_age_seconds{kind=\"Pod\"} 20.75",
            "twinspan_queue_depth 0\n",
            "twinspan_queue_age_seconds 0.0\n",
        ] {
            assert!(shown.contains(line), "{line} is not in\n{shown}");
        }
        stop.cancel();
    }
}
