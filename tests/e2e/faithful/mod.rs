//! The fakes of the simulation against the real servers: the same random operations, the same answers.
//!
//! Owns the stories. Refuses to know the operator.

mod etcd;
mod kube;

use std::sync::Arc;

use anyhow::Result;

use crate::harness::{Suite, stories};
use kube::kube_apiserver;

stories![etcd, kube_apiserver];

async fn etcd(suite: Arc<Suite>) -> Result<()> {
    etcd::same_answers(&suite).await
}
