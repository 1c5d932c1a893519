//! The gauge of silent watches: how long ago the API server told something about each kind.
//!
//! Owns how often it is measured. Refuses to judge an age.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cluster::view::Kind;
use crate::controllers::views::Views;
use crate::telemetry::metrics::{Metrics, OfKind};

/// Interval of the measurement; shorter than Prometheus usually asks.
const INTERVAL: Duration = Duration::from_secs(5);

/// Measures until it is stopped.
pub async fn measure(views: Views, metrics: Arc<Metrics>, stop: CancellationToken) {
    loop {
        let now = views.env.now();
        for kind in Kind::ALL {
            let age = views.cluster().unheard_for(kind, now);
            if let Some(age) = age {
                metrics.watch_age.get_or_create(&OfKind { kind: kind.as_str() }).set(age.as_secs_f64());
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(INTERVAL) => {}
        }
    }
}
