//! Watches that are open on both servers at once.
//!
//! Owns their opening, and the comparison of their events up to a marker that is written last. Refuses to draw.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::Method;
use kube::api::WatchEvent;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::objects::Kind;
use super::operations::Operation;
use super::side::Side;

/// Watches that are open at once.
const OPEN: usize = 4;
const EVENT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub enum Step {
    Open {
        path: String,
        kind: Kind,
    },
    /// Compares the oldest one.
    Close,
}

struct Open {
    path: String,
    kind: Kind,
    streams: Vec<BoxStream<'static, kube::Result<WatchEvent<Value>>>>,
}

#[derive(Default)]
pub struct Watches {
    open: Vec<Open>,
    markers: usize,
    /// Events that were compared.
    pub events: usize,
}

impl Watches {
    /// Returns the differences.
    pub async fn step(&mut self, step: Step, sides: &mut [Side; 2]) -> Result<Option<String>> {
        match step {
            Step::Open { path, kind } => {
                let mut streams = Vec::new();
                for side in sides.iter() {
                    let uri = format!("{}&timeoutSeconds=300", side.fill_in(&path));
                    let request = http::Request::get(uri).body(Vec::new())?;
                    let opening = timeout(EVENT, side.client.request_events::<Value>(request));
                    streams.push(opening.await?.with_context(|| path.clone())?.boxed());
                }
                self.open.push(Open { path, kind, streams });
                if self.open.len() > OPEN { self.close(sides).await } else { Ok(None) }
            }
            Step::Close if self.open.is_empty() => Ok(None),
            Step::Close => self.close(sides).await,
        }
    }

    async fn close(&mut self, sides: &mut [Side; 2]) -> Result<Option<String>> {
        let mut open = self.open.remove(0);
        self.markers += 1;
        let collection = open.path.split('?').next().unwrap_or_default();
        let mut marker = open.kind.object(0, 0);
        let name = format!("marker-{}", self.markers);
        marker["metadata"]["name"] = json!(name);
        let create = Operation::about_nothing(Method::POST, collection.to_owned(), Some(marker));
        let delete = Operation::about_nothing(
            Method::DELETE,
            format!("{collection}/{name}"),
            Some(json!({"gracePeriodSeconds": 0})),
        );
        let mut seen = Vec::new();
        for (side, stream) in sides.iter_mut().zip(&mut open.streams) {
            let created = side.send(&create).await?;
            anyhow::ensure!(created.code == 201, "no marker: {created}");
            seen.push(events(side, stream, &name).await.with_context(|| open.path.clone())?);
            side.send(&delete).await?;
        }
        self.events += seen[0].len();
        let differs = seen[0] != seen[1];
        let tell = |events: &[String]| events.join("\n       ");
        Ok(differs.then(|| format!("{}\n  real {}\n  fake {}", open.path, tell(&seen[0]), tell(&seen[1]))))
    }
}

/// The events up to the marker, or to the end.
async fn events(
    side: &mut Side,
    stream: &mut BoxStream<'static, kube::Result<WatchEvent<Value>>>,
    marker: &str,
) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    loop {
        let next = timeout(EVENT, stream.next()).await.with_context(|| format!("no marker after {seen:?}"))?;
        let (kind, object) = match next.transpose()? {
            Some(WatchEvent::Added(object)) => ("ADDED", object),
            Some(WatchEvent::Modified(object)) => ("MODIFIED", object),
            Some(WatchEvent::Deleted(object)) => ("DELETED", object),
            Some(WatchEvent::Bookmark(_)) => continue,
            Some(WatchEvent::Error(status)) => ("ERROR", serde_json::to_value(status)?),
            None => return Ok(seen),
        };
        let is_last = object["metadata"]["name"] == marker || kind == "ERROR";
        seen.push(format!("{kind} {}", side.number(object)));
        if is_last {
            return Ok(seen);
        }
    }
}
