//! The two latencies by which Kubernetes judges a cluster's network, for instances that Twinspan imports: from the
//! change in the registry to the rules of kube-proxy, and to the answers of CoreDNS. Both programs measure them by the
//! time that Twinspan writes into each slice (`endpoints.kubernetes.io/last-change-trigger-time`).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::sleep;
use twinspan_node::{Node, scene};
use twinspan_testbed::eventually;

use crate::pods;
use crate::steps::SOON;

/// Instances that come, one after the other, and go again.
const CHANGES: u8 = 100;
/// The time between two changes: kube-proxy writes its rules at most once a second, whatever changes.
const PACE: Duration = Duration::from_millis(250);
/// The objective of SIG Scalability for the network, at the 99th percentile; that of DNS has no number.
const OBJECTIVE: f64 = 30.0;

/// A measurement of one program.
struct Indicator {
    program: &'static str,
    /// The path of its metrics below the API server.
    path: String,
    metric: &'static str,
}

/// Buckets of a histogram: observations up to each bound.
type Buckets = Vec<(f64, f64)>;

pub async fn latencies_are_measured(node: &Node) -> Result<()> {
    node.apply("programming.yaml").await?;
    let names = node.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]).await?;
    let dns = pods::list(node, "kube-system", "k8s-app=kube-dns").await?;
    let dns = pods::name(dns.first().context("no CoreDNS")?)?;
    let indicators = [
        Indicator {
            program: "kube-proxy (network programming)",
            path: format!("/api/v1/nodes/{names}:10249/proxy/metrics"),
            metric: "kubeproxy_network_programming_duration_seconds",
        },
        Indicator {
            program: "CoreDNS (DNS programming)",
            path: format!("/api/v1/namespaces/kube-system/pods/{dns}:9153/proxy/metrics"),
            metric: "coredns_kubernetes_dns_programming_duration_seconds",
        },
    ];
    // The Services are there before anything is measured.
    put(node, 1).await?;
    instances_become(node, 1).await?;
    let mut before = Vec::new();
    for indicator in &indicators {
        before.push(indicator.read(node).await?);
    }
    for number in 2..=CHANGES {
        put(node, number).await?;
        sleep(PACE).await;
    }
    instances_become(node, usize::from(CHANGES)).await?;
    for number in 2..=CHANGES {
        node.registry.delete(&key(number)).await?;
        sleep(PACE).await;
    }
    instances_become(node, 1).await?;
    for (indicator, before) in indicators.iter().zip(before) {
        let measured = indicator.settled(node, &before).await?;
        let count = measured.last().map_or(0.0, |(_, count)| *count);
        let (p50, p99) = (quantile(&measured, 0.5), quantile(&measured, 0.99));
        println!("{}: {count} changes, p50 {}, p99 {}", indicator.program, shown(p50), shown(p99));
        ensure!(p99.1 <= OBJECTIVE, "{}: {measured:?}", indicator.program);
    }
    Ok(())
}

fn address(number: u8) -> String {
    format!("10.78.1.{number}:9000")
}

fn key(number: u8) -> String {
    format!("kitex/registry-etcd/douyinec.quote/{}", address(number))
}

/// Registers an instance as a Kitex server does.
async fn put(node: &Node, number: u8) -> Result<()> {
    let value = format!(r#"{{"network":"tcp","address":"{}","weight":10,"tags":null}}"#, address(number));
    node.registry.put(&key(number), &value).await
}

async fn instances_become(node: &Node, wanted: usize) -> Result<()> {
    eventually("both Services have the instances", SOON, || async {
        for service in ["quote", "quote-vip"] {
            let labels = format!("kubernetes.io/service-name={service}");
            let printed =
                node.kubectl(&["get", "endpointslices", "-n", scene::SHOP, "-l", &labels, "-o", "json"]).await?;
            let slices: Value = serde_json::from_str(&printed)?;
            let slices = slices["items"].as_array().context("no list")?;
            let found: usize = slices.iter().filter_map(|slice| Some(slice["endpoints"].as_array()?.len())).sum();
            ensure!(found == wanted, "{service}: {found} of {wanted}");
        }
        Ok(())
    })
    .await
}

impl Indicator {
    async fn read(&self, node: &Node) -> Result<Buckets> {
        let page = node.kubectl(&["get", "--raw", &self.path]).await?;
        Ok(buckets(&page, self.metric))
    }

    /// The observations since an earlier reading, once there are as many as changes.
    async fn settled(&self, node: &Node, before: &Buckets) -> Result<Buckets> {
        eventually("each change is measured", SOON, || async {
            let earlier =
                |bound: f64| before.iter().find(|(known, _)| *known == bound).map_or(0.0, |(_, count)| *count);
            let now: Buckets =
                self.read(node).await?.into_iter().map(|(bound, count)| (bound, count - earlier(bound))).collect();
            let count = now.last().map_or(0.0, |(_, count)| *count);
            // Changes of one moment are one write of a slice.
            ensure!(count >= f64::from(CHANGES), "{}: {count}", self.program);
            Ok(now)
        })
        .await
    }
}

/// The buckets of a histogram in the text format, over all its labels, by their bounds.
fn buckets(page: &str, metric: &str) -> Buckets {
    let prefix = format!("{metric}_bucket{{");
    let mut found: BTreeMap<u64, f64> = BTreeMap::new();
    for line in page.lines().filter_map(|line| line.strip_prefix(&prefix)) {
        let bound = line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
        let bound = bound.map(|bound| if bound == "+Inf" { Ok(f64::INFINITY) } else { bound.parse() });
        let count = line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok());
        if let (Some(Ok(bound)), Some(count)) = (bound, count) {
            // Positive numbers are in the order of their bits.
            *found.entry(bound.to_bits()).or_default() += count;
        }
    }
    found.into_iter().map(|(bound, count)| (f64::from_bits(bound), count)).collect()
}

/// The bounds of the bucket in which a quantile is.
fn quantile(buckets: &Buckets, share: f64) -> (f64, f64) {
    let all = buckets.last().map_or(0.0, |(_, count)| *count);
    let mut least = 0.0;
    for (bound, count) in buckets {
        if *count >= all * share {
            return (least, *bound);
        }
        least = *bound;
    }
    (least, f64::INFINITY)
}

fn shown((least, most): (f64, f64)) -> String {
    format!("between {least} and {most} s")
}
