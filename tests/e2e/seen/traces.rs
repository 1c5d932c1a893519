//! Traces, as a collector receives them from `--otlp-endpoint`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use twinspan_testbed::{TwinspanOptions, eventually};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![a_pass_and_its_writes];

/// A span, with the attributes of its process.
type Received = (Vec<KeyValue>, Span);

/// A collector that keeps every span.
#[derive(Clone, Debug, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Received>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        for process in request.into_inner().resource_spans {
            let resource = process.resource.unwrap_or_default().attributes;
            spans.extend(process.scope_spans.into_iter().flat_map(|s| s.spans).map(|span| (resource.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attribute(all: &[KeyValue], key: &str) -> Option<String> {
    match all.iter().find(|one| one.key == key)?.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

async fn a_pass_and_its_writes(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let address = listener.local_addr()?;
    let collector = Collector::default();
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let args = vec![format!("--otlp-endpoint=http://{address}")];
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions { args, ..TwinspanOptions::default() })?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(bed, "traces").await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.records_become("echo", &[pod.address()]).await?;

    let service = format!("{}/echo", sandbox.name);
    eventually("the pass that exported is told, with its write", SOON, || async {
        let spans = collector.spans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is = |span: &Span, key: &str, value: &str| attribute(&span.attributes, key).as_deref() == Some(value);
        let (resource, pass) = spans
            .iter()
            .find(|(_, span)| span.name == "pass" && is(span, "service", &service) && is(span, "outcome", "synced"))
            .with_context(|| format!("no such pass among {} spans", spans.len()))?;
        ensure!(attribute(resource, "service.name").as_deref() == Some("twinspan"), "{resource:?}");
        ensure!(
            attribute(resource, "service.instance.id").is_some_and(|id| id.starts_with("twinspan-")),
            "{resource:?}"
        );
        let (_, write) = spans
            .iter()
            .find(|(_, span)| span.parent_span_id == pass.span_id && span.name == "write records")
            .context("no write in it")?;
        ensure!(write.trace_id == pass.trace_id && is(write, "registry", &sandbox.name), "{write:?}");
        ensure!(is(write, "operations", "1"), "{write:?}");
        Ok(())
    })
    .await?;
    // The log has the same lines as without traces.
    let log = std::fs::read_to_string(twinspan.part().log())?;
    ensure!(log.lines().any(|line| line.contains(&format!(" INFO synced {service}: "))), "{log}");
    sandbox.nothing_foreign_was_touched().await
}
