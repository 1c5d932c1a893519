//! Metrics of the process, by the names that Prometheus client libraries give them
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>), so that dashboards of others know
//! them.
//!
//! Owns the reading of `/proc`, at each scrape; a part that cannot be read is left out. Refuses to know anything of
//! Twinspan.

use std::fmt;

use procfs::process::{LimitValue, Process};
use procfs::{boot_time_secs, page_size, ticks_per_second};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Reads the process that it is in.
#[derive(Debug)]
pub struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Ok(process) = Process::myself() else { return Ok(()) };
        let to = &mut encoder;
        if let Ok(stat) = process.stat() {
            let seconds = |ticks: u64| ticks as f64 / ticks_per_second() as f64;
            let cpu = ConstCounter::new(seconds(stat.utime + stat.stime));
            put(to, "cpu", "User and system CPU time spent", Some(&Unit::Seconds), &cpu)?;
            let resident = ConstGauge::new(whole(stat.rss.saturating_mul(page_size())));
            put(to, "resident_memory", "Resident memory", Some(&Unit::Bytes), &resident)?;
            let all = ConstGauge::new(whole(stat.vsize));
            put(to, "virtual_memory", "Virtual memory", Some(&Unit::Bytes), &all)?;
            let threads = ConstGauge::new(stat.num_threads);
            put(to, "threads", "Threads of the process", None, &threads)?;
            if let Ok(boot) = boot_time_secs() {
                let start = ConstGauge::new(boot as f64 + seconds(stat.starttime));
                put(to, "start_time", "Start of the process since the Unix epoch", Some(&Unit::Seconds), &start)?;
            }
        }
        if let Ok(open) = process.fd_count() {
            let open = ConstGauge::new(whole(open as u64));
            put(to, "open_fds", "Open file descriptors", None, &open)?;
        }
        if let Ok(LimitValue::Value(most)) = process.limits().map(|limits| limits.max_open_files.soft_limit) {
            put(to, "max_fds", "Greatest number of open file descriptors", None, &ConstGauge::new(whole(most)))?;
        }
        Ok(())
    }
}

fn put(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(to.encode_descriptor(name, help, unit, metric.metric_type())?)
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
